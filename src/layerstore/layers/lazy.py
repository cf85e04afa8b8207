"""A lazy layer, as it lies in its folder: its tar, with holes, and `lazy/`: what is there, and whence the rest.

What has come is noted twice: in `now` when it is in the file, which holds for this boot, whatever process dies, and in
`have` when it is on the disk. In another boot `now` begins as `have`. Both are written in place, each bit once.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Final, Self

from layerstore.errors import FULL, Damaged, KernelError, named
from layerstore.indexes import LAZY, TAR
from layerstore.kernel.files import remove_tree
from layerstore.kernel.files.descriptors import FOLDER, opened, read_own, write_private
from layerstore.kernel.mounts import boot_id
from layerstore.values import frozen

__all__ = [
    "MEND",
    "Lazy",
    "Present",
    "facts_of",
    "fetched",
    "forget",
    "is_left",
    "lay_out",
    "link",
    "note_wrong",
    "noted",
    "order_of",
    "wrong",
]

_INDEX, _SOURCE, _HAVE, _NOW, _WRONG, _ORDER = "index", "source", "have", "now", "wrong", "order"
_FILES: Final = (_INDEX, _SOURCE, _HAVE, _ORDER)
_FORGOTTEN: Final = "lazy.gone"
"""What `lazy/` is called in the layer's folder, for want of room elsewhere, while it is removed."""
_BOOT: Final = 64
"""Bytes in front of the bits of `now`: the boot for which they hold."""
MEND: Final = "`layerstore check --repair` has the layer anew, or pull the image without --lazy."


@frozen
class Lazy:
    """A layer that is to be lazy. `packed` is its index as it came.

    `name` is the image whose it is, in full; of those of older versions the repository alone.

    `chunk` and `size`: the bytes of a chunk of the tar, and of all of it. `order`: what a first run read of it, each
    with its place among the reads of all layers, offset and size (`seekable.Order.of_layer`).
    """

    packed: bytes
    name: str
    chunk: int
    size: int
    order: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, folder: int) -> tuple[bytes, str]:
        """The index and the image's name that were laid down in a layer's folder. Raises `Damaged`."""
        try:
            return _read(folder, _INDEX), str(json.loads(_read(folder, _SOURCE))["name"])
        except (ValueError, KeyError, TypeError):
            raise Damaged("whence the rest of a lazy layer comes is not noted as it should be", remedy=MEND) from None

    @classmethod
    def of_folder(cls, folder: Path) -> tuple[bytes, str]:
        """The same, by the folder's path."""
        with opened(folder, FOLDER) as fd:
            return cls.of(fd)


def order_of(folder: int) -> list[tuple[int, int, int]]:
    """`Lazy.order` of a layer's folder; none if what is there is none: it is a help, and no more."""
    try:
        return [(int(place), int(offset), int(size)) for place, offset, size in json.loads(_read(folder, _ORDER))]
    except (KernelError, ValueError, TypeError):
        return []


def facts_of(folder: int) -> tuple[int, int]:
    """The bytes of a chunk, and of the tar. Raises `Damaged`, `KernelError`."""
    try:
        said = json.loads(_read(folder, _SOURCE))
        chunk, size = int(said["chunk"]), int(said["size"])
        if chunk > 0 and size >= 0:
            return chunk, size
        raise ValueError(chunk, size)
    except (ValueError, KeyError, TypeError):
        raise Damaged("what a lazy layer has is not noted as it should be", remedy=MEND) from None


def _read(folder: int, name: str) -> bytes:
    path = f"{LAZY}/{name}"
    with named("read", path), open(path, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=folder)) as file:
        return file.read()


