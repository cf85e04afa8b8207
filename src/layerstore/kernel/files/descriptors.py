"""Opening files and folders by name, or beneath a root that nothing leads out of, with the library's own errors."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from layerstore.errors import Damaged, KernelError
from layerstore.kernel._shim import lib

__all__ = [
    "FOLDER",
    "HANDLE",
    "NO_DESCRIPTORS",
    "file_of",
    "is_no_file",
    "open_beneath",
    "open_beneath_plainly",
    "open_own",
    "open_path",
    "open_tree_root",
    "opened",
    "plain_file_of",
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


def is_no_file(path: Path) -> bool:
    """Does something lie there that is no file, a link to one included? Asked once: others may remove and make it."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def opened(path: Path | str | bytes, flags: int) -> Iterator[int]:
    """`open_path`, closed afterwards."""
    fd = open_path(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def file_of(fd: int, mode: str = "rb") -> FileIO:
    """A descriptor as a file, which closes it. It is closed where that fails, too: `FileIO` leaves it open then."""
    try:
        return FileIO(fd, mode)
    except BaseException:
        os.close(fd)
        raise


def plain_file_of(fd: int) -> FileIO | None:
    """The same of a plain file. What it is else, it is closed: None."""
    try:
        is_plain = stat.S_ISREG(os.fstat(fd).st_mode)
    except BaseException:
        os.close(fd)
        raise
    if is_plain:
        return file_of(fd)
    os.close(fd)
    return None


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


def open_beneath_plainly(root: int, path: str | bytes, flags: int) -> int:
    """Open `path` beneath `root` through no symlink at all: one in the way is an ELOOP, as `..` out of it an EXDEV."""
    fd: int = lib.ls_open_beneath(root, os.fsencode(path), flags, 0)
    if fd < 0:
        raise KernelError("openat2", -fd, path=path)
    return fd
