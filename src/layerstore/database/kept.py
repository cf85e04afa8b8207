"""The files beside the database, `-wal` and `-shm`, are kept when the last process closes it.

SQLite would remove them then and make them anew at the next open, for which a full disk has no room. It removes them
only if it can lock the database's file alone; so a shared lock of our own, on the bytes that it would lock, is held
until it has closed. That lock belongs to an open file (OFD): it holds against SQLite's, which belong to the process.

The first to open it would truncate `-shm` and let it grow anew. Its blocks might be another's by then, and where blocks
are smaller than a page, some would come by a write through memory only, which on a full disk is a SIGBUS. So it is
filled with zeros in place, which says the same, and SQLite is shown that somebody has it open already.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.kernel.files import write_in_place
from layerstore.kernel.files.descriptors import open_own, require_plain

_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` with 64-bit offsets: type, whence, start, length, pid (0 for OFD locks)."""

_SHARED = (0x4000_0002, 510)
"""Where SQLite's file format has the bytes that readers lock shared, and the last one to close alone."""

_DMS = (128, 1)
"""The byte of `-shm` that everybody who has the database open locks shared, and who fills it anew alone."""

_INDEX = bytes(32 << 10)
"""`-shm`, when nothing is known of the log."""

_SIZE = 384 << 10
"""Of the log, when it is closed. Longer, it would take too long to open: it is read up to where zeros begin."""

_ROOM = 128 << 10
"""What can be written to it, at least, without a new block: a dozen removals."""

_HEADER, _FRAME, _FRAME_HEADER = 32, 24 + 4096, 24
"""Of a log, in bytes: its own header; one page with the header that it has there; that header."""

_lock = threading.Lock()
_opened: dict[tuple[int, int], tuple[int, list[int]]] = {}
"""For each database of this process, by device and inode: how often it is open, and descriptors of it.

They are closed together, after the last connection: closing any descriptor of a file drops all locks that the process
has on it, SQLite's too.
"""


class Kept:
    """From `hold` on until `release`, nobody removes `-wal` and `-shm` of one database. The file exists."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError`, and `Damaged` if one of its files is no plain file, which SQLite would not ask."""
        require_plain(f"{path}-wal")
        with _lock:
            self._fd, self._file = _open(path)
        self._path = path

    def fill_index(self) -> None:
        """Fill `-shm` for SQLite, before it opens the database, if nobody has it open. With `-wal` it is made first.

        Raises `OSError` if there is no room for that: then SQLite tries in its own way.
        """
        index = f"{self._path}-shm"
        if not os.path.exists(index):
            for name in (f"{self._path}-wal", index):
                self._make(name)
        fd = open_own(index, os.O_RDWR)
        with _lock:
            _opened[self._file][1].append(fd)
        if _try(fd, fcntl.F_WRLCK, _DMS):
            try:
                done = 0
                while done < len(_INDEX):  # without room, less is written
                    done += os.pwrite(fd, _INDEX[done:], done)
            except OSError:
                _try(fd, fcntl.F_UNLCK, _DMS)
                raise
        _try(fd, fcntl.F_RDLCK, _DMS)

    def _make(self, name: str) -> None:
        """Make an empty file for its owner alone. On btrfs, to be written to in place: else each write takes room."""
        try:
            fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        try:
            write_in_place(fd)
            if os.geteuid() == 0:
                owner = os.fstat(self._fd)
                os.fchown(fd, owner.st_uid, owner.st_gid)
        finally:
            os.close(fd)

    def hold(self) -> None:
        """From here on. Not before the database is in WAL mode: to become so, it is locked alone."""
        _try(self._fd, fcntl.F_RDLCK, _SHARED)

    def release(self) -> None:
        """Give it back, after the connection was closed."""
        with _lock:
            _let_go(self._file)


@contextmanager
def reading(path: Path) -> Iterator[int]:
    """A descriptor of a database, to read it as a file, though this process may have it open. Raises `OSError`."""
    with _lock:
        seen = os.stat(path)
        file = seen.st_dev, seen.st_ino
        if file in _opened:
            count, fds = _opened[file]
            fd, _opened[file] = fds[0], (count + 1, fds)
        else:
            fd, file = _open(path)
    try:
        yield fd
    finally:
        with _lock:
            _let_go(file)


def _open(path: Path) -> tuple[int, tuple[int, int]]:
    """Open a database once more: the descriptor, and by what it is known."""
    fd = open_own(path)
    try:
        found = os.fstat(fd)
    except BaseException:
        if not _opened:  # else it may be one that is open: better a descriptor too many than a lock too few
            os.close(fd)
        raise
    file = found.st_dev, found.st_ino
    count, fds = _opened.get(file, (0, []))
    _opened[file] = count + 1, [*fds, fd]
    return fd, file


def _let_go(file: tuple[int, int]) -> None:
    """Note that it is open once less, and close its descriptors with the last."""
    count, fds = _opened.pop(file, (0, []))
    if count > 1:
        _opened[file] = count - 1, fds
        return
    for fd in fds:  # before anybody else in this process opens it anew, and locks it
        os.close(fd)


def _try(fd: int, kind: int, where: tuple[int, int]) -> bool:
    """Lock bytes, if nobody is in the way. Where that cannot be, it is as SQLite likes."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, *where, 0))
    except OSError:
        return False
    return True


def has_room(log: Path) -> bool:
    """Has the log blocks for what is written next, and is it short enough? Zeros say to SQLite that nothing follows."""
    with _descriptor(log) as fd:
        size = os.fstat(fd).st_size
        last = (_SIZE - _ROOM - _HEADER) // _FRAME
        return size == _SIZE and not any(os.pread(fd, _FRAME_HEADER, _HEADER + last * _FRAME))


def provide(log: Path) -> None:
    """Give the log blocks for what is written next. Without room for that, it stays as it is."""
    with _descriptor(log) as fd:
        try:
            os.posix_fallocate(fd, 0, _SIZE)
        except OSError:
            pass


@contextmanager
def _descriptor(log: Path) -> Iterator[int]:
    fd = open_own(log, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def _forget() -> None:
    # The child of a fork has no connection, and the parent's lock must end with the parent.
    global _lock
    _lock = threading.Lock()
    for _, fds in _opened.values():
        for fd in fds:
            os.close(fd)
    _opened.clear()


os.register_at_fork(after_in_child=_forget)
