"""An index that was written (image.h), read without a mount: inodes and folders by number, files out of the tars.

It has one form of what erofs can have (Linux: fs/erofs/erofs_fs.h): long inodes, blocks of 512 bytes, files in chunks.
Whatever does not fit is `Damaged`, and no number in it leads out of the files.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerstore.errors import Damaged, named
from layerstore.kernel.files.descriptors import private
from layerstore.kernel.files.positioned import Positioned
from layerstore.values import frozen

__all__ = ["Index", "Inode"]

_SUPER = 1024
_MAGIC = 0xE0F5E1E2
_BLOCK = 512
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_ROOM = 32
_DIRENT = struct.Struct("<QHBx")
_CHUNK = struct.Struct("<HHI")
_XATTRS, _XATTR = 12, struct.Struct("<BBH")
_PREFIXES = {1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security."}
_PLAIN, _INLINE, _CHUNKED = 0, 2, 4
_HOLE = 0xFFFFFFFF
_ESCAPED = "trusted.overlay.overlay."
_LONGEST = 4096
"""Of the target of a symlink."""

_REMEDY = "Remove the index: it is made again when the image is used next."


@frozen
class Inode:
    """One file. `layout` and `word` say where its bytes lie, `behind` where in the index that goes on."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    layout: int
    word: int
    xattrs: int
    """How many bytes its extended attributes take."""

    @property
    def at(self) -> int:
        """Where in the index what follows it begins."""
        return self.number * _ROOM + _INODE.size

    @property
    def behind(self) -> int:
        """The same after its extended attributes."""
        return self.at + self.xattrs

    @property
    def device(self) -> tuple[int, int]:
        """Of a device: its numbers."""
        return self.word >> 8 & 0xFFF, (self.word & 0xFF) | (self.word >> 12 & ~0xFF)


