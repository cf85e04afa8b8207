"""A container's life in process: create, mount, unmount, remove; against a bare mount(2) and umount2 pair in C.

    python -m benchmarks.container [--depths 1,5,20,100] [--rounds 7] [--repeat 20]

The bare pair mounts the same directories that layerstore mounts, so that the difference is all ours. A durable SQLite
transaction on the same filesystem is measured beside them: one of those is the least that `create` can cost.
"""

from __future__ import annotations

import argparse
import io
import os
import sqlite3
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import layerstore
from benchmarks.bench import Measured, filesystem, machine, run, table, write_results

STEPS = ("create", "mount", "unmount", "remove")
PAIR = ("bare mount(2)", "bare umount2")
COMMIT = "SQLite transaction, FULL"
FILES_BELOW = 5000


def base_layer() -> bytes:
    """A tar of some thousand small files: what a bottom layer looks like."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(FILES_BELOW):
            info = tarfile.TarInfo(f"usr/share/{number // 100}/{number}")
            content = f"{number}\n".encode() * 40
            info.size, info.mtime = len(content), 1_700_000_000
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def build(store: layerstore.Store, depth: int) -> layerstore.Image:
    """An image of `depth` layers: the base, and a file each."""
    image = store.import_tar(io.BytesIO(base_layer()), "bench:1")
    with store.create_container(image) as box:
        for number in range(2, depth + 1):
            with box.mount() as root:
                (root / f"layer-{number}").write_text(f"{number}\n")
            image = box.commit(f"bench:{number}")
        box.remove()
    return image


def life(store: layerstore.Store, image: layerstore.Image) -> dict[str, float]:
    """One container, once: seconds of each step."""
    times = [time.perf_counter()]
    box = store.create_container(image)
    times.append(time.perf_counter())
    mounted = box.mount()
    times.append(time.perf_counter())
    mounted.unmount()
    times.append(time.perf_counter())
    box.remove()
    times.append(time.perf_counter())
    return {step: times[index + 1] - times[index] for index, step in enumerate(STEPS)}


def bare(program: Path, data: Mapping[str, str], *, repeat: int) -> list[tuple[float, float]]:
    """Seconds of mount(2) and umount2 on a container's own directories, with names short enough for mount(2)."""
    with tempfile.TemporaryDirectory() as links:
        lowers = data["LowerDir"].split(":")
        for number, lower in enumerate(lowers):
            os.symlink(lower, Path(links, str(number)))
        for name, key in (("u", "UpperDir"), ("w", "WorkDir")):
            os.symlink(data[key], Path(links, name))
        options = f"lowerdir={':'.join(map(str, range(len(lowers))))},upperdir=u,workdir=w"
        lines = run(program, str(repeat), data["MergedDir"], options, cwd=Path(links)).splitlines()
    return [(int(mount) / 1e9, int(unmount) / 1e9) for mount, unmount in map(str.split, lines)]


def commits(place: Path, *, repeat: int) -> list[float]:
    """Seconds of durable transactions of two rows, as SQLite alone does them here."""
    with closing(sqlite3.connect(place / "commits.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE IF NOT EXISTS t (a TEXT, b TEXT)")
        times = []
        for number in range(repeat):
            start = time.perf_counter()
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO t VALUES (?, ?)", (f"a{number}", "b" * 100))
            database.execute("INSERT INTO t VALUES (?, ?)", (f"c{number}", "d" * 100))
            database.execute("COMMIT")
            times.append(time.perf_counter() - start)
    return times


def measure(place: Path, depths: list[int], *, rounds: int, repeat: int) -> list[Measured]:
    """All depths, interleaved: in each round some bare pairs, some lives, some transactions."""
    program = place / "mount_pair"
    run("gcc", "-O2", "-o", program, Path(__file__).with_name("mount_pair.c"))
    found: dict[tuple[str, str], list[float]] = {}

    def note(subject: str, depth: int, seconds: float) -> None:
        found.setdefault((subject, str(depth)), []).append(seconds)

    config = layerstore.Config(
        data_root=place / "store", exec_root=place / "exec", storage_driver="overlay2", storage_opts=()
    )
    with layerstore.open(config=config) as store:
        build(store, max(depths))
        for number in range(rounds + 1):
            for depth in depths:
                image = store.image(f"bench:{depth}")
                with store.create_container(image) as box:
                    pairs = bare(program, box.inspect()["GraphDriver"]["Data"], repeat=repeat)
                    box.remove()
                lives = [life(store, image) for _ in range(repeat)]
                transactions = commits(place, repeat=repeat)
                if not number:
                    continue
                for pair in pairs:
                    for subject, seconds in zip(PAIR, pair, strict=True):
                        note(subject, depth, seconds)
                    note("bare pair", depth, sum(pair))
                for one in lives:
                    for subject, seconds in one.items():
                        note(f"layerstore {subject}", depth, seconds)
                    note("layerstore, all four", depth, sum(one.values()))
                for seconds in transactions:
                    note(COMMIT, depth, seconds)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return [Measured(subject, depth, tuple(seconds)) for (subject, depth), seconds in found.items()]


def tables(measured: list[Measured], depths: list[int]) -> str:
    """Microseconds, least / median; and the ratios that are the aim."""
    found = {(one.subject, one.input): one for one in measured}
    order = [*PAIR, "bare pair", COMMIT, *(f"layerstore {step}" for step in STEPS), "layerstore, all four"]
    rows = [
        [
            subject,
            *(f"{found[subject, str(d)].least * 1e6:.0f} / {found[subject, str(d)].median * 1e6:.0f}" for d in depths),
        ]
        for subject in order
    ]

    def ratio(choose: Callable[[Measured], float]) -> list[str]:
        cells = []
        for depth in depths:
            least = choose(found["bare pair", str(depth)]) + choose(found[COMMIT, str(depth)])
            cells.append(f"{choose(found['layerstore, all four', str(depth)]) / least:.2f}")
        return cells

    rows.append(["all four : (bare pair + one transaction), least", *ratio(lambda one: one.least)])
    rows.append(["the same, medians", *ratio(lambda one: statistics.median(one.seconds))])
    return table(["us, least / median; lower layers:", *map(str, depths)], rows)


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.container", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--depths", default="1,5,20,100", help="numbers of lower layers (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=20, help="lives a round (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the loop image is made")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options, _ = parser.parse_known_args()
    depths = [int(depth) for depth in options.depths.split(",")]
    facts = machine()
    with filesystem(options.work, size=4 << 30) as place:
        measured = measure(place, depths, rounds=options.rounds, repeat=options.repeat)
    write_results(
        options.results / f"{facts['date']}-container",
        title="A container's life, in process",
        facts=facts,
        measured=measured,
        tables=tables(measured, depths),
        remarks=[
            f"{options.rounds} rounds of {options.repeat} after one that does not count, beside the bare pair.",
            f"The base layer has {FILES_BELOW} files; nothing is written into the containers.",
            "Unmounting a writable overlay makes the kernel sync the whole filesystem of its upper directory: most of"
            " umount2 is that.",
        ],
    )


if __name__ == "__main__":
    main()
