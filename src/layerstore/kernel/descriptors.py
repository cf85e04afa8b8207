"""Opening files and folders by name, with the library's own error when that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import KernelError

__all__ = ["FOLDER", "HANDLE", "MORE_DESCRIPTORS", "NO_DESCRIPTORS", "open_path", "opened"]

FOLDER = os.O_RDONLY | os.O_DIRECTORY
"""To read a folder, or to change its attributes."""

HANDLE = os.O_PATH | os.O_DIRECTORY
"""To name a folder, and nothing else."""

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
MORE_DESCRIPTORS = "Too many files are open: raise the limit (`ulimit -n`)."


def open_path(path: Path | str | bytes, flags: int) -> int:
    """A descriptor, not inherited by other programs."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        remedy = MORE_DESCRIPTORS if error.errno in NO_DESCRIPTORS else None
        raise KernelError("open", error.errno or errno.EIO, path=path, remedy=remedy) from None


@contextmanager
def opened(path: Path | str | bytes, flags: int) -> Iterator[int]:
    """`open_path`, closed afterwards."""
    fd = open_path(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)
