"""Where an archive is written: a tar in a file or a stream, or a folder. Nothing half-written keeps the target's name.

A file or folder is made beside its place, and takes it when it is whole. The same calls give the same bytes: members
have no owner, and no time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from layerstore.digest import Digest, hex_of
from layerstore.errors import ConfigError, InvalidArchive, KernelError, named, remedy_for
from layerstore.kernel.files import remove_tree
from layerstore.kernel.files.descriptors import file_of
from layerstore.transfer.documents import BLOBS
from layerstore.transfer.standard import STANDARD, standard_output
from layerstore.transfer.tarball import BLOCK

Write = Callable[[memoryview], object]
Produce = Callable[[Write], object]
"""Passes all of a member's bytes to the function it is given."""

_BUFFER: Final = 1 << 20


class Target(ABC):
    """An archive in the making."""

    @abstractmethod
    def put(self, name: str, size: int, produce: Produce) -> None:
        """Write a member of which the size is known."""

    @abstractmethod
    def put_blob(self, produce: Produce) -> tuple[Digest, int]:
        """Write a blob of which nothing is known before. Its digest, which gives it its name, and its size."""

    def put_document(self, name: str, data: bytes) -> None:
        """Write a small member."""
        self.put(name, len(data), lambda write: write(memoryview(data)))

    @abstractmethod
    def make_folder(self, name: str) -> None:
        """Write a folder, before what is in it."""

    @abstractmethod
    def finish(self) -> None:
        """Write what comes after the last member."""


@contextmanager
def opened(target: str | Path | BinaryIO, *, folder: bool | None, spool: Callable[[], Path]) -> Iterator[Target]:
    """The target, to be written to. What was there before is replaced at the end, and stays if anything fails.

    `spool` gives names for files that are needed where a tar can only be written forwards.
    """
    if not isinstance(target, str | Path):
        yield _Tar(_Writer(target, str(getattr(target, "name", "the file"))), spool)
        return
    if str(target) == STANDARD:
        writer = _Writer(standard_output(), "standard output")
        yield _Tar(writer, spool)
        writer.flush()
        return
    path = Path(os.path.realpath(target))
    with named("open", path):
        is_folder, is_other = path.is_dir(), path.exists() and not path.is_file()
    if folder or (folder is None and (is_folder or str(target).endswith("/"))):
        with _folder(path) as made:
            yield made
    elif is_folder:
        raise ConfigError(f"{path} is a folder", remedy="Name a file, or ask for a folder.")
    elif is_other:
        with _open(path, os.O_WRONLY) as writer:
            yield _Tar(writer, spool)
    else:
        with _draft(path) as writer:
            yield _Tar(writer, spool, seekable=True)


class _Writer:
    """A file to write to. It writes all that it is given, and fails with the errors of this library."""

    def __init__(self, file: Any, origin: str) -> None:
        self._file = file
        self._origin = origin

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        with self._errors():
            while rest:
                written = self._file.write(rest)
                if written is None and isinstance(self._file, FileIO):
                    raise BlockingIOError(errno.EAGAIN, "the file is set to non-blocking")
                rest = rest[len(rest) if written is None else written :]

    def seek(self, position: int) -> None:
        with self._errors():
            self._file.seek(position)

    def flush(self) -> None:
        with self._errors():
            self._file.flush()

    def close(self) -> None:
        with self._errors():
            self._file.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = remedy_for(error.errno, elsewhere=True)
            raise KernelError("write", error.errno or errno.EIO, path=self._origin, remedy=remedy) from error


# --- a tar ---


class _Tar(Target):
    """`seekable`: a header can be written after what it describes, so that a blob of unknown size needs no spooling."""

    def __init__(self, writer: _Writer, spool: Callable[[], Path], *, seekable: bool = False) -> None:
        self._writer = writer
        self._spool = spool
        self._seekable = seekable
        self._at = 0

    def put(self, name: str, size: int, produce: Produce) -> None:
        self._write(_header(name, size))
        begin = self._at
        produce(self._write)
        if self._at - begin != size:
            raise InvalidArchive(f"{name} came to {self._at - begin} bytes, not {size}", path=name)
        self._pad(size)

    def put_blob(self, produce: Produce) -> tuple[Digest, int]:
        if not self._seekable:
            return self._put_spooled(produce)
        header = self._at
        self._write(bytes(BLOCK))
        digest, size = _hashed(produce, self._write)
        self._writer.seek(header)
        self._writer.write(_header(BLOBS + hex_of(digest), size))
        self._writer.seek(self._at)
        self._pad(size)
        return digest, size

    def make_folder(self, name: str) -> None:
        self._write(_header(name, 0, folder=True))

    def finish(self) -> None:
        # Two blocks of zeros, and more up to tar's usual record.
        self._write(bytes(-(self._at + 2 * BLOCK) % tarfile.RECORDSIZE + 2 * BLOCK))

    def _put_spooled(self, produce: Produce) -> tuple[Digest, int]:
        path = self._spool()
        try:
            with _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as spooled:
                digest, size = _hashed(produce, spooled.write)
            self.put(BLOBS + hex_of(digest), size, lambda write: _copy(path, write))
        finally:
            path.unlink(missing_ok=True)
        return digest, size

    def _write(self, data: bytes | memoryview) -> None:
        self._writer.write(data)
        self._at += len(data)

    def _pad(self, size: int) -> None:
        self._write(bytes(-size % BLOCK))


