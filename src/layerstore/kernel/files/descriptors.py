"""Opening files and folders by name, or beneath a root that nothing leads out of, with the library's own errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib

__all__ = [
    "FOLDER",
    "HANDLE",
    "NO_DESCRIPTORS",
    "open_beneath",
    "open_path",
    "open_tree_root",
    "opened",
    "private",
    "write_private",
]

FOLDER = os.O_RDONLY | os.O_DIRECTORY
"""To read a folder, or to change its attributes."""

HANDLE = os.O_PATH | os.O_DIRECTORY
"""To name a folder, and nothing else."""

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
"""What a call fails with for want of descriptors."""


def open_path(path: Path | str | bytes, flags: int) -> int:
    """A descriptor, not inherited by other programs."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", error.errno or errno.EIO, path=path) from None


@contextmanager
def opened(path: Path | str | bytes, flags: int) -> Iterator[int]:
    """`open_path`, closed afterwards."""
    fd = open_path(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def private(path: str, flags: int) -> int:
    """An `opener` for `open`: what it makes is for its owner alone, whatever the umask is."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def write_private(path: Path | str, data: bytes | str) -> None:
    """Write such a file. Raises `OSError`."""
    with open(path, "wb", opener=private) as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def open_tree_root(path: Path) -> int:
    """A descriptor to open files beneath with `open_beneath`; it can do nothing else."""
    return open_path(path, HANDLE)


def open_beneath(root: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as if `root` were the root directory: no `..`, symlink or link of /proc leads out of it."""
    fd: int = lib.ls_open_in_root(root, os.fsencode(path), flags, mode)
    if fd == -errno.ENOSYS:
        raise KernelError("openat2", errno.ENOSYS, remedy="This needs Linux 5.6 or later.")
    if fd < 0:
        raise KernelError("openat2", -fd, path=path)
    return fd
