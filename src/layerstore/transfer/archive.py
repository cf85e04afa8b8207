"""Archives whose members can be read in any order: a tar in a file, a folder.

The bytes of a plain layer go from the file straight into the buffer of whoever unpacks it: one copy, made by the
kernel, and none to the disk. Links among members are followed by name within the archive, and in a folder by the
kernel, which lets none lead out of it.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from layerstore.compression import HEAD, Stream, open_stream, sniff
from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, KernelError, named
from layerstore.kernel.files import open_beneath, open_tree_root
from layerstore.limits import USUAL, Limits
from layerstore.transfer.tarball import Member, members, normal

_LINKS_LIMIT: Final = 40
"""As many as the kernel follows."""


class Archive(ABC):
    """The members of an archive, by name. A context manager: closing it closes what it has open."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    @abstractmethod
    def region(self, name: str) -> Region | None:
        """The bytes of a member; None if there is none of this name."""

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    def document(self, name: str, kind: str = "manifest") -> bytes | None:
        """See `Documents`."""
        with self._opened(name) as region:
            if region is None:
                return None
            self.limits.check_document(kind, region.size, name)
            return region.peek(0, region.size)

    def size(self, name: str) -> int | None:
        """See `Documents`."""
        with self._opened(name) as region:
            return None if region is None else region.size

    def tar_size(self, name: str) -> int | None:
        """The bytes of the tar that a member holds, if it says so: good enough for a progress bar, and no more."""
        with self._opened(name) as region:
            return None if region is None else region.tar_size()

    @contextmanager
    def layer(self, name: str, expect: Digest | None) -> Iterator[Stream]:
        """The uncompressed content of a member, the digest of whose bytes is verified."""
        with self._opened(name) as region:
            if region is None:
                raise InvalidArchive(f"{name} is not in the archive", path=name)
            with open_stream(region, expect=expect, limits=self.limits) as stream:
                yield stream

    @contextmanager
    def _opened(self, name: str) -> Iterator[Region | None]:
        region = self.region(name)
        try:
            yield region
        finally:
            if region is not None:
                region.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Region:
    """Bytes of a file, read by position, so that many threads may share the file."""

    def __init__(self, fd: int, offset: int, size: int, name: str, *, owned: bool = False) -> None:
        self.size = size
        self._fd = fd
        self._owned = owned
        self._offset = offset
        self._at = 0
        self._name = name

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer`. The end of the file within the region is an error."""
        room = min(len(buffer), self.size - self._at)
        if not room:
            return 0
        with named("read", self._name):
            count = os.preadv(self._fd, [buffer[:room]], self._offset + self._at)
        if not count:
            raise InvalidArchive(f"{self._name} became shorter while it was read", path=self._name)
        self._at += count
        return count

    def peek(self, at: int, size: int) -> bytes:
        """Some bytes from the middle; fewer where there are fewer."""
        at = min(at, self.size)
        with named("read", self._name):
            return os.pread(self._fd, min(size, self.size - at), self._offset + at)

    def tar_size(self) -> int | None:
        """See `Archive.tar_size`."""
        compression = sniff(self.peek(0, HEAD))
        if compression is None:
            return self.size
        if compression == "gzip":  # RFC 1952: the last four bytes are the size, modulo 4 GiB
            size = int.from_bytes(self.peek(self.size - 4, 4), "little")
            return size if size >= self.size else None
        return None

    def close(self) -> None:
        """Close the file, if it is the region's own."""
        if self._owned:
            os.close(self._fd)


class TarArchive(Archive):
    """A tar in a file that can be read anywhere. `fd` stays the caller's."""

    def __init__(self, fd: int, origin: str, *, start: int = 0, limits: Limits = USUAL) -> None:
        super().__init__(limits)
        self._fd = fd
        self._origin = origin
        self._start = start
        # Of several members of one name the last counts, as when a tar is unpacked.
        with named("read", origin):
            self._members = {member.name: member for member in members(_FileInput(fd, start))}
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def region(self, name: str) -> Region | None:
        member = follow(self._members, name)
        if member is None:
            return None
        return Region(self._fd, self._start + member.offset, member.size, f"{self._origin}: {name}")

    def close(self) -> None:
        pass


class FolderArchive(Archive):
    """A folder."""

    def __init__(self, path: Path, *, limits: Limits = USUAL) -> None:
        super().__init__(limits)
        self._path = path
        with named("open", path):
            self._root = open_tree_root(path)

    def region(self, name: str) -> Region | None:
        path = normal(name)
        if path is None:
            raise _outside(name)
        try:
            # Not to be kept waiting by a FIFO.
            fd = open_beneath(self._root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            if error.errno == errno.ELOOP:
                raise _circle(name) from error
            raise
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            raise InvalidArchive(f"{self._path / name} is no file", path=name)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return Region(fd, 0, facts.st_size, str(self._path / name), owned=True)

    def close(self) -> None:
        os.close(self._root)


class _FileInput:
    """A file, as `tarball` reads it."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd = fd
        self._start = start
        self._at = 0
        self._size = os.fstat(fd).st_size - start

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self._start + self._at)
        self._at += len(data)
        return data

    def skip(self, size: int) -> int:
        count = min(size, self._size - self._at)
        self._at += count
        return count

    def tell(self) -> int:
        return self._at


def follow(found: dict[str, Member], name: str) -> Member | None:
    """The file that a name leads to, over links; None if there is none."""
    current: str | None = normal(name)
    for _ in range(_LINKS_LIMIT):
        if current is None:
            raise _outside(name)
        member = found.get(current)
        if member is None or member.target is None:
            return member
        current = normal(member.target)
    raise _circle(name)


def _outside(name: str) -> InvalidArchive:
    return InvalidArchive(f"{name!r} leads out of the archive", path=name)


def _circle(name: str) -> InvalidArchive:
    return InvalidArchive(f"the links of the archive lead from {name!r} in a circle", path=name)
