"""Does a holder of lazy layers live? It or its fetcher has a lock. See `holder`, imported where one is needed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from layerstore.errors import KernelError, named

__all__ = ["FOLDER", "LOCK", "free_lock", "is_orphaned"]

FOLDER: Final = ".lazy"
"""In the driver's home."""
LOCK: Final = "lock"


def is_orphaned(home: Path) -> bool:
    """Were a holder and its fetcher killed, so that somebody may have read zeros?"""
    place = home / FOLDER
    try:
        if not os.stat(place / LOCK).st_size:
            return False
    except OSError:
        return False
    lock = free_lock(place)
    if lock is None:
        return False
    os.close(lock)
    return True


def free_lock(place: Path) -> int | None:
    """The file of the lock, if nobody has that; it is not taken. None: somebody has."""
    with named("open", place / LOCK):
        fd = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError as error:
        os.close(fd)
        raise KernelError("flock", error.errno or errno.EIO, path=place / LOCK) from None
    return fd
