"""Filesystems for tests: ext4, xfs and btrfs in loop images, and tmpfs, each made when the first test asks for it.

A test session that calls `enter_private_namespace` lives in a mount namespace of its own: nothing that it mounts is
seen outside, and should it be killed, the kernel unmounts everything and lets go of the loop devices and of their
images. Without that, `close` has to be reached.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

FILESYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs")

_CLONE_NEWNS = 0x00020000
_MS_REC = 0x4000
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2

_MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
# The least that each mkfs accepts without asking for another layout.
_LEAST = {"ext4": 8 << 20, "xfs": 300 << 20, "btrfs": 128 << 20, "tmpfs": 1 << 20}

_PATIENCE = 5.0
"""Seconds in which whoever still holds a filesystem at the end may let go of it."""

_SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""mkfs is where only root's PATH leads."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter_private_namespace() -> None:
    """Put this process, and all that it starts, into a mount namespace of its own."""
    if _libc.unshare(_CLONE_NEWNS) != 0 or _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no mount namespace for the tests: {os.strerror(number)}")


def mountpoints() -> list[str]:
    """Where something is mounted in this namespace, in the order of mounting."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[4]) for line in table]


def unmount(mountpoint: str | Path) -> None:
    """Unmount; from what is busy, at least the name."""
    name = os.fsencode(mountpoint)
    if _libc.umount2(name, 0) != 0:
        _libc.umount2(name, _MNT_DETACH)


def loop_devices(below: Path) -> list[str]:
    """Loop devices whose image lies, or lay, below a folder."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            image = backing.read_text().rstrip("\n").removesuffix(" (deleted)")
            if Path(image).is_relative_to(below):
                found.append(f"/dev/{backing.parent.parent.name}")
    return found


def holders(devices: Collection[int]) -> list[str]:
    """What processes have open on these devices, or work in: `/file in process 123 (sleep)`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            name = (process / "comm").read_text().rstrip("\n")
            for place in (process / "cwd", process / "root", *(process / "fd").iterdir()):
                with suppress(OSError):
                    if place.stat().st_dev in devices:
                        found.append(f"{place.readlink()} in process {process.name} ({name})")
    return found


def refusal(kind: str) -> str | None:
    """Why there can be no filesystem of this kind here; None if there can be one."""
    tool = _MKFS.get(kind, ["mount"])[0]
    return None if shutil.which(tool, path=_SEARCH) else f"needs {tool}, which is not installed"


def format_image(kind: str, image: Path, size: int, mkfs: tuple[str, ...] = ()) -> None:
    """Make a filesystem in a file. `mkfs` are more arguments for mkfs."""
    with image.open("wb") as file:
        file.truncate(size)
    tool, *arguments = _MKFS[kind]
    command = [shutil.which(tool, path=_SEARCH) or tool, *arguments, *mkfs, str(image)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def source_of(mountpoint: Path) -> str:
    """The device that is mounted there."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        found = [line.split(" - ")[1].split()[1] for line in table if line.split(" ")[4] == str(mountpoint)]
    return found[-1]


class Filesystems:
    """The filesystems of one test session. `close` unmounts each."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="layerstore-test-"))
        self._shared: dict[str, Path] = {}
        self._mounted: list[Path] = []

    def folder_on(self, kind: str) -> Path:
        """An empty folder on the session's one filesystem of this kind."""
        path = Path(tempfile.mkdtemp(prefix="t-", dir=self.shared(kind)))
        path.chmod(0o755)
        return path

    def shared(self, kind: str) -> Path:
        """The root of the session's one filesystem of this kind. Roomy: 8 GiB, if anybody should fill it."""
        if kind not in self._shared:
            self._shared[kind] = self.make(kind, size=8 << 30)
        return self._shared[kind]

    def make(self, kind: str, *, size: int, mkfs: tuple[str, ...] = (), options: str = "") -> Path:
        """A filesystem of its own. `mkfs` are more arguments for mkfs, `options` more for mount."""
        assert kind in FILESYSTEMS, f"no such filesystem for tests: {kind}"
        assert size >= _LEAST[kind], f"{kind} needs at least {_LEAST[kind]} bytes"
        mountpoint = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.folder))
        if kind == "tmpfs":
            source, choices = "tmpfs", [f"size={size}", "mode=0755"]
        else:
            image = mountpoint.with_name(mountpoint.name + ".img")
            format_image(kind, image, size, mkfs)
            source, choices = str(image), ["loop"]
        if options:
            choices.append(options)
        subprocess.run(["mount", "-t", kind, "-o", ",".join(choices), source, str(mountpoint)], check=True)
        if kind != "tmpfs":
            # The loop device keeps the image for as long as it is mounted, and not a moment longer.
            image.unlink()
        self._mounted.append(mountpoint)
        return mountpoint

    def drop(self, mountpoint: Path) -> None:
        """Give back one that `make` made."""
        self._mounted.remove(mountpoint)
        unmount(mountpoint)
        mountpoint.rmdir()

    @property
    def mounted(self) -> frozenset[str]:
        """What is mounted on purpose."""
        return frozenset(map(str, self._mounted))

    def close(self) -> list[str]:
        """Unmount all, and return what could not be taken away: mountpoints, loop devices, and what is open there.

        A process that ends this moment may have had a mount in its own namespace: the device goes with it.
        """
        devices = set()
        for mountpoint in reversed(self._mounted.copy()):
            with suppress(OSError):  # one that a test has broken
                devices.add(mountpoint.stat().st_dev)
            self.drop(mountpoint)
        deadline = time.monotonic() + _PATIENCE
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            return [*left, *holders(devices)]
        shutil.rmtree(self.folder)
        return []

    def _left(self) -> list[str]:
        return [*(name for name in mountpoints() if Path(name).is_relative_to(self.folder)), *loop_devices(self.folder)]
