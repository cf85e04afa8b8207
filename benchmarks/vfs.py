"""vfs against cp: a child of a layer of 20,000 files, and finding ten changes in it.

    python -m benchmarks.vfs [--rounds 5] [--filesystems ext4,xfs]

Both copy the same tree on the same fresh filesystem, in turn; what was copied is removed and synced between, and not
timed. `cp` is measured alone, as `copy_tree` is; with `sync -f` it does what `create` does, which ends on the disk.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Measured, filesystem, machine, run, table, write_results
from layerstore.changes import compare_copied, compare_trees
from layerstore.driver import Layer, LayerKey, State
from layerstore.kernel.copying import copy_tree
from layerstore.kernel.files import remove_tree, syncfs
from layerstore_vfs import Settings, Vfs

FOLDERS, FILES = 800, 25
CP, CP_SYNC, COPY, CREATE = "cp -a --reflink=auto", "cp -a, sync -f", "copy_tree", "vfs create"
QUICK, FULL = "changes, by the list", "changes, comparing all"
PAIRS = ((COPY, CP), (CREATE, CP_SYNC), (QUICK, FULL))


def grow(root: Path) -> None:
    """20,000 files and symlinks of sizes as in an image: most are small, a few are large."""
    dice = random.Random(1)
    block = dice.randbytes(1 << 20)
    for number in range(FOLDERS):
        folder = root / f"{number % 40}" / f"{number}"
        folder.mkdir(parents=True)
        for name in range(FILES):
            if name == 0:
                (folder / "link").symlink_to("1")
                continue
            size = int(min(dice.lognormvariate(7.7, 1.6), 1 << 20))
            (folder / str(name)).write_bytes(block[:size])


def measure(place: Path, kind: str, *, rounds: int) -> list[Measured]:
    """All subjects in each round, in an order of its own."""
    home, staging = place / "vfs", place / "staging"
    home.mkdir()
    staging.mkdir()
    driver = Vfs(home, staging, Settings())
    made = Layer(LayerKey("0" * 32), State.STAGED)
    driver.create(made, [])
    grow(driver.tree(made))
    base = Layer(driver.seal(made, []))
    tree, copy = driver.tree(base), place / "copy"
    child = Layer(LayerKey("1" * 32), State.WRITABLE)

    def cp_sync() -> None:
        run("cp", "-a", "--reflink=auto", tree, copy)
        run("sync", "-f", place)

    deeds: dict[str, Callable[[], object]] = {
        CP: lambda: run("cp", "-a", "--reflink=auto", tree, copy),
        CP_SYNC: cp_sync,
        COPY: lambda: copy_tree(tree, copy),
        CREATE: lambda: driver.create(child, [base]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*deeds, QUICK, FULL)}
    for number in range(rounds + 1):
        for name in random.Random(number).sample(list(deeds), len(deeds)):
            syncfs(place)
            begin = time.perf_counter()
            deeds[name]()
            seconds[name].append(time.perf_counter() - begin)
            driver.remove(child)
            for left in (copy, staging / child.key):
                remove_tree(left)
        find_changes(tree, copy, seconds)
        print(f"{kind}: round {number} of {rounds}", file=sys.stderr, flush=True)
    return [Measured(name, kind, tuple(found[1:])) for name, found in seconds.items()]


def find_changes(tree: Path, copy: Path, seconds: dict[str, list[float]]) -> None:
    """Ten changes in a copy, both ways."""
    told = copy_tree(tree, copy).raw
    for number in range(10):
        (copy / f"{number}" / f"{number}" / "5").write_text("altered")
    new, old = (os.open(path, os.O_RDONLY) for path in (copy, tree))
    ways: tuple[tuple[str, Callable[[], object]], ...] = (
        (QUICK, lambda: compare_copied(new, old, told)),
        (FULL, lambda: compare_trees(new, old, content=True)),
    )
    answers = []
    for name, way in ways:
        begin = time.perf_counter()
        answers.append(way())
        seconds[name].append(time.perf_counter() - begin)
    os.close(new)
    os.close(old)
    if answers[0] != answers[1]:
        sys.exit("the two ways to find changes disagree")
    remove_tree(copy)


def tables(measured: list[Measured], kinds: list[str]) -> str:
    """Milliseconds, least / median; and the ratios that are the aim."""
    found = {(one.subject, one.input): one for one in measured}
    names = list(dict.fromkeys(one.subject for one in measured))
    rows = [
        [name, *(f"{found[name, kind].least * 1e3:.0f} / {found[name, kind].median * 1e3:.0f}" for kind in kinds)]
        for name in names
    ]
    for ours, theirs in PAIRS:
        cells = []
        for kind in kinds:
            one, other = found[ours, kind], found[theirs, kind]
            cells.append(f"{one.least / other.least:.2f} / {one.median / other.median:.2f}")
        rows.append([f"{ours} : {theirs}", *cells])
    return table(["ms, least / median", *kinds], rows)


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.vfs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filesystems", default="ext4,xfs", help="of ext4, xfs, btrfs (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the loop image is made")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    kinds = options.filesystems.split(",")
    facts = machine()
    facts["filesystem"] = f"{', '.join(kinds)}: fresh, loop images with direct I/O"
    measured: list[Measured] = []
    for kind in kinds:
        with filesystem(options.work, size=4 << 30, kind=kind) as place:
            measured += measure(place, kind, rounds=options.rounds)
    found = tables(measured, kinds)
    print(found)
    write_results(
        options.results / f"{facts['date']}-vfs",
        title="A child of a layer of 20,000 files: vfs and cp",
        facts=facts,
        measured=measured,
        tables=found,
        remarks=[f"{options.rounds} rounds after one that does not count, interleaved in an order of chance."],
    )


if __name__ == "__main__":
    main()
