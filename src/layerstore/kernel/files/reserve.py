"""Room that is set aside on a filesystem, so that a full one can still be listed and emptied.

Freeing room takes a little of it: a page of the database's log, a folder to move things into. The reserve is real:
blocks that are allocated, and files, each an inode and on btrfs a piece of metadata. It is given up when it is needed,
by whoever needs it, and made again when there is plenty.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from layerstore.errors import FULL
from layerstore.kernel.files.descriptors import write_private

__all__ = ["Reserve"]

_SIZE = 4 << 20
_FILES = 32
_FILE_SIZE = 1900
"""What btrfs keeps within its metadata, by default."""

_PLENTY = 16
"""The reserve is made where there is so many times its size."""

_LOW = 1 << 20
_LOW_FILES = 16

_WHILE = 0.02
"""Seconds. Should the disk fill up within, the error of a transaction gives up the reserve, and says to try again."""


class Reserve:
    """One reserve. Thread-safe, and any number of processes may make it and give it up."""

    def __init__(self, folder: Path, *, before: Callable[[], bool] | None = None) -> None:
        """`folder` is where it lies, when it is there. Its parent exists.

        `before` removes what is to go before it, whenever it is needed, and tells whether there was anything.
        """
        self._folder = folder
        self._parent = os.fspath(folder.parent)
        self._room = f"{folder}/room"
        self._enough_until = 0.0
        self._before = before

    def make(self) -> None:
        """Make it if it is missing and there is plenty of room. What it cannot make, it leaves: that is no error."""
        if os.path.exists(self._room):
            return
        try:
            left = os.statvfs(self._parent)
            if left.f_bavail * left.f_frsize < _PLENTY * _SIZE or left.f_favail < min(left.f_files, _PLENTY * _FILES):
                return
            self._fill()
        except OSError:
            self.give_up()

    def _fill(self) -> None:
        # The large file comes last: where it is, the rest is.
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for number in range(_FILES):
            write_private(self._folder / str(number), bytes(_FILE_SIZE))
        begun = f"{self._room}.{os.urandom(4).hex()}"
        fd = os.open(begun, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _SIZE)
        finally:
            os.close(fd)
        os.rename(begun, self._room)

    def give_up(self) -> bool:
        """Remove it. True if there was anything to remove: then what failed for want of room may be tried again."""
        freed = self._before is not None and self._before()
        try:
            names = os.listdir(self._folder)
        except OSError:
            return freed
        for name in names:
            try:
                # Its blocks are free when `truncate` returns; after an unlink, xfs takes its time.
                if name.startswith("room"):
                    os.truncate(self._folder / name, 0)
                os.unlink(self._folder / name)
                freed = True
            except OSError:
                pass  # given up by another process at the same moment
        try:
            self._folder.rmdir()
        except OSError:
            pass  # somebody is just making it again
        return freed

    def is_needed(self) -> bool:
        """Is there hardly any room? Whatever is going to need some asks, so often that an answer counts for a while."""
        now = time.monotonic()
        if now < self._enough_until:
            return False
        left = os.statvfs(self._parent)
        if left.f_bavail * left.f_frsize < _LOW or left.f_favail < min(left.f_files, _LOW_FILES):
            return True
        self._enough_until = now + _WHILE
        return False

    def gives_way(self, error: OSError) -> bool:
        """Was there no room, and is there some now, since the reserve was given up?"""
        return error.errno in FULL and self.give_up()
