"""What is measured, each in one function over the verbs that all who take part have; and what it means, in words.

A function gets the one whose turn it is and a `Turn` to note times and space with. Only what stands within `turn.time`
is timed. Everything else a container needs (being made before it is written to, being removed afterwards) is done by
all alike, outside. The words are for the report's reader, who has read nothing else.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import Factory, field

from layerstore.bench import images
from layerstore.bench.place import Place, drop_caches
from layerstore.bench.subjects import Contestant, Unavailable
from layerstore.kernel.files import syncfs
from layerstore.values import define, frozen

__all__ = ["COLD", "WARM", "WORKLOADS", "Inputs", "Turn", "Workload"]

WARM: Final = "warm"
COLD: Final = "cold"

_AT_ONCE: Final = 16
_BLOCK: Final = 1 << 20


@frozen
class Inputs:
    """What the workloads work on."""

    archive: Path
    """The main image, as a docker-archive with plain layers."""
    out: Path
    """A folder for what is written."""
    depths: tuple[int, ...]
    chmod: tuple[str, ...]
    """Files of the main image, to change the mode of."""
    modify: tuple[str, ...]
    delete: tuple[str, ...]
    folder: str
    """A folder of the main image, to make files in."""


@define
class Turn:
    """One subject's turn at one workload: a clock, and a notebook."""

    place: Place
    inputs: Inputs
    cold: bool
    seconds: dict[str, tuple[float, int]] = Factory(dict)
    """By variant: seconds, and how many equal things they are of."""
    space: dict[str, int] = Factory(dict)
    lacking: dict[str, str] = Factory(dict)
    """Variants that the subject cannot do, and why."""
    _deletions: Callable[[], None] = field(default=lambda: None, alias="deletions")

    def settle(self) -> None:
        """Let nothing of what was before be felt: all is on disk; and in a cold turn, nothing is in the caches."""
        self._deletions()
        syncfs(self.place.work)
        if self.cold:
            drop_caches()
        gc.collect()

    @contextmanager
    def time(self, variant: str = "", *, count: int = 1) -> Iterator[None]:
        """Time what stands within. `count`: it does so many equal things."""
        gc.disable()
        try:
            start = time.perf_counter()
            yield
            self.seconds[variant] = (time.perf_counter() - start, count)
        finally:
            gc.enable()

    def used(self) -> int:
        """Bytes in use on the filesystem now, and none of them on their way out."""
        self._deletions()
        return self.place.used()

    def took(self, variant: str, before: int) -> None:
        """Note how many more bytes are in use than before."""
        self.space[variant] = self.used() - before


Work = Callable[[Contestant, Turn], None]


@frozen
class Workload:
    """One thing to measure. `images`: those it needs. `variants`: what each of its figures is of."""

    name: str
    title: str
    topic: str
    """Which question it helps to answer: see `advice`."""
    run: Work
    what: str
    """What is done and timed."""
    meaning: str
    """What it tells."""
    by_hand: str
    """What the bare filesystem does instead."""
    images: tuple[str, ...]
    caches: tuple[str, ...] = (WARM,)
    variants: Mapping[str, str] = Factory(dict)
    """What a variant's name means, where it does not say so itself."""
    space: str = ""
    """What the space is of; nothing, if none is measured."""


# ---- images


def _load(subject: Contestant, turn: Turn) -> None:
    subject.remove()
    before = turn.used()
    turn.settle()
    with turn.time():
        subject.load(turn.inputs.archive)
    turn.took("", before)


def _save(subject: Contestant, turn: Turn) -> None:
    target = turn.inputs.out / "saved.tar"
    try:
        turn.settle()
        with turn.time():
            subject.save(target)
    finally:
        target.unlink(missing_ok=True)


def _remove(subject: Contestant, turn: Turn) -> None:
    subject.remove()
    before = turn.used()
    subject.load(turn.inputs.archive)
    turn.settle()
    start = time.perf_counter()
    with turn.time("returns"):
        subject.remove()
    subject.drain()
    turn.seconds["deleted"] = (time.perf_counter() - start, 1)
    turn.took("deleted", before)


# ---- containers


def _container(subject: Contestant, turn: Turn) -> None:
    before = turn.used()
    turn.settle()
    with turn.time("start"):
        box = subject.start("main")
    with box:
        turn.took("start", before)
        with turn.time("end"):
            box.stop()