def _header(name: str, size: int, *, folder: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o755 if folder else 0o644
    info.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    # GNU's form, for sizes from 8 GiB on without a second header.
    return info.tobuf(tarfile.GNU_FORMAT)


# --- a folder ---


class _Folder(Target):
    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, size: int, produce: Produce) -> None:
        path = self._place(name)
        with _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as writer:
            produce(writer.write)

    def put_blob(self, produce: Produce) -> tuple[Digest, int]:
        path = self._place(f"{BLOBS}.{secrets.token_hex(8)}")
        with _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as writer:
            digest, size = _hashed(produce, writer.write)
        with named("rename", path):
            path.rename(self._path / BLOBS / hex_of(digest))
        return digest, size

    def make_folder(self, name: str) -> None:
        pass  # they are made with what is in them

    def finish(self) -> None:
        pass

    def _place(self, name: str) -> Path:
        path = self._path / name
        with named("mkdir", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def added_to(path: Path) -> Iterator[Target]:
    """A layout that is there already, to which blobs are added, each when it is whole. Documents replace others.

    Who writes index.json last has a layout that is whole at any moment. If anything fails, what was added goes.
    """
    folder = _Added(path)
    try:
        yield folder
    except BaseException:
        for made in folder.made:
            with suppress(OSError):
                made.unlink()
        raise


class _Added(_Folder):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path
        self.made: list[Path] = []
        """What was not there before."""

    def put(self, name: str, size: int, produce: Produce) -> None:
        path = self._place(name)
        is_blob = name.startswith(BLOBS)
        if is_blob and path.is_file() and path.stat().st_size == size:
            return
        with _draft(path) as writer:
            produce(writer.write)
        if is_blob:
            self.made.append(path)


# --- files beside their place ---


@contextmanager
def _draft(path: Path) -> Iterator[_Writer]:
    draft = _beside(path)
    try:
        with _open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, shown=path) as writer:
            yield writer
        with named("rename", path):
            draft.replace(path)
    except BaseException:
        with suppress(OSError):  # it may be what could not be made
            draft.unlink()
        raise


@contextmanager
def _folder(path: Path) -> Iterator[Target]:
    with named("open", path):
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if taken:
        raise ConfigError(f"{path} is no empty folder", remedy="Name one that does not exist, or is empty.")
    draft = _beside(path)
    try:
        draft.mkdir()
    except OSError as error:
        raise KernelError("mkdir", error.errno or errno.EIO, path=path) from error
    try:
        yield _Folder(draft)
        with named("rename", path):
            draft.rename(path)
    except BaseException:
        remove_tree(draft)
        raise


def _beside(path: Path) -> Path:
    # No longer than a name may be, whatever the target's own: a character has up to four bytes.
    return path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}")


@contextmanager
def _open(path: Path, flags: int, *, shown: Path | None = None) -> Iterator[_Writer]:
    """A file without a buffer: what comes is large. `shown`: what errors call it, if that is not its name yet."""
    title = path if shown is None else shown
    try:
        file = file_of(os.open(path, flags | os.O_CLOEXEC, 0o666), "wb")
    except OSError as error:
        raise KernelError("open", error.errno or errno.EIO, path=title) from error
    with file:
        writer = _Writer(file, str(title))
        yield writer
        writer.close()


def _copy(path: Path, write: Write) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    with FileIO(path) as file:
        while count := file.readinto(buffer):
            write(buffer[:count])


def _hashed(produce: Produce, write: Write) -> tuple[Digest, int]:
    """Digest and size of what is produced into `write`."""
    total = 0
    found = hashlib.sha256()

    def take(data: memoryview) -> None:
        nonlocal total
        total += len(data)
        found.update(data)
        write(data)

    produce(take)
    return Digest(f"sha256:{found.hexdigest()}"), total
