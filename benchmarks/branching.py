"""What `benchmarks.branch` does with layerstore: each driver, a thousand checkpoints in a row, 200 sandboxes."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import layerstore
from benchmarks.bench import Measured, filesystem, warm
from benchmarks.ways import Way, change, clocked, synced

ROW = 1000
SANDBOXES = 200
LOOKED_UP = 2000


class Ours(Way):
    """By the library, in one process; the container is not mounted while it is kept, as between two programs."""

    driver: ClassVar[str]
    mounted: ClassVar[bool] = False

    @contextmanager
    def ready(self) -> Iterator[None]:
        with opened(self.home, self.driver) as self.store:
            [self.image] = self.store.load(self.archive)
            yield

    def begin(self, files: int) -> None:
        self.box = self.store.create_container(self.image)
        with self.box.mount() as root:
            change(root, files)
        self.mount = self.box.mount() if self.mounted else None

    def checkpoint(self) -> float:
        start = time.perf_counter()
        self.box.checkpoint("kept")
        return clocked(start)

    def rollback(self, files: int) -> float:
        with self.box.mount() as root:
            change(root, files)
        synced(self.home)
        start = time.perf_counter()
        self.box.rollback("kept")
        return clocked(start)

    def fork(self) -> float:
        start = time.perf_counter()
        [self.other] = self.box.fork(1)
        return clocked(start)

    def end(self) -> None:
        if self.mount is not None:
            self.mount.unmount()
        self.other.remove()
        self.box.remove()


class Overlay2(Ours):
    title = "layerstore, overlay2 on ext4"
    driver = "overlay2"


class MountedOverlay2(Overlay2):
    title = "layerstore, overlay2 on ext4, while mounted"
    mounted = True


class Overlay2OnXfs(Overlay2):
    title = "layerstore, overlay2 on xfs"
    filesystem = "xfs"


class Btrfs(Ours):
    title = "layerstore, btrfs"
    filesystem = "btrfs"
    driver = "btrfs"


class Aufs(Ours):
    title = "layerstore, aufs on xfs"
    filesystem = "xfs"
    driver = "aufs"


class Vfs(Ours):
    title = "layerstore, vfs on xfs"
    filesystem = "xfs"
    driver = "vfs"


@contextmanager
def opened(home: Path, driver: str) -> Iterator[layerstore.Store]:
    """A store of its own."""
    config = layerstore.Config(
        data_root=home / "store", exec_root=home / "exec", storage_driver=driver, storage_opts=()
    )
    with layerstore.open(config=config) as store:
        yield store


def in_a_row(kind: type[Ours], folder: Path, archive: Path) -> tuple[list[Measured], list[str]]:
    """A thousand checkpoints of ten changed files each: seconds of each, of looks into the tree, of going back."""
    found: dict[tuple[str, str], list[float]] = {}
    with filesystem(folder, size=12 << 30, kind=kind.filesystem) as place:
        home = place / "home"
        home.mkdir()
        warm([archive])
        with opened(home, kind.driver) as store:
            [image] = store.load(archive)
            box = store.create_container(image)
            names = looked_up(box)
            for number in range(ROW):
                with box.mount() as root:
                    for place_of in range(10):
                        folder_of = root / "row" / str(number % 50)
                        folder_of.mkdir(parents=True, exist_ok=True)
                        (folder_of / f"{number}-{place_of}").write_text(f"{number}\n")
                    (root / "row/last").write_text(f"{number}\n")
                synced(place)
                start = time.perf_counter()
                box.checkpoint(f"step-{number}")
                found.setdefault((f"{kind.title}: checkpoint", band(number)), []).append(clocked(start))
                if number in (0, 9, 99, 499, ROW - 1):
                    found[f"{kind.title}: a look at {LOOKED_UP:,} names", f"after {number + 1}"] = look(box, names)
            dice, wrong = random.Random(1), []
            for number in sorted(dice.sample(range(ROW), 20), reverse=True):
                start = time.perf_counter()
                box.rollback(f"step-{number}")
                found.setdefault((f"{kind.title}: rollback", "any of them"), []).append(clocked(start))
                with box.mount() as root:
                    if (root / "row/last").read_text() != f"{number}\n":
                        wrong.append(f"step-{number}")
            if wrong:
                sys.exit(f"{kind.title}: these checkpoints are not what they were: {', '.join(wrong)}")
            box.remove()
    measured = [Measured(title, where, tuple(seconds)) for (title, where), seconds in found.items()]
    return measured, [f"{kind.title}: of {ROW:,} checkpoints, 20 were gone back to and found to be what they were."]


def band(number: int) -> str:
    """Which of a few groups of checkpoints one belongs to."""
    first = number // 200 * 200
    return f"{first + 1} to {first + 200}"


def looked_up(box: layerstore.Container) -> list[str]:
    """Names of files of the image, the same every time."""
    with box.mount() as root:
        names = [os.path.relpath(Path(where, name), root) for where, _, files in os.walk(root) for name in files]
    return random.Random(1).sample(sorted(names), LOOKED_UP)


def look(box: layerstore.Container, names: list[str]) -> list[float]:
    """Seconds of a stat of each name, in a mount that nobody has looked into before; five times."""
    taken = []
    for _ in range(5):
        with box.mount() as root:
            start = time.perf_counter()
            for name in names:
                os.lstat(root / name)
            taken.append(clocked(start))
    return taken


def ended(process: layerstore.Process) -> None:
    """Wait for a program, which has to succeed."""
    if (code := process.wait()) != 0:
        sys.exit(f"a program in a sandbox ended with {code}")


def sandboxes(kind: type[Ours], folder: Path, archive: Path) -> list[str]:
    """Two hundred containers of one, each runs a program that writes, is rolled back, and runs another; in words."""
    program = ["/bin/sh", "-c", "ls / >/tmp/list; for n in 1 2 3 4 5 6 7 8 9 10; do echo $n >/tmp/$n; done"]
    with filesystem(folder, size=12 << 30, kind=kind.filesystem) as place:
        home = place / "home"
        home.mkdir()
        with opened(home, kind.driver) as store:
            [image] = store.load(archive)
            first = store.create_container(image)
            ended(first.start(program))
            synced(place)
            free = os.statvfs(place)
            before = free.f_bfree * free.f_frsize
            start = time.perf_counter()
            boxes = first.fork(SANDBOXES)
            forked = clocked(start)

            def life(box: layerstore.Container) -> None:
                box.checkpoint("clean")
                ended(box.start(program))
                box.rollback("clean")
                ended(box.start(["/bin/true"]))

            start = time.perf_counter()
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(life, boxes))
            lived = clocked(start)
            synced(place)
            free = os.statvfs(place)
            used = before - free.f_bfree * free.f_frsize
            start = time.perf_counter()
            for box in boxes:
                box.remove()
            removed = clocked(start)
            first.remove()
            left = len(store.containers())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(home) in line]
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        processes = [line for line in listed.splitlines() if str(home) in line]
    return [
        f"{SANDBOXES} sandboxes on {kind.title.removeprefix('layerstore, ')}, programs without a runtime, four threads:"
        f" forked in {forked:.2f} s ({forked / SANDBOXES * 1e3:.1f} ms each); each kept, a program run that writes"
        f" 11 files, rolled back, another run: {lived:.2f} s ({lived / SANDBOXES * 1e3:.1f} ms each); removed in"
        f" {removed:.2f} s. Disk used by all of them: {used / 2**20:.1f} MiB; the most memory of the process:"
        f" {memory} MiB. Left: {left} containers, {len(mounts)} mounts, {len(processes)} processes."
    ]
