"""Broken downloads, and uploads that are under way: `<data-root>/partial/<hex>`.

Nothing in it is believed: whoever goes on from one hashes what is there again, and a power cut leads to a digest that
is wrong and a fresh start, no more. So nobody waits until it is on the disk (`flushing`). Each is locked (flock) by
whoever has it open; the kernel drops the lock with the process, and what nobody has open may go: by its age, for the
room, for a disk that is full.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from layerstore.blobs import flushing
from layerstore.errors import FULL, KernelError, named
from layerstore.kernel.files import names_in
from layerstore.kernel.files.descriptors import open_own
from layerstore.values import frozen

__all__ = ["AGE", "MOST", "Growing", "Partial", "Partials", "make_room"]

AGE: Final = 7 * 24 * 60 * 60.0
"""Seconds after which one that nobody went on with goes."""

MOST: Final = 10 << 30
"""Bytes that all of them may have together; less where there is less room: a quarter of what is free."""

_SHARE: Final = 4
_NAME: Final = re.compile(r"[0-9a-f]{16,64}")
_AGAIN: Final = 64 << 20
"""Bytes after which a partial asks again how much all of them may have."""

_BLOCK: Final = 4096
_FEW: Final = 4
_PIECE: Final = 1 << 20

_open: weakref.WeakSet[Partial] = weakref.WeakSet()


class Partial:
    """One that this process has open, and nobody else: bytes that are appended to, and read again.

    For one thread at a time. A context manager: it is closed at the end, and stays for the next who wants it, unless it
    is empty.
    """

    def __init__(self, owner: Partials, name: str, fd: int, *, bounded: bool) -> None:
        self.name = name
        self.path = owner.folder / name
        self._owner = owner
        self._fd = fd
        self._bounded = bounded
        self._size = _sound_size(fd)
        if self._size < os.fstat(fd).st_size:
            os.ftruncate(fd, self._size)
        self._next_look = self._size
        self._is_full = False
        _open.add(self)

    @property
    def size(self) -> int:
        """The bytes that it has."""
        return self._size

    def append(self, data: bytes | bytearray | memoryview) -> bool:
        """Write what comes next. False if there is no room for it, by the limit or on the disk.

        Then it has what it had, perhaps a little more, and takes nothing any more: whoever downloads goes on without.
        """
        end = self._size + len(data)
        if self._is_full or (self._bounded and end > self._next_look and not self._may_grow(len(data))):
            self._is_full = True
            return False
        rest = memoryview(data).cast("B")
        with named("write", self.path):
            while rest:
                try:
                    count = os.pwrite(self._fd, rest, self._size)
                except OSError as error:
                    if error.errno not in FULL and error.errno != errno.EFBIG:
                        raise
                    self._is_full = True
                    return False
                self._size += count
                rest = rest[count:]
        flushing.note(self, len(data))
        return True

    def _may_grow(self, wanted: int) -> bool:
        limit, others = self._owner.limit(), self._owner.total(without=self.name)
        self._next_look = min(self._size + _AGAIN, max(limit - others, 0))
        return others + self._size + wanted <= limit

    def readinto(self, buffer: memoryview, offset: int) -> int:
        """Fill the beginning of `buffer` from there on; 0 at the end."""
        count = min(len(buffer), self._size - offset)
        if count <= 0:
            return 0
        with named("read", self.path):
            return os.preadv(self._fd, [buffer[:count]], offset)

    def pieces(self, start: int = 0) -> Iterator[memoryview]:
        """What it has from there on, piece by piece; each is valid until the next."""
        buffer = memoryview(bytearray(_PIECE))
        while count := self.readinto(buffer, start):
            yield buffer[:count]
            start += count

    def truncate(self, size: int = 0) -> None:
        """Throw away what comes after the first `size` bytes."""
        with named("ftruncate", self.path):
            os.ftruncate(self._fd, size)
        self._size = size
        self._next_look = size
        self._is_full = False

    def sync(self) -> None:
        """Have all of it on the disk."""
        with named("fsync", self.path):
            os.fsync(self._fd)

    def flush(self) -> None:
        """Have it on the disk if that can be; by another thread, and of one that may be closed meanwhile."""
        try:
            os.fdatasync(self._fd)
        except (OSError, ValueError):
            pass  # it is closed; or the disk has failed, which whoever needs it will be told

    def discard(self) -> None:
        """Remove it. A second time is no error."""
        if self._fd >= 0:
            with named("unlink", self.path):
                self.path.unlink(missing_ok=True)
            self._let_go()

    def destroy(self) -> None:
        """Remove it with its bytes: their room is free when this returns. A second time is no error.

        `discard` leaves them to whoever reads along (`Growing`), and to the flush for as long as the disk takes.
        """
        if self._fd >= 0:
            with named("unlink", self.path):
                self.path.unlink(missing_ok=True)
            try:
                with named("ftruncate", self.path):
                    os.ftruncate(self._fd, 0)
            finally:
                self._let_go()

    def moved(self) -> None:
        """It has another name, and is a kept blob now."""
        self._let_go()

    def close(self) -> None:
        """Let it go; what it has stays. A second time is no error."""
        if self._fd >= 0:
            try:
                if not self._size:
                    self.path.unlink(missing_ok=True)
            except OSError:
                pass  # an empty file is swept in a week
            if flushing.forget(self) and self._bounded:
                self.flush()
            self._let_go()

    def _let_go(self) -> None:
        fd = self._forgotten()
        if fd >= 0:
            try:
                # Not by the close alone: while the flush is at it, the kernel keeps the file open, and its lock.
                fcntl.flock(fd, fcntl.LOCK_UN)
            except OSError:
                pass  # the close does it, a little later
            finally:
                os.close(fd)

    def _forgotten(self) -> int:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            flushing.forget(self)
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Growing:
    """One that somebody else has open, as it grows: for those who want the same bytes. A context manager.

    It has no lock, and is in nobody's way. What is read may be wrong, or be taken back: its reader verifies it.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path

    def readinto(self, buffer: memoryview, offset: int) -> int:
        """Fill the beginning of `buffer` from there on; 0 where there is nothing yet."""
        with named("read", self._path):
            return os.preadv(self._fd, [buffer], offset)

    @property
    def size(self) -> int:
        """The bytes that it has now."""
        return os.fstat(self._fd).st_size

    @property
    def is_given_up(self) -> bool:
        """Is it removed, so that nothing comes any more?"""
        return os.fstat(self._fd).st_nlink == 0

    def close(self) -> None:
        """Let it go. A second time is no error."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


@frozen
class Partials:
    """All of them. `folder`: where they lie; made when it is first needed."""

    folder: Path

    def open(self, name: str, *, bounded: bool = True) -> Partial | None:
        """One by its name: hex digits, those of a digest or any. None: one goes without.

        So it is if somebody else has it open, or if nothing can be written there. It is not waited for: who wants a
        layer holds the lock of its DiffID (`layers.assembly`), so the second does not come here before the first is
        done; whoever else has it (a server's upload, a copy between registries) may hold it for as long as a client
        likes. `bounded`: it counts against the limit, as a download should; an upload is only limited by the disk.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a partial blob")
        path = self.folder / name
        while True:
            fd = self._open(path)
            if fd is None:
                return None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(path, fd):
                    return Partial(self, name, fd, bounded=bounded)
            except BlockingIOError:
                os.close(fd)
                return None
            except OSError as error:
                os.close(fd)
                raise KernelError("flock", error.errno or errno.EIO, path=path) from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # it was removed between the two calls

    def _open(self, path: Path) -> int | None:
        while True:
            try:
                return open_own(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
            except FileNotFoundError:
                with named("mkdir", self.folder):
                    try:
                        self.folder.mkdir(mode=0o700, exist_ok=True)
                    except OSError as error:
                        if error.errno in (*FULL, errno.EROFS):
                            return None
                        raise
            except OSError as error:
                if error.errno in (*FULL, errno.EROFS):
                    return None
                raise KernelError("open", error.errno or errno.EIO, path=path) from None

    def watch(self, name: str) -> Growing | None:
        """One that somebody may be writing, to read along; None if there is none of this name."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a partial blob")
        path = self.folder / name
        try:
            return Growing(open_own(path, os.O_RDONLY | os.O_NOFOLLOW), path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KernelError("open", error.errno or errno.EIO, path=path) from None

    def names(self) -> list[str]:
        """What lies there. What has another name than we give is none of ours."""
        return [name for name in names_in(self.folder) if _NAME.fullmatch(name)]

    def total(self, *, without: str = "") -> int:
        """The bytes that they occupy together."""
        return sum(size for name, size, _ in self._found() if name != without)

    def limit(self) -> int:
        """The bytes that they may have together."""
        left = os.statvfs(self.folder)
        return min(MOST, (left.f_bavail * left.f_frsize + self.total()) // _SHARE)

    def sweep(self, *, everything: bool = False) -> int:
        """Remove those that are too old, and the oldest where they are too many; or `everything` that nobody has open.

        Returns the bytes.
        """
        found = sorted(self._found(), key=lambda one: one[2])
        if not found:
            return 0
        limit, total, freed, now = self.limit(), sum(size for _, size, _ in found), 0, time.time()
        for name, size, modified in found:
            if (everything or now - modified > AGE or total - freed > limit) and self._remove(name):
                freed += size
        return freed

    def _found(self) -> list[tuple[str, int, float]]:
        found = []
        for name in self.names():
            try:
                facts = os.lstat(self.folder / name)
            except FileNotFoundError:
                continue
            found.append((name, facts.st_blocks * 512, facts.st_mtime))
        return found

    def _remove(self, name: str) -> bool:
        """Remove one, if nobody has it open."""
        path = self.folder / name
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, fd):
                os.ftruncate(fd, 0)  # its blocks are free when this returns; after an unlink, xfs takes its time
                path.unlink()
                return True
        except OSError:
            pass  # somebody has it, or it cannot be removed: the next sweep tries again
        finally:
            os.close(fd)
        return False


def make_room(folder: Path) -> bool:
    """On a disk that is full: remove all that nobody has open. True if anything was."""
    try:
        return Partials(folder).sweep(everything=True) > 0
    except (KernelError, OSError):
        return False


def _is_still(path: Path, fd: int) -> bool:
    """Is this the file that has the name?"""
    try:
        there, here = os.lstat(path), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _sound_size(fd: int) -> int:
    """How many bytes may be what was written: up to the first hole, without the zeros at the end.

    Those are what a power cut leaves of data that were not on the disk yet. Real ones among them are fetched again, but
    for the few with which gzip ends, as it does wherever the tar has less than 16 MiB (RFC 1952, ISIZE).
    """
    size = os.fstat(fd).st_size
    if not size:
        return 0
    try:
        size = os.lseek(fd, 0, os.SEEK_HOLE)
    except OSError:
        pass  # the filesystem cannot tell
    while size:
        start = (size - 1) // _PIECE * _PIECE
        data = os.pread(fd, size - start, start)
        kept = len(data.rstrip(b"\0"))
        if kept:
            ended = size - start - kept < _FEW
            return size if ended else start + kept // _BLOCK * _BLOCK
        size = start
    return 0


def _forget() -> None:
    # The child of a fork has nothing open: the lock must end with the parent.
    for partial in list(_open):
        fd = partial._forgotten()
        if fd >= 0:
            os.close(fd)  # and no more: to unlock it would be to unlock the parent's


os.register_at_fork(after_in_child=_forget)