def _at_once(subject: Contestant, turn: Turn) -> None:
    before = turn.used()
    turn.settle()
    meeting = threading.Barrier(_AT_ONCE + 1)
    failures: list[BaseException] = []

    def life() -> None:
        try:
            with subject.start("small") as box:
                for number in range(10):
                    (box.root / f"written-{number}").write_bytes(b"x" * 4096)
                meeting.wait()
                meeting.wait()
        except threading.BrokenBarrierError:
            pass  # another one failed, and says why
        except BaseException as error:
            failures.append(error)
            meeting.abort()

    seconds = 0.0
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bench") as pool:
        try:
            start = time.perf_counter()
            for _ in range(_AT_ONCE):
                pool.submit(life)
            with suppress(threading.BrokenBarrierError):
                meeting.wait()
                seconds += time.perf_counter() - start
                turn.took("", before)
                start = time.perf_counter()
                meeting.wait()
        except BaseException:
            meeting.abort()
            raise
    seconds += time.perf_counter() - start
    if failures:
        raise failures[0]
    turn.seconds[""] = (seconds, 1)


# ---- writing


def _write(subject: Contestant, turn: Turn) -> None:
    with subject.start("big") as box:
        turn.settle()
        with turn.time("small", count=len(images.SMALL_FILES)):
            for name in images.SMALL_FILES:
                _touch(box.root / name)
    before = turn.used()
    with subject.start("big") as box:
        turn.settle()
        with turn.time("large"):
            _touch(box.root / images.LARGE_FILE)
        turn.took("large", before)


