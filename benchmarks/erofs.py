"""erofs against overlay2 and plain tar: a layer that is never unpacked, from its load to its end.

    python -m benchmarks.erofs [--rounds 3] [--filesystems ext4,xfs] [--files 60000]

The images are made for it: `many` has so many small files, `large` twenty of 32 MiB, both in one layer. A load ends
when all is on the disk (tar: `sync -f`), by a store that is open. Stacks of 1 and of 450 layers are looked into by
name. Rounds are interleaved, and the first does not count.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import layerstore
from benchmarks.bench import Measured, filesystem, machine, run, table, warm, write_results

DEEP, LOOKS = 450, 20_000
DRIVERS = ("erofs", "overlay2")
TAR = "tar -x, sync -f"


def layer_of(files: int, size: Callable[[random.Random], int], path: Path) -> None:
    """One layer's tar, with folders of 25 files each."""
    dice = random.Random(1)
    block = dice.randbytes(32 << 20)
    with tarfile.open(path, "w") as out:
        for number in range(files):
            if number % 25 == 0:
                folder = tarfile.TarInfo(f"d{number // 2500}/e{number // 25}")
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                out.addfile(folder)
            one = tarfile.TarInfo(f"d{number // 2500}/e{number // 25}/file{number}")
            one.size = size(dice)
            one.mtime = 1_600_000_000 + number
            out.addfile(one, io.BytesIO(block[: one.size]))


