"""Locks between processes and threads that die with their holder.

One file, one byte a lock, by open file description (fcntl F_OFD_SETLKW): nothing is created and nothing is left over, a
thread excludes another as a process does, and the kernel drops the lock when its holder dies. Who needs several takes
them in ascending order (`several`), and a container's before a volume's or a diff's, so nobody waits in a circle. They
order work; what is true is decided by the database alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from layerstore.errors import KernelError, named
from layerstore.kernel.files.descriptors import open_own

_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` with 64-bit offsets: type, whence, start, length, pid (0 for OFD locks)."""

USE = 1 << 61
"""The lock of all who have the store open, shared; and of whoever converts it, alone."""

FORMER = USE + 1
"""The lock of whoever removes what a conversion has left."""

_PROGRAMS = 1 << 60
_BLOBS = USE | 1 << 60
_DIFFS = 1 << 62
_VOLUMES = _DIFFS | 1 << 60
_held: set[int] = set()
_generation = 0
"""Goes up in the child of a fork: what was locked before is the parent's."""


def of_container(container: str) -> int:
    """The lock of a container, by its ID."""
    return int(container[:15], 16)


def of_diff(diff_id: str) -> int:
    """The lock of whoever stores the diff `diff_id`."""
    return _DIFFS | int(diff_id.partition(":")[2][:15], 16)


def of_blob(digest: str) -> int:
    """The lock of whoever keeps or removes the file of a blob."""
    return _BLOBS | int(digest.partition(":")[2][:15], 16)


def of_volume(name: str) -> int:
    """The lock of whoever makes, fills or removes the volume `name`."""
    return _VOLUMES | _number_of(name)


def of_program(name: str) -> int:
    """The lock that a program which stands on this library calls `name`."""
    return _PROGRAMS | _number_of(name)


def _number_of(name: str) -> int:
    import hashlib  # it loads OpenSSL, which most commands have no use for

    return int(hashlib.sha256(name.encode()).hexdigest()[:15], 16)


class Locks:
    """The locks of one store."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def one(self, slot: int, *, shared: bool = False) -> AbstractContextManager[bool]:
        """Hold the lock `slot`; waits for it. Not re-entrant."""
        return Held(self._path, fcntl.F_OFD_SETLKW, _flock(slot, shared=shared))

    def at_once(self, slot: int, *, shared: bool = False) -> Held:
        """Hold the lock `slot` if nobody is in the way; tells whether it does."""
        return Held(self._path, fcntl.F_OFD_SETLK, _flock(slot, shared=shared))

    def of_reader(self, slot: int) -> Held:
        """Hold the lock `slot`, shared, if nobody is in the way, where nothing can be written."""
        return Held(self._path, fcntl.F_OFD_SETLK, _flock(slot, shared=True), os.O_RDONLY)

    def is_held(self, slot: int) -> bool:
        """Has anybody the lock `slot`, alone or shared? It is not taken. Without a file nobody has any."""
        try:
            with named("open", self._path):
                fd = open_own(self._path)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        try:
            found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(slot, shared=False))
        finally:
            os.close(fd)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    @contextmanager
    def several(self, slots: Iterable[int]) -> Iterator[None]:
        """Hold all of `slots`."""
        with ExitStack() as stack:
            for slot in sorted(set(slots)):
                stack.enter_context(self.one(slot))
            yield


class Held:
    """A lock while it is held. A class, for it is on the way of everything that is done to a container."""

    __slots__ = ("_command", "_fd", "_flags", "_generation", "_lock", "_path")

    def __init__(self, path: Path, command: int, lock: bytes, flags: int = os.O_RDWR | os.O_CREAT) -> None:
        self._path, self._command, self._lock, self._flags = path, command, lock, flags
        self._fd = -1
        self._generation = _generation

    def __enter__(self) -> bool:
        with named("open", self._path):
            self._fd = open_own(self._path, self._flags)
        _held.add(self._fd)
        self._generation = _generation
        try:
            return self._take(self._command, self._lock)
        except BaseException:
            self.release()
            raise

    def upgrade(self, slot: int) -> bool:
        """Turn the shared lock `slot` that is held here into one that is held alone; False if somebody shares it."""
        return self._take(fcntl.F_OFD_SETLK, _flock(slot, shared=False))

    def share(self, slot: int) -> None:
        """Turn the lock `slot` that is held here alone into one that is shared."""
        self._take(fcntl.F_OFD_SETLK, _flock(slot, shared=True))

    def _take(self, command: int, lock: bytes) -> bool:
        try:
            fcntl.fcntl(self._fd, command, lock)
        except (BlockingIOError, PermissionError):  # POSIX allows either for a lock that somebody has
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give it back. A second time is no error."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._generation == _generation:
            _held.discard(fd)
            os.close(fd)

    def __del__(self) -> None:
        # An interrupt may come between the lock and the `with` that would give it back.
        self.release()


def _flock(slot: int, *, shared: bool) -> bytes:
    return _FLOCK.pack(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)


def _release_in_child() -> None:
    # A lock belongs to the open file, which a fork shares: the child must not keep what the parent lets go.
    global _generation
    _generation += 1
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
