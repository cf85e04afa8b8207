"""Blobs that are kept as files: `<data-root>/blobs/sha256/<hex>`.

Whole and on the disk before the row, the row gone before the file. Between the two, in either direction, whoever is at
it holds the lock of that digest; so a file without a row and without somebody who has the lock is garbage.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from layerstore.blobs import rows
from layerstore.database import Database, Transaction
from layerstore.digest import Digest, hex_of
from layerstore.errors import Damaged, named
from layerstore.kernel.files import fsync_folder
from layerstore.kernel.files.descriptors import open_own
from layerstore.layers.relay import Write
from layerstore.locks import Locks, of_blob
from layerstore.values import frozen

_PIECE: Final = 1 << 20
_NAME: Final = re.compile(r"[0-9a-f]{64}")


class Readable(Protocol):
    """What has bytes, one after the other."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the beginning of `buffer`; 0 at the end."""


@frozen
class KeptFiles:
    """The files of a store. `data_root` exists."""

    data_root: Path
    database: Database
    locks: Locks

    @property
    def folder(self) -> Path:
        """Where they lie. Made when it is first needed."""
        return self.data_root / "blobs" / "sha256"

    def path(self, digest: Digest) -> Path:
        """Where one lies."""
        return self.folder / hex_of(digest)

    def keep(self, source: Path, digest: Digest, size: int, prepare: Callable[[Transaction], None]) -> None:
        """Make a file of this filesystem, whole and synced, a kept one. Its name `source` is gone then.

        `prepare` sees to the tables, in the transaction of the row. On an error nothing of it is left there.
        """
        target = self.path(digest)
        with self.locks.one(of_blob(digest)):
            self._make_folder()
            try:
                with named("rename", source):
                    source.rename(target)
                fsync_folder(self.folder)
                with self.database.write() as tx:
                    prepare(tx)
                    rows.insert_file(tx, digest, size)
            except BaseException:
                self._unlink_rowless(digest)
                raise

    def _make_folder(self) -> None:
        if self.folder.is_dir():
            return
        with named("mkdir", self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(self.folder.parent, 0o700)
        fsync_folder(self.folder.parent)
        fsync_folder(self.data_root)

    def remove(self, digests: Iterable[Digest]) -> None:
        """Remove the files of those that have no row any more."""
        for digest in digests:
            with self.locks.one(of_blob(digest)):
                self._unlink_rowless(digest)

    def _unlink_rowless(self, digest: Digest) -> None:
        """With its lock held. An interrupt may come between a commit and the line after it: the database is asked."""
        with self.database.read() as tx:
            if rows.are_there(tx) and rows.has_file(tx, digest):
                return
        path = self.path(digest)
        with named("unlink", path):
            path.unlink(missing_ok=True)

    # --- out ---

    def open(self, digest: Digest) -> int | None:
        """A descriptor of one; None if it is not there."""
        path = self.path(digest)
        with named("open", path):
            try:
                return open_own(path)
            except FileNotFoundError:
                return None

    def write(self, fd: int, digest: Digest, write: Write, start: int, end: int) -> None:
        """Write a piece of an open one; all of it is verified. Raises `Damaged`."""
        path = self.path(digest)
        buffer = memoryview(bytearray(_PIECE))
        hashed = hashlib.sha256() if start == 0 and end == os.fstat(fd).st_size else None
        while start < end:
            with named("read", path):
                count = os.preadv(fd, [buffer[: min(len(buffer), end - start)]], start)
            if not count:
                raise damaged(digest, path, "it is shorter than it was")
            if hashed is not None:
                hashed.update(buffer[:count])
            write(buffer[:count])
            start += count
        if hashed is not None and hashed.hexdigest() != hex_of(digest):
            raise damaged(digest, path, "it has another digest")

    # --- what is there ---

    def names(self) -> set[Digest]:
        """All that lie there; what has another name than we give is none of ours."""
        with named("open", self.folder):
            try:
                return {Digest(f"sha256:{name}") for name in os.listdir(self.folder) if _NAME.fullmatch(name)}
            except FileNotFoundError:
                return set()

    def garbage(self) -> list[Digest]:
        """Those that have no row. The order decides: files are listed first, rows are read last."""
        found = self.names()
        if not found:
            return []
        with self.database.read() as tx:
            known = rows.files(tx) if rows.are_there(tx) else {}
        return sorted(digest for digest in found if digest not in known and self._is_free(digest))

    def _is_free(self, digest: Digest) -> bool:
        with self.locks.at_once(of_blob(digest)) as free:
            return free and (not self._has_row(digest)) and self.path(digest).is_file()

    def _has_row(self, digest: Digest) -> bool:
        with self.database.read() as tx:
            return rows.are_there(tx) and rows.has_file(tx, digest)

    def sweep(self) -> None:
        """Remove the garbage."""
        for digest in self.garbage():
            with self.locks.at_once(of_blob(digest)) as free:
                if free:
                    self._unlink_rowless(digest)


def received(stream: Readable, path: Path) -> tuple[Digest, int]:
    """Write all of a stream into a new file, and have it on the disk; its digest and size."""
    hashed, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_PIECE))
    with named("open", path):
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        while count := stream.readinto(buffer):
            hashed.update(buffer[:count])
            _write_all(fd, buffer[:count], path)
            size += count
        with named("fsync", path):
            os.fsync(fd)
    finally:
        os.close(fd)
    return Digest(f"sha256:{hashed.hexdigest()}"), size


def _write_all(fd: int, data: memoryview, path: Path) -> None:
    with named("write", path):
        while data:
            data = data[os.write(fd, data) :]


def digest_of(pieces: Iterator[memoryview]) -> Digest:
    """The digest of pieces that follow one another."""
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(piece)
    return Digest(f"sha256:{hashed.hexdigest()}")


def damaged(digest: Digest, path: Path, what: str) -> Damaged:
    """The error for a kept blob that is not what it was."""
    return Damaged(
        f"the kept blob {digest} is damaged: {what}",
        remedy="`layerstore check --content` notes it: the next pull or push of it takes its place.",
        path=path,
    )
