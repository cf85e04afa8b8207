"""A blob that is made here before it is sent: its digest and size are known only when all of it has been made.

While it is small it is held in memory, else in a file without a name, which the kernel takes back however this process
ends. Weighed: sending it while it is made, in a chunked upload. That is a little earlier for one large layer; but then
nobody can ask first whether the registry has it, a broken connection means to make it again, and registries that take
only whole blobs refuse it.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from layerstore.digest import Digest
from layerstore.errors import named

_IN_MEMORY: Final = 4 << 20

Write = Callable[[memoryview], object]


class Spool:
    """The bytes of one blob: written once, then read as often as is wanted. A context manager, which gives them up."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the file is, if one is needed."""
        self.size = 0
        self._folder = folder
        self._hash = hashlib.sha256()
        self._memory = bytearray()
        self._fd = -1

    @property
    def digest(self) -> Digest:
        """Of all that was written until now."""
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def write(self, data: memoryview) -> None:
        """Add what comes next."""
        self._hash.update(data)
        self.size += len(data)
        if self._fd < 0 and self.size <= _IN_MEMORY:
            self._memory += data
            return
        with named("write", self._folder):
            if self._fd < 0:
                self._fd = nameless(self._folder)
                write_all(self._fd, memoryview(self._memory))
                self._memory = bytearray()
            write_all(self._fd, data)

    def open(self) -> SpoolReader:
        """Its bytes from the beginning."""
        return SpoolReader(self)

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """Fill the beginning of `buffer`; 0 at the end."""
        if self._fd >= 0:
            with named("read", self._folder):
                return os.preadv(self._fd, [buffer], offset)
        piece = memoryview(self._memory)[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    @contextmanager
    def buffer(self) -> Iterator[bytes | bytearray | mmap.mmap]:
        """All of its bytes at once, while inside."""
        if self._fd < 0:
            yield self._memory
            return
        with named("mmap", self._folder):
            mapped = mmap.mmap(self._fd, self.size, prot=mmap.PROT_READ)
        with mapped:
            yield mapped

    def close(self) -> None:
        """Give the bytes up."""
        fd, self._fd = self._fd, -1
        self._memory = bytearray()
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SpoolReader:
    """A spool's bytes, one after the other."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._at = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer`; 0 at the end."""
        count = self._spool.read_at(memoryview(buffer).cast("B"), self._at)
        self._at += count
        return count

    def close(self) -> None:
        """Nothing: the spool is closed by whoever made it."""


def nameless(folder: Path) -> int:
    """A new file on the filesystem of a folder, which goes when its descriptor does."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(folder, os.O_TMPFILE | flags, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    path = folder / f"spool-{secrets.token_hex(8)}"  # the filesystem knows no such files
    fd = os.open(path, os.O_CREAT | os.O_EXCL | flags, 0o600)
    path.unlink()
    return fd


def write_all(fd: int, data: memoryview) -> None:
    """Write all of it."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(fd, rest) :]