def _touch(path: Path) -> None:
    """Write one byte into a file, in the middle of what it has."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(file, b"!", 1000)
    finally:
        os.close(file)


def _chmod(subject: Contestant, turn: Turn) -> None:
    before = turn.used()
    with subject.start("main") as box:
        turn.settle()
        root = os.open(box.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with turn.time(count=len(turn.inputs.chmod)):
                for name in turn.inputs.chmod:
                    os.chmod(name, 0o640, dir_fd=root)
        finally:
            os.close(root)
        turn.took("", before)


def _changes(subject: Contestant, turn: Turn) -> None:
    with subject.start("main") as box:
        _edit(box.root, turn.inputs)
        box.pause()
        turn.settle()
        with turn.time("changes"):
            box.changes()
        turn.settle()
        before = turn.used()
        with turn.time("commit"):
            box.commit()
        turn.took("commit", before)


def _edit(root: Path, inputs: Inputs) -> None:
    """Ten edits: files written to, files deleted, files made."""
    for name in inputs.modify:
        with (root / name).open("ab") as file:
            file.write(b"edited\n")
    for name in inputs.delete:
        (root / name).unlink()
    for number in range(3):
        (root / inputs.folder / f"made-{number}").write_bytes(b"made\n" * 100)


# ---- reading


def _lookups(subject: Contestant, turn: Turn) -> None:
    names = images.bottom_files()
    for depth in turn.inputs.depths:
        variant = f"{depth} layer{'s' if depth > 1 else ''}"
        try:
            subject.require(f"deep-{depth}")
        except Unavailable as reason:
            turn.lacking[variant] = str(reason)
            continue
        with subject.view(f"deep-{depth}") as box:
            turn.settle()
            paths = [os.fspath(box.root / name) for name in names]
            with turn.time(variant, count=len(paths)):
                for path in paths:
                    os.stat(path)
                    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _readdir(subject: Contestant, turn: Turn) -> None:
    with subject.view("wide") as box:
        turn.settle()
        with turn.time():
            found = len(os.listdir(box.root / "names"))
    assert found, "the folder has names"


def _read(subject: Contestant, turn: Turn) -> None:
    """The large file in one container and then in a second one."""
    buffer = bytearray(_BLOCK)
    with subject.view("big") as box:
        turn.settle()
        with turn.time("first container"):
            _read_all(box.root / images.LARGE_FILE, buffer)
        with subject.view("big") as second, turn.time("second container"):
            _read_all(second.root / images.LARGE_FILE, buffer)


def _read_all(path: Path, buffer: bytearray) -> None:
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


_BOTH: Final = (WARM, COLD)

WORKLOADS: Final[Sequence[Workload]] = (
    Workload(
        name="load",
        title="Load an image",
        topic="images",
        run=_load,
        what="`load` of the main image into an empty store, until it is safely on disk.",
        meaning="How long a new image takes to arrive. A driver that keeps each layer as a whole tree writes "
        "the lower layers again with every layer above them, unless the filesystem can share blocks.",
        by_hand="`tar -x` of each layer into one folder, then one sync. No checksums are computed, no layers "
        "are kept apart.",
        images=("main",),
        caches=_BOTH,
        space="what the image takes on disk",
    ),
    Workload(
        name="container",
        title="Start and end a container",
        topic="containers",
        run=_container,
        what="A container on the main image: start is create and mount, end is unmount and remove. Nothing "
        "is written in it.",
        meaning="What each container costs before it does anything: overlay2 and btrfs make next to nothing, "
        "a driver that copies pays for every file of the image.",
        by_hand="`cp -a --reflink=auto` of the image's tree, and `rm -rf`.",
        images=("main",),
        caches=_BOTH,
        variants={"start": "create + mount", "end": "unmount + remove"},
        space="what a started, untouched container takes",
    ),
    Workload(
        name="at-once",
        title="16 containers at once",
        topic="containers",
        run=_at_once,
        what=f"{_AT_ONCE} threads at the same time: create, mount, write ten files of 4 KiB, unmount, "
        "remove. The time is that of all together. The image is a small one of a single layer.",
        meaning="How well the driver, and the store's database, stand many users at once.",
        by_hand="The same with 16 times `cp -a --reflink=auto` and `rm -rf`.",
        images=("small",),
        space="what all 16 take while they run",
    ),
    Workload(
        name="write",
        title="First write to a file of the image",
        topic="writing",
        run=_write,
        what="One byte is written into a file that comes from the image, in a new container: into each of "
        "20 files of 4 KiB (the time is of one), and into one large file.",
        meaning="The price of the first write. overlay2 copies the whole file first; on a filesystem that can "
        "share blocks it shares them instead. btrfs copies only the block; vfs has paid when the "
        "container was made.",
        by_hand="The same write into a copy made by `cp -a --reflink=auto`.",
        images=("big",),
        variants={"small": "into a file of 4 KiB", "large": "into the large file"},
        space="what the container takes after the one byte in the large file, being created included",
    ),
    Workload(
        name="chmod",
        title="Change the mode of many files",
        topic="writing",
        run=_chmod,
        what="`chmod` of up to 2,000 files of the main image in a new container. The time is of one file.",
        meaning="What a `chown -R` in a Dockerfile costs. overlay2 copies each file to change its mode, and "
        "syncs each copy, unless its option metacopy is on.",
        by_hand="The same calls in a copy made by `cp -a --reflink=auto`: the calls of `chmod -R`.",
        images=("main",),
        space="what the container takes afterwards, being created included",
    ),
    Workload(
        name="commit",
        title="Find and commit 10 changes",
        topic="building",
        run=_changes,
        what="In a container on the main image 5 files are appended to, 2 deleted and 3 made. Then "
        "`changes` is timed, and `commit`, which makes an image of them.",
        meaning="What each step of building an image costs. overlay2 and btrfs look only at what changed; a "
        "driver that compares two trees looks at every file of the image.",
        by_hand="`find` over both trees and a comparison of the two lists (changes); the same, and `tar -c` "
        "of what differs, and a sync of that tar (commit).",
        images=("main",),
        caches=_BOTH,
        variants={"changes": "find the changes", "commit": "make a layer of them"},
        space="what the new layer takes",
    ),
    Workload(
        name="lookups",
        title="Look up files below many layers",
        topic="reading",
        run=_lookups,
        what="100 files of the bottom layer are opened and asked for their facts, each for the first time "
        "in a new container, on images of growing depth. Every layer has the same folder. The time is "
        "of one file.",
        meaning="Whether deep images are slow to use. A stack that is put together at run time searches every "
        "layer at the first look at a name; the second look is as fast everywhere.",
        by_hand="The same files in a plain folder.",
        images=("deep",),
        caches=_BOTH,
    ),
    Workload(
        name="readdir",
        title="List a large folder",
        topic="reading",
        run=_readdir,
        what="All names of one folder to which four layers contribute (10,000 at full scale), read once in "
        "a new container.",
        meaning="overlay2 and aufs read the folder of each layer and merge the names in memory. With other "
        "drivers it is one folder.",
        by_hand="The same names in a plain folder.",
        images=("wide",),
        caches=_BOTH,
    ),
    Workload(
        name="read",
        title="Read a large file",
        topic="reading",
        run=_read,
        what="The large file is read from begin to end in blocks of 1 MiB: in one container, and then in a "
        "second container on the same image.",
        meaning="Once open, files are as fast everywhere; the second container tells whether containers share "
        "the memory that caches files. On overlay2 they do; where each container has a file of its "
        "own, each reads it from disk again.",
        by_hand="The same plain file, read twice.",
        images=("big",),
        caches=_BOTH,
    ),
    Workload(
        name="save",
        title="Save an image",
        topic="images",
        run=_save,
        what="`save` of the main image into a docker-archive on the same disk, each layer bit for bit and "
        "its checksum verified. Nothing is synced.",
        meaning="How long it takes to get an image out again.",
        by_hand="`tar -c` of the image's tree: one layer, and no checksums.",
        images=("main",),
        caches=_BOTH,
    ),
    Workload(
        name="remove",
        title="Remove an image",
        topic="images",
        run=_remove,
        what="The main image is removed. `returns` is when the caller can go on; `deleted` is when the "
        "store has deleted all files, which it does in the background.",
        meaning="The caller waits only for the first. The space is what was not yet free again after the "
        "second: btrfs frees subvolumes by itself, up to half a minute later, and that is not waited "
        "for.",
        by_hand="`rm -rf` of the extracted tree.",
        images=("main",),
        variants={"returns": "until the call returns", "deleted": "until the files are gone"},
        space="what was not yet free again, against before the load",
    ),
)
