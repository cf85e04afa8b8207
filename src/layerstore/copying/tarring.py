"""Entries from a tar, and into one.

The tar of a user's, not of a layer: names that begin with `.wh.` mean nothing here. It is read as it comes, plain or
compressed with gzip, bzip2 or xz. No name in it leads out of the folder that it is for.
"""

from __future__ import annotations

import errno
import io
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, BinaryIO, Final, cast

from layerstore.copying.entries import Entry
from layerstore.errors import InvalidArchive, KernelError, remedy_for

_XATTR: Final = "SCHILY.xattr."
_SECOND: Final = 1_000_000_000
_NOBODY: Final = (1 << 32) - 1
"""The number that no user has: to a system call it means that the owner stays."""
_END: Final = (1 << 62) * _SECOND
_TYPES: Final = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_KINDS: Final = {kind: letter for letter, kind in _TYPES.items()}


def of_tar(stream: BinaryIO) -> Generator[Entry]:
    """The entries of a tar, in its order. Raises `InvalidArchive`."""
    with _readable(), tarfile.open(fileobj=stream, mode="r|*", errorlevel=2) as tar:
        for info in tar:
            yield _entry(tar, info)


def _entry(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Entry:
    path = _path(info.name)
    linked = info.islnk()
    mtime = int(Decimal(info.pax_headers.get("mtime") or str(info.mtime)) * _SECOND)
    mode = _TYPES.get(info.type, stat.S_IFREG)
    if not path and mode != stat.S_IFDIR:
        raise InvalidArchive(f"the tar has an entry without a name: {info.name!r}")
    if not (0 <= info.uid < _NOBODY and 0 <= info.gid < _NOBODY and abs(mtime) < _END):
        raise InvalidArchive(f"the tar has an owner or a time that cannot be: {info.name!r}")
    return Entry(
        path=path,
        mode=mode | info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        atime=mtime,
        mtime=mtime,
        size=info.size,
        device=_device(info) if mode in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        target=info.linkname if mode == stat.S_IFLNK else "",
        same_as=_path(info.linkname) if linked else None,
        xattrs={
            name.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
            for name, value in info.pax_headers.items()
            if name.startswith(_XATTR)
        },
        open=None if linked or mode != stat.S_IFREG else lambda: cast(BinaryIO, _Content(tar, info)),
    )


class _Content(io.RawIOBase):
    """What a tar has of a file."""

    def __init__(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        content = tar.extractfile(info)
        assert content is not None
        self._content = content

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        with _readable():
            return self._content.read(size)


@contextmanager
def _readable() -> Iterator[None]:
    """What tarfile and its decompressors raise, as an error of ours."""
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, ArithmeticError, zlib.error, lzma.LZMAError) as error:
        raise InvalidArchive(f"this tar cannot be read: {error}") from error


def _path(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in name:
        raise InvalidArchive(f"the tar has a name that leads out of it: {name!r}")
    return parts


def _device(info: tarfile.TarInfo) -> int:
    return os.makedev(info.devmajor, info.devminor)


class TarWriter:
    """Writes entries into a tar, with owners, nanoseconds and extended attributes."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.size = 0
        self.entries = 0
        self.notices: list[str] = []
        self._tar = tar

    def put(self, entry: Entry) -> None:
        """Write one entry."""
        if stat.S_ISSOCK(entry.mode):
            self.notices.append(f"left out, for it is a socket: {entry.title}")
            return
        info = _info(entry)
        with _named(entry):
            if entry.open is None or entry.same_as is not None:
                self._tar.addfile(info)
            else:
                with entry.open() as data:
                    self._tar.addfile(info, data)
                self.size += entry.size
        self.entries += 1


@contextmanager
def writing(stream: BinaryIO) -> Iterator[TarWriter]:
    """A tar in PAX format. Its end is written on the way out, unless by an error."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        try:
            yield TarWriter(tar)
            with _named(None):
                tar.close()
        except BaseException:
            cast(Any, tar.fileobj).closed = True  # else it would write what it still has, after an error
            raise


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo("/".join(entry.path) or "./")
    info.mode, info.uid, info.gid = stat.S_IMODE(entry.mode), entry.uid, entry.gid
    info.mtime = entry.mtime // _SECOND
    info.pax_headers = {_XATTR + name: value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs.items()}
    if entry.mtime % _SECOND:
        info.pax_headers["mtime"] = f"{Decimal(entry.mtime) / _SECOND:f}"
    if entry.same_as is not None:
        info.type, info.linkname = tarfile.LNKTYPE, "/".join(entry.same_as)
        return info
    info.type = _KINDS.get(stat.S_IFMT(entry.mode), tarfile.REGTYPE)
    info.size, info.linkname = entry.size, entry.target
    if entry.device:
        info.devmajor, info.devminor = os.major(entry.device), os.minor(entry.device)
    return info


@contextmanager
def _named(entry: Entry | None) -> Iterator[None]:
    """What a stream refuses, and what a file that became shorter makes of the tar, as an error of ours."""
    try:
        yield
    except OSError as error:
        path = "the tar" if entry is None else entry.title
        if error.errno is None:
            raise KernelError("read", errno.EIO, path=path, detail="it became shorter while it was copied") from None
        remedy = remedy_for(error.errno, elsewhere=True)
        raise KernelError("write", error.errno, path=path, remedy=remedy) from None
