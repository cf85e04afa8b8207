"""What was found in a tree: one record for each file and folder, with all that tells whether it has been altered."""

from __future__ import annotations

import hashlib
import stat
import struct
from collections.abc import Iterator

from layerstore.values import frozen

_RECORD = struct.Struct("=IIIIIqqqQQQ")
"""As walk.c writes it."""
_LENGTHS = struct.Struct(f"=II{_RECORD.size - 8}x")
"""Of it, what says how long its strings are."""


@frozen
class Found:
    """One file or folder. `path` is below the root, b"" the root itself; `mode` is all of `st_mode`.

    `target` is what a symlink says, `rdev` a device's number; times are nanoseconds since the epoch.
    """

    path: bytes
    target: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    rdev: int

    @property
    def is_folder(self) -> bool:
        """Is it a directory?"""
        return stat.S_ISDIR(self.mode)


@frozen
class Block:
    """Some of a listing, one after the other. `records` and `strings` are as a walk has them: equal only if all is."""

    records: bytes
    strings: bytes

    def __iter__(self) -> Iterator[Found]:
        start, strings = 0, self.strings
        for path, target, *facts in _RECORD.iter_unpack(self.records):
            middle, end = start + path, start + path + target
            yield Found(strings[start:middle], strings[middle:end], *facts)
            start = end


class Listing:
    """All that was found: the top first, then what is in it, each folder before its content, names by their bytes.

    `began` is when the walk began, in nanoseconds since the epoch. `size` are the bytes of all regular files, each
    counted under each of its names, `files` how many things there are that are no folder. `digest` is one of all
    records: as long as it stays the same, no file has been altered, but for one whose ctime was that of the moment when
    it was looked at.
    """

    def __init__(self, records: bytes, strings: bytes, *, began: int, size: int, files: int) -> None:
        self._records = records
        self._strings = strings
        self.began = began
        self.size = size
        self.files = files

    @property
    def digest(self) -> str:
        """Of paths, kinds, modes, owners, sizes, times, inodes and targets of symlinks."""
        whole = hashlib.sha256(self._records)
        whole.update(self._strings)
        return whole.hexdigest()

    def equals(self, other: Listing) -> bool:
        """Were the same things found with the same facts?"""
        return self._records == other._records and self._strings == other._strings

    def __len__(self) -> int:
        return len(self._records) // _RECORD.size

    def __iter__(self) -> Iterator[Found]:
        return iter(Block(self._records, self._strings))

    def blocks(self, size: int) -> Iterator[Block]:
        """All of it in its order, `size` things at a time."""
        start, strings = 0, self._strings
        lengths = [path + target for path, target in _LENGTHS.iter_unpack(self._records)]
        for first in range(0, len(lengths), size):
            end = start + sum(lengths[first : first + size])
            records = self._records[first * _RECORD.size : (first + size) * _RECORD.size]
            yield Block(records, strings[start:end])
            start = end

    @property
    def top(self) -> Found | None:
        """What was asked for itself; None if nothing is there."""
        return next(iter(self), None)

    def entries(self) -> Iterator[tuple[bytes, bool]]:
        """The paths of all, and whether each is a folder."""
        start, strings = 0, self._strings
        for path, target, mode, *_ in _RECORD.iter_unpack(self._records):
            yield strings[start : start + path], stat.S_ISDIR(mode)
            start += path + target