class Index:
    """An open index and its tars, the nearest layer first. What is opened of it stays open when it is closed."""

    def __init__(self, path: Path, tars: Sequence[Path]) -> None:
        self._path = path
        with named("open", path):
            self._file = io.FileIO(path, "rb", opener=private)
        self._tars = tuple(reversed(tars))
        try:
            with named("fstat", path):
                self._size = os.fstat(self._file.fileno()).st_size
            head = self._read(_SUPER, 128)
            magic, bits, root, devices = *struct.unpack_from("<I8xBxH", head), *struct.unpack_from("<H", head, 86)
            if magic != _MAGIC or 1 << bits != _BLOCK or devices != len(tars):
                raise self._damaged()
            self.root: int = root
            self._last: tuple[int, list[tuple[bytes, int]]] = (-1, [])
            """The block of a folder in which something was found last: what is asked next is often there, too."""
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Give the descriptor back."""
        self._file.close()

    def inode(self, number: int) -> Inode:
        """The inode of a number."""
        words = _INODE.unpack(self._read(number * _ROOM, _INODE.size))
        form, xattrs, mode, _, size, word, _, uid, gid, seconds, ns, _ = words
        if not form & 1 or size >= 1 << 63 or ns >= 1_000_000_000:
            raise self._damaged()
        signed = seconds - (1 << 64) if seconds >> 63 else seconds
        taken = _XATTRS + 4 * (xattrs - 1) if xattrs else 0
        return Inode(number, mode, uid, gid, size, signed * 1_000_000_000 + ns, form >> 1 & 7, word, taken)

    def find(self, folder: Inode, name: bytes) -> int | None:
        """The number of what a folder has under a name. It is sorted, over all its blocks."""
        last, entries = self._last
        if last == folder.number and entries[0][0] <= name <= entries[-1][0]:
            return dict(entries).get(name)
        low, high = 0, self._blocks(folder)
        while low < high:
            middle = (low + high) // 2
            entries = self._block(folder, middle)
            if entries[0][0] <= name:
                if name <= entries[-1][0]:
                    self._last = folder.number, entries
                    return dict(entries).get(name)
                low = middle + 1
            else:
                high = middle
        return None

    def names(self, folder: Inode) -> Iterator[bytes]:
        """The names in a folder."""
        for number in range(self._blocks(folder)):
            for name, _ in self._block(folder, number):
                if name not in (b".", b".."):
                    yield name

    def target(self, inode: Inode) -> bytes:
        """Where a symlink leads."""
        if not stat.S_ISLNK(inode.mode) or inode.size >= _LONGEST:
            raise self._damaged()
        return self._read(inode.behind if inode.layout == _INLINE else inode.word * _BLOCK, inode.size)

    def xattrs(self, inode: Inode) -> Mapping[str, bytes]:
        """The extended attributes, by their names in the layer."""
        return {
            f"trusted.overlay.{name.removeprefix(_ESCAPED)}" if name.startswith(_ESCAPED) else name: value
            for name, value in self.stored_xattrs(inode).items()
        }

    def stored_xattrs(self, inode: Inode) -> dict[str, bytes]:
        """The same by the names that whoever mounts the index sees: overlay's are escaped."""
        data = self._read(inode.at, inode.xattrs)
        found, at = {}, _XATTRS
        while at < len(data):
            if at + _XATTR.size > len(data):
                raise self._damaged()
            length, prefix, size = _XATTR.unpack_from(data, at)
            name, value = at + _XATTR.size, at + _XATTR.size + length
            at = (value + size + 3) & ~3
            if prefix not in _PREFIXES or value + size > len(data):
                raise self._damaged()
            found[_PREFIXES[prefix] + os.fsdecode(data[name:value])] = data[value : value + size]
        return found

    def open(self, inode: Inode) -> io.BufferedReader:
        """The bytes of a file."""
        if not stat.S_ISREG(inode.mode) or (inode.layout != _CHUNKED and inode.size):
            raise self._damaged()
        with named("dup", self._path):
            own = os.dup(self._file.fileno())
        try:
            return io.BufferedReader(_Bytes(self, inode, own))
        except BaseException:
            os.close(own)
            raise

    def open_tar(self, number: int) -> int:
        """A descriptor of a tar, by its number of device."""
        if not 1 <= number <= len(self._tars):
            raise self._damaged()
        with named("open", self._tars[number - 1]):
            return os.open(self._tars[number - 1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    # --- inside ---

    def _blocks(self, folder: Inode) -> int:
        if not stat.S_ISDIR(folder.mode) or folder.layout != _PLAIN or folder.size > self._size:
            raise self._damaged()
        return -(-folder.size // _BLOCK)

    def _block(self, folder: Inode, number: int) -> list[tuple[bytes, int]]:
        """The names in one block of a folder, and the numbers of what they name."""
        size = min(_BLOCK, folder.size - number * _BLOCK)
        data = self._read((folder.word + number) * _BLOCK, size)
        first = _DIRENT.unpack_from(data)[1] if size >= _DIRENT.size else 0
        if not _DIRENT.size <= first <= size or first % _DIRENT.size:
            raise self._damaged()
        heads = [_DIRENT.unpack_from(data, at) for at in range(0, first, _DIRENT.size)]
        ends = [*(begin for _, begin, _ in heads[1:]), size]
        found = []
        for (inode, begin, _), end in zip(heads, ends, strict=True):
            name = data[begin:end].rstrip(b"\0") if end == size else data[begin:end]
            if not first <= begin < end <= size or not name or b"/" in name:
                raise self._damaged()
            found.append((name, inode))
        return found

    def _read(self, at: int, count: int) -> bytes:
        if at + count > self._size:
            raise self._damaged()
        with named("read", self._path):
            data = os.pread(self._file.fileno(), count, at)
        if len(data) < count:
            raise self._damaged()
        return data

    def _damaged(self) -> Damaged:
        return Damaged(f"the index {self._path} is damaged", remedy=_REMEDY, path=self._path)


class _Bytes(Positioned):
    """A file of an index: chunks that lie in a tar, in the index itself (device 0), or nowhere, which are zeros."""

    def __init__(self, index: Index, inode: Inode, own: int) -> None:
        self._index = index
        self._inode = inode
        self._files = {0: own}
        self._places = -(-inode.behind // 8) * 8
        self._bits = 9 + (inode.word & 0x1F)
        super().__init__(self._inode.size)
        if inode.size:
            self._open_its_tar()

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        chunk, within = divmod(self._at, 1 << self._bits)
        count = min(len(view), self._inode.size - self._at)
        if count <= 0:
            return 0
        device, block = self._place(chunk)
        run = 1
        while (run << self._bits) - within < count and self._follows(chunk + run, device, block, run):
            run += 1
        count = min(count, (run << self._bits) - within)
        if block == _HOLE:
            view[:count] = bytes(count)
        else:
            if device not in self._files:
                raise Damaged("an index has a file in two tars", remedy=_REMEDY)
            got = os.preadv(self._files[device], [view[:count]], block * _BLOCK + within)
            if not got:
                raise Damaged("a layer's tar is cut short", remedy="`layerstore check` names the layer.")
            count = got
        self._at += count
        return count

    def _place(self, chunk: int) -> tuple[int, int]:
        """Where a chunk lies: the number of the device, and the block in that."""
        with named("read"):
            data = os.pread(self._files[0], _CHUNK.size, self._places + _CHUNK.size * chunk)
        if len(data) < _CHUNK.size:
            raise Damaged("an index is cut short", remedy=_REMEDY)
        _, device, block = _CHUNK.unpack(data)
        return device, block

    def _follows(self, chunk: int, device: int, block: int, run: int) -> bool:
        """Does a chunk lie right after those before it?"""
        step = run << (self._bits - 9)
        return self._place(chunk) == (device, block if block == _HOLE else block + step)

    def _open_its_tar(self) -> None:
        """All of a file that is in a tar is in one: it is opened now, for later the layer may be gone."""
        for chunk in range(-(-self._inode.size // (1 << self._bits))):
            device, block = self._place(chunk)
            if device and block != _HOLE:
                self._files[device] = self._index.open_tar(device)
                return

    def close(self) -> None:
        if not self.closed:
            for fd in self._files.values():
                os.close(fd)
        super().close()