def lay_out(folder: Path, lazy: Lazy) -> None:
    """Make a layer's tar, all of it a hole, and what belongs to it. Nothing is synced."""
    with named("open", folder / TAR):
        file = os.open(folder / TAR, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with named("ftruncate", folder / TAR):
            os.ftruncate(file, lazy.size)
    finally:
        os.close(file)
    with named("mkdir", folder / LAZY):
        (folder / LAZY).mkdir(mode=0o700)
    with named("write", folder / LAZY):
        write_private(folder / LAZY / _INDEX, lazy.packed)
        said = {"name": lazy.name, "chunk": lazy.chunk, "size": lazy.size}
        write_private(folder / LAZY / _SOURCE, json.dumps(said).encode())
        write_private(folder / LAZY / _ORDER, json.dumps(lazy.order).encode())
        write_private(folder / LAZY / _HAVE, bytes(-(-lazy.size // (lazy.chunk * 8))))


def link(source: Path, folder: Path) -> None:
    """Give what belongs to a lazy layer a second name in another folder, as its tar has one."""
    with named("link", folder / LAZY):
        (folder / LAZY).mkdir(mode=0o700)
        for name in _FILES:
            with suppress(FileNotFoundError) if name == _ORDER else nullcontext():  # which older ones have not
                os.link(source / LAZY / name, folder / LAZY / name)


def is_left(folder: Path) -> bool:
    """Is anything there that makes a layer lazy, or has?"""
    return any(os.path.lexists(folder / name) for name in (LAZY, _FORGOTTEN))


def forget(folder: Path, gone: Path) -> bool:
    """Take away at once, to `gone`, what makes a layer lazy: with half of it, it would lack something.

    False: nothing has come there. Where there is no room for that name, it is another, in the same folder, from where
    it is removed. Raises `KernelError`.
    """
    inner = folder / _FORGOTTEN
    remove_tree(inner)
    with named("rename", folder / LAZY), suppress(FileNotFoundError):
        try:
            os.rename(folder / LAZY, gone)
        except OSError as error:
            if error.errno not in FULL:
                raise
            os.rename(folder / LAZY, inner)
            remove_tree(inner)
            return False
        return True
    return False


def fetched(folder: Path) -> int:
    """Bytes of a lazy layer's tar that are there; 0 if that is not noted as it should be, which `check` tells.

    Nothing is written for it. Raises `KernelError`.
    """
    with opened(folder, FOLDER) as fd:
        try:
            chunk, size = facts_of(fd)
            bits = noted(fd)
        except Damaged:
            return 0
    return min(int.from_bytes(bits).bit_count() * chunk, size)


def noted(folder: int) -> bytes:
    """Which chunks are there, in this boot: a bit for each, the lowest first. Nothing is written for it."""
    try:
        boot, bits = (said := _read(folder, _NOW))[:_BOOT], said[_BOOT:]
    except KernelError:
        boot = bits = b""
    return bits if boot == boot_id().encode().ljust(_BOOT, b"\0") else _read(folder, _HAVE)


def wrong(folder: Path) -> str | None:
    """What was found to be wrong with what came; None if nothing was."""
    with named("read", folder / LAZY / _WRONG):
        try:
            return read_own(folder / LAZY / _WRONG).decode(errors="replace")
        except FileNotFoundError:
            return None


def note_wrong(folder: int, text: str) -> None:
    """Remember that what came is not what it should be, whatever process ends."""
    path = f"{LAZY}/{_WRONG}"
    with named("write", path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            os.write(file, text.encode())
            os.fsync(file)
        finally:
            os.close(file)


class Present:
    """Which chunks of a lazy layer's tar are there. `folder`: a descriptor of its folder. A context manager.

    Any number of processes may look; one at a time adds. Raises `KernelError`, `Damaged`.
    """

    def __init__(self, folder: int, chunks: int | None = None) -> None:
        with named("open", LAZY):
            self._have = os.open(f"{LAZY}/{_HAVE}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
        try:
            self._size = os.fstat(self._have).st_size
            if chunks is not None and self._size != -(-chunks // 8):
                raise Damaged("what is there of a lazy layer is not noted as it should be", remedy=MEND)
            self._bits = self._mapped(folder)
        except BaseException:
            os.close(self._have)
            raise

    def _mapped(self, folder: int) -> mmap.mmap:
        path, boot = f"{LAZY}/{_NOW}", boot_id().encode().ljust(_BOOT, b"\0")
        with named("open", path):
            try:
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
            except FileNotFoundError:
                file = -1
            if file < 0 or os.pread(file, _BOOT, 0) != boot or os.fstat(file).st_size != _BOOT + self._size:
                if file >= 0:
                    os.close(file)
                file = self._begun(folder, path, boot)
            try:
                return mmap.mmap(file, _BOOT + self._size)
            finally:
                os.close(file)

    def _begun(self, folder: int, path: str, boot: bytes) -> int:
        """A new one, which has its name when it is whole."""
        draft = f"{path}.{os.urandom(8).hex()}"
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            data = boot + os.pread(self._have, self._size, 0)
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.rename(draft, path, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.close(file)
            os.unlink(draft, dir_fd=folder)
            raise
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the memory and the descriptor."""
        self._bits.close()
        os.close(self._have)

    def has(self, chunk: int) -> bool:
        """Is it there, for whoever reads it in this boot?"""
        return bool(self._bits[_BOOT + chunk // 8] >> chunk % 8 & 1)

    def has_all(self, first: int, last: int) -> bool:
        """Are all of these?"""
        return all(map(self.has, range(first, last + 1)))

    def add(self, chunk: int) -> None:
        """It is in the file."""
        self._bits[_BOOT + chunk // 8] |= 1 << chunk % 8

    def missing(self, chunks: int) -> Iterator[int]:
        """Those of so many that are not there, in order."""
        return (chunk for chunk in range(chunks) if not self.has(chunk))

    def count(self) -> int:
        """How many are there."""
        return int.from_bytes(self._bits[_BOOT:]).bit_count()

    def sync(self, tar: int) -> None:
        """What is there by now is on the disk when this returns, and noted there."""
        bits = self._bits[_BOOT:]
        with named("fdatasync", TAR):
            os.fdatasync(tar)
            os.pwrite(self._have, bits, 0)
            os.fdatasync(self._have)