def archive_of(layers: list[Path], name: str, path: Path) -> None:
    """A docker-archive of plain layers."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{sha256(one.read_bytes()).hexdigest()}" for one in layers],
            },
        }
    ).encode()
    entry = {
        "Config": f"{sha256(config).hexdigest()}.json",
        "RepoTags": [f"{name}:latest"],
        "Layers": [one.name for one in layers],
    }
    with tarfile.open(path, "w") as out:
        for one in layers:
            out.add(one, one.name)
        for inside, data in ((entry["Config"], config), ("manifest.json", json.dumps([entry]).encode())):
            info = tarfile.TarInfo(str(inside))
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def inputs(folder: Path, files: int) -> dict[str, tuple[Path, list[Path]]]:
    """The images: archives, and the layers in them."""
    made: dict[str, tuple[Path, list[Path]]] = {}
    shapes: dict[str, tuple[int, Callable[[random.Random], int]]] = {
        "many": (files, lambda dice: int(min(dice.lognormvariate(7.7, 1.6), 1 << 20))),
        "large": (20, lambda _: 32 << 20),
    }
    for name, (count, size) in shapes.items():
        layer = folder / f"{name}.tar"
        layer_of(count, size, layer)
        archive_of([layer], name, folder / f"{name}.docker.tar")
        made[name] = (folder / f"{name}.docker.tar", [layer])
    deep = [folder / f"deep{number}.tar" for number in range(DEEP)]
    for number, layer in enumerate(deep):
        layer_of(2, lambda _: 100, layer)
        with tarfile.open(layer, "a") as out:
            one = tarfile.TarInfo(f"names/{number}")
            out.addfile(one, io.BytesIO())
    archive_of(deep, "deep", folder / "deep.docker.tar")
    archive_of(deep[-1:], "flat", folder / "flat.docker.tar")
    made["deep"] = (folder / "deep.docker.tar", deep)
    made["flat"] = (folder / "flat.docker.tar", deep[-1:])
    return made


@contextmanager
def timed(found: dict[tuple[str, str], list[float]], subject: str, name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    found.setdefault((subject, name), []).append(time.perf_counter() - begin)


def looked(root: Path) -> None:
    """Names that are there and names that are not, by turns, in folders that all layers have."""
    for number in range(LOOKS // 2):
        os.path.lexists(root / f"names/{DEEP - 1}")
        os.path.lexists(root / f"names/x{number}")


def by_tar(place: Path, images: dict[str, tuple[Path, list[Path]]], found: dict[tuple[str, str], list[float]]) -> None:
    for name in ("many", "large"):
        target = place / "unpacked"
        target.mkdir()
        with timed(found, f"load: {TAR}", name):
            run("tar", "-xf", images[name][1][0], "-C", target)
            run("sync", "-f", place)
        with timed(found, "removal: rm -rf, sync -f", name):
            run("rm", "-rf", target)
            run("sync", "-f", place)


def by_driver(
    driver: str, place: Path, images: dict[str, tuple[Path, list[Path]]], found: dict[tuple[str, str], list[float]]
) -> None:
    config = layerstore.Config(data_root=place / driver, exec_root=place / "exec", storage_driver=driver)
    with layerstore.open(config=config) as store:
        for name in ("many", "large", "deep", "flat"):
            run("sync", "-f", place)
            with timed(found, f"load: {driver}", name):
                [image] = store.load(images[name][0])
            if name in ("many", "large"):
                with timed(found, f"export: {driver}", name), open(os.devnull, "wb") as out:
                    store.save([image.id], out)
            life(store, driver, name, found)
            if name in ("deep", "flat"):
                with image.mount() as root, timed(found, f"{LOOKS:,} look-ups, image: {driver}", name):
                    looked(root)
                with store.create_container(image) as box, box.mount() as root:
                    looked(root)
                    with timed(found, f"{LOOKS:,} look-ups, container: {driver}", name):
                        looked(root)
                box.remove()
            with timed(found, f"removal: {driver}", name):
                image.remove(force=True)
            with timed(found, f"removal, until all is gone: {driver}", name):
                store.wait()
                run("sync", "-f", place)


def life(store: layerstore.Store, driver: str, name: str, found: dict[tuple[str, str], list[float]]) -> None:
    """Containers that begin and end, without anything written."""
    for _ in range(10):
        with timed(found, f"create + mount + unmount + remove: {driver}", name):
            box = store.create_container(f"{name}:latest")
            with box.mount():
                pass
            box.remove()


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(prog="benchmarks.erofs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--filesystems", default="ext4,xfs")
    parser.add_argument("--files", type=int, default=60_000)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the loop images are made")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    facts = machine()
    measured: list[Measured] = []
    parts: list[str] = []
    for kind in options.filesystems.split(","):
        found: dict[tuple[str, str], list[float]] = {}
        with filesystem(options.work, size=12 << 30, kind=kind) as place:
            images = inputs(place, options.files)
            for number in range(options.rounds + 1):
                if number == 1:
                    found.clear()
                warm([path for archive, layers in images.values() for path in (archive, *layers)])
                by_tar(place, images, found)
                for driver in random.Random(number).sample(DRIVERS, len(DRIVERS)):
                    by_driver(driver, place, images, found)
                print(f"{kind}: round {number} of {options.rounds}", file=sys.stderr, flush=True)
        one = [Measured(subject, f"{name}, {kind}", tuple(seconds)) for (subject, name), seconds in found.items()]
        measured += one
        parts.append(tables(one, kind))
    facts |= {"load average": f"{os.getloadavg()[2]:.1f} over the last 15 minutes"}
    write_results(
        options.results / f"{facts['date']}-erofs",
        title="A layer that is its tar",
        facts=facts,
        measured=measured,
        tables="\n\n".join(parts),
        remarks=[
            f"`many`: {options.files:,} files in one layer; `large`: 20 of 32 MiB; `deep`: {DEEP} layers; `flat`: one.",
            f"{options.rounds} rounds after one that does not count.",
            "Loads, exports, removals and lives in one process, by a store that is open; tar and rm by command line.",
        ],
    )


def tables(measured: list[Measured], kind: str) -> str:
    """Milliseconds, least / median."""
    names = [f"{name}, {kind}" for name in ("many", "large", "deep", "flat")]
    found = {(one.subject, one.input): one for one in measured}
    rows = []
    for subject in sorted({one.subject for one in measured}):
        cells = []
        for name in names:
            one = found.get((subject, name))
            cells.append(f"{one.least * 1e3:.1f} / {one.median * 1e3:.1f}" if one else "")
        rows.append([subject, *cells])
    return table([f"ms, least / median; {kind}", "many", "large", "deep", "flat"], rows)


if __name__ == "__main__":
    main()
