"""The driver btrfs: what changes cost, and what a layer's life costs beside the bare ioctls in C.

    python -m benchmarks.btrfs [--files 5000,20000,60000] [--rounds 9] [--folder /var/tmp]

On a fresh btrfs in a loop image. Everything is interleaved, round by round; the first round does not count. The tree
comparison is the one of the interface's base class, on the same subvolumes, and so is one that trusts size and time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.bench import Measured, machine, run, table, write_results
from layerstore.changes import compare_trees
from layerstore.driver import Layer, LayerKey, State, StorageDriver, look
from layerstore.kernel.files import syncfs
from layerstore.kernel.mounts import mounting
from layerstore.testing.filesystems import Filesystems, enter_private_namespace
from layerstore_btrfs import Btrfs, Settings

CHANGED = 10
BY_GENERATION, BY_COMPARISON, BY_ATTRIBUTES = "changes", "base class", "comparison without bytes"
DONE, BARE = "driver", "bare ioctls"
STEPS = ("create", "seal", "remove", "remove the sealed one")


def new(state: State) -> Layer:
    """A layer that is still to be made."""
    return Layer(LayerKey(os.urandom(16).hex()), state)


def image(driver: Btrfs, files: int) -> Layer:
    """A committed layer of so many small files, a hundred in a folder."""
    layer = new(State.STAGED)
    driver.create(layer, ())
    tree = driver.tree(layer)
    for number in range(files):
        if number % 100 == 0:
            (tree / f"{number // 100}").mkdir()
        (tree / f"{number // 100}/{number}").write_bytes(b"%d\n" % number * 300)
    syncfs(driver.home)
    return Layer(driver.seal(layer, ()))


def changed(driver: Btrfs, parents: Sequence[Layer]) -> Layer:
    """A container in which ten files were changed."""
    layer = new(State.WRITABLE)
    driver.create(layer, parents)
    driver.prepare(layer, parents, read_only=False)
    place = driver.mountpoint(layer)
    mounting.attach(driver.mounts(layer, parents, read_only=False), place)
    try:
        for folder in range(CHANGED):
            with open(place / f"{folder * 3}/{folder * 300}", "ab") as file:
                file.write(b"changed\n")
    finally:
        mounting.unmount(place)
    syncfs(driver.home)
    return layer


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def measure_changes(driver: Btrfs, files: int, rounds: int) -> list[Measured]:
    parents = (image(driver, files),)
    layer = changed(driver, parents)

    def attributes() -> object:
        with (
            look(driver, layer, parents) as mine,
            look(driver, parents[0], ()) as theirs,
        ):
            return compare_trees(mine, theirs)

    acts: dict[str, Callable[[], object]] = {
        BY_GENERATION: lambda: driver.changes(layer, parents),
        BY_COMPARISON: lambda: StorageDriver.changes(driver, layer, parents),
        BY_ATTRIBUTES: attributes,
    }
    assert driver.changes(layer, parents) == StorageDriver.changes(driver, layer, parents)
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        for name, act in acts.items():
            seconds[name].append(timed(act))
    return [Measured(name, f"{files} files", tuple(times[1:])) for name, times in seconds.items()]


def measure_life(driver: Btrfs, place: Path, files: int, rounds: int) -> list[Measured]:
    program = place / "subvolumes"
    run("gcc", "-O2", "-o", program, Path(__file__).with_name("subvolumes.c"))
    parents = (image(driver, files),)
    home = driver.tree(parents[0]).parent
    seconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def own() -> list[float]:
        layer = new(State.WRITABLE)
        times = [time.perf_counter()]
        driver.create(layer, parents)
        times.append(time.perf_counter())
        sealed = Layer(driver.seal(layer, parents))
        times.append(time.perf_counter())
        for one in (layer, sealed):
            driver.remove(one)
            times.append(time.perf_counter())
        return [after - before for before, after in pairwise(times)]

    def bare() -> list[float]:
        return [int(number) / 1e9 for number in run(program, driver.tree(parents[0]), home).split()]

    subjects = {DONE: own, BARE: bare}
    for number in range(rounds + 1):
        # Each comes first every other time: what goes before leaves work to the filesystem.
        for subject in sorted(subjects, reverse=bool(number % 2)):
            syncfs(place)
            figures = subjects[subject]()
            for step, figure in zip((*STEPS, "all"), (*figures, sum(figures)), strict=True):
                seconds[subject, step].append(figure)
    return [Measured(subject, step, tuple(times[1:])) for (subject, step), times in seconds.items()]


def rows(measured: Sequence[Measured], subjects: Sequence[str], *, base: str) -> list[list[str]]:
    """A row for each input: least/median of each subject in ms, and how many times the least of `base` it takes."""
    lines = []
    for name in dict.fromkeys(one.input for one in measured):
        found = {one.subject: one for one in measured if one.input == name}
        cells = [f"{found[subject].least * 1e3:.3f} / {found[subject].median * 1e3:.3f}" for subject in subjects]
        ratios = [f"{found[subject].least / found[base].least:.2f}" for subject in subjects if subject != base]
        lines.append([name, *cells, *ratios])
    return lines


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.btrfs")
    parser.add_argument("--files", default="5000,20000,60000")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the loop image lies meanwhile")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    chosen = parser.parse_args(arguments)
    enter_private_namespace()
    tempfile.tempdir = str(chosen.folder)
    filesystems = Filesystems()
    try:
        place = filesystems.make("btrfs", size=6 << 30)
        home, staging = place / "btrfs", place / "staging"
        home.mkdir()
        staging.mkdir()
        driver = Btrfs(home, staging, Settings())
        counts = [int(number) for number in chosen.files.split(",")]
        changes = [one for files in counts for one in measure_changes(driver, files, chosen.rounds)]
        life = measure_life(driver, place, counts[-1], chosen.rounds * 3)
    finally:
        filesystems.close()
    subjects = (BY_GENERATION, BY_COMPARISON, BY_ATTRIBUTES)
    text = table(
        ["changes of 10 files among", *subjects, *(f"{name} : {BY_GENERATION}" for name in subjects[1:])],
        rows(changes, subjects, base=BY_GENERATION),
    )
    text += "\n\n" + table(
        [f"a layer on {counts[-1]} files", DONE, BARE, f"{DONE} : {BARE}"], rows(life, (DONE, BARE), base=BARE)
    )
    facts = {**machine(), "filesystem": "btrfs, fresh, loop image"}
    print(text)
    write_results(
        chosen.results / f"{facts['date']}-btrfs",
        title="The driver btrfs",
        facts=facts,
        measured=[*changes, *life],
        tables=text,
        remarks=["Milliseconds, least / median; ratios are of the least.", f"{chosen.rounds} rounds, interleaved."],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
