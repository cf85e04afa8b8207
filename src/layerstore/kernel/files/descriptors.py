"""Opening files and folders by name, or beneath a root that nothing leads out of, with the library's own errors."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import Damaged, KernelError
from layerstore.kernel._shim import lib

__all__ = [
    "FOLDER",
    "HANDLE",
    "NO_DESCRIPTORS",
    "open_beneath",
    "open_own",
    "open_path",
    "open_tree_root",
    "opened",
    "private",
    "read_own",
    "require_plain",
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


def open_own(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file that the store has made; what is made is for its owner alone, whatever the umask is.

    Raises `OSError`, and `Damaged` for what is no plain file: a pipe that nobody writes would be waited for.
    """
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a pipe to write to
            raise _no_plain(path) from None
        raise
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise _no_plain(path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def private(path: str, flags: int) -> int:
    """The same as an `opener` for `open`."""
    return open_own(path, flags)


def read_own(path: Path | str) -> bytes:
    """All of such a file. Raises the same."""
    with open(path, "rb", buffering=0, opener=private) as file:
        return file.read()


def require_plain(path: Path | str) -> None:
    """Raise `Damaged` if something lies there that is neither a plain file nor a folder. It is not opened."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # whoever opens it says why
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _no_plain(path)


def _no_plain(path: Path | str) -> Damaged:
    return Damaged(
        f"{os.fspath(path)} is no plain file, but a pipe, socket or device",
        remedy="Nothing of layerstore makes such in a store: see who did, and move it away.",
        path=path,
    )


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
