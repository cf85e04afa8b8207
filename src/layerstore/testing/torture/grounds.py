"""Where a store is tried: a filesystem in a file, with the world on it, which is cloned for each point of a walk.

Each point is a process with a mount namespace of its own, so that whatever an operation leaves is seen, and goes.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
import subprocess
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from layerstore.testing.filesystems import enter_private_namespace, format_image, mountpoints, unmount
from layerstore.testing.power import CUTTABLE, LONG, copy_image
from layerstore.testing.torture.operations import Place, build_world, give
from layerstore.values import frozen

__all__ = ["Ground", "Subject", "apart", "rebooted"]

T = TypeVar("T")

_BTRFS_FORGET = 0x50009405
"""linux/btrfs.h: BTRFS_IOC_FORGET_DEV."""

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@frozen
class Subject:
    """A driver, its storage-opts, and the filesystem that its store lies on: ext4, xfs or btrfs."""

    driver: str
    filesystem: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.driver, *self.options, "on", self.filesystem))


class Ground:
    """The world of one subject, in an image in `memory`, a folder in `folder`, where a tmpfs is best mounted.

    The image is mounted beside `memory`, never in it. Of a loop device over a file of a filesystem that it is mounted
    in nothing is ever freed, if somebody removes the folder of that in another mount namespace: each keeps the other.
    """

    def __init__(self, folder: Path, subject: Subject) -> None:
        self.subject = subject
        self.scratch = folder / "memory"
        self.world = self.scratch / "world"
        self.found = self.scratch / "found"
        self.mountpoint = folder / "mnt"
        self._given = self.scratch / "given"
        self._exec = self.scratch / "exec"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.mountpoint.mkdir()
        self._given.mkdir()
        give(self._given)
        format_image(subject.filesystem, self.world, CUTTABLE[subject.filesystem])
        apart(self._build)

    def _build(self) -> None:
        with self.plugged(self.world) as place:
            build_world(place)

    def clone(self) -> Path:
        """The world anew."""
        return self.copied(self.world)

    def copied(self, image: Path) -> Path:
        """A copy of an image, for one point: a new file, for a loop device may still let go of the last one."""
        self.found.unlink(missing_ok=True)
        copy_image(image, self.found)
        return self.found

    @contextmanager
    def plugged(self, device: Path) -> Iterator[Place]:
        """The store on a filesystem in a file; in a process of its own (`apart`)."""
        kind = self.subject.filesystem
        if kind == "btrfs":  # or the kernel takes the clone for an older state of the same disk, which it is
            with open("/dev/btrfs-control", "rb") as control:
                fcntl.ioctl(control, _BTRFS_FORGET, bytearray(4096))
        options = ",".join(("loop", *LONG.get(kind, ())))
        subprocess.run(["mount", "-t", kind, "-o", options, device, self.mountpoint], check=True)
        shutil.rmtree(self._exec, ignore_errors=True)
        self._exec.mkdir()
        root = self.mountpoint
        try:
            yield Place(
                root / "store", self._exec, self._given, root / "out", self.subject.driver, self.subject.options
            )
        finally:
            for name in reversed(mountpoints()):
                if Path(name).is_relative_to(self.mountpoint):
                    unmount(name)


def apart(work: Callable[[], T]) -> T:
    """Do it in a process with a mount namespace of its own, and return what it returns.

    An exception in it is an AssertionError here, with its trace.
    """
    answer = os.memfd_create("answer")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads and fork: this child needs none of them
            process = os.fork()
        if process == 0:
            _be_apart(answer, work)
        os.waitpid(process, 0)
        size = os.fstat(answer).st_size
        assert size, "the process of a point died"
        trace, result = pickle.loads(os.pread(answer, size, 0))
        assert trace is None, trace
        found: T = result
        return found
    finally:
        os.close(answer)


def _be_apart(answer: int, work: Callable[[], object]) -> None:
    said: tuple[str | None, object]
    try:
        try:
            enter_private_namespace()
            said = (None, work())
        except AssertionError as error:
            said = (str(error) or "".join(traceback.format_exception(error)), None)
        except BaseException as error:
            said = ("".join(traceback.format_exception(error)), None)
        os.write(answer, pickle.dumps(said))
    finally:
        os._exit(0)


@contextmanager
def rebooted(folder: Path) -> Iterator[None]:
    """As after a boot: the kernel's name for it is another. In a process of its own."""
    name = folder / "boot_id"
    name.write_text(f"{uuid.uuid4()}\n")
    subprocess.run(["mount", "--bind", name, _BOOT_ID], check=True)
    try:
        yield
    finally:
        unmount(_BOOT_ID)
