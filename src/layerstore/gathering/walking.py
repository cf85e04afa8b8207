"""What lies in a tree: one record for each file and folder, sorted, with all that tells whether it has been altered."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, overload

from attrs import frozen

_RECORD = struct.Struct("=IIIIIqqqQQQ")


class Rules(Protocol):
    """Which paths below a root are left out."""

    def leaves_out(self, path: str) -> bool:
        """This path, which has no slash at its ends; a folder above it may be left out already."""
        ...

    def may_keep_below(self, path: str) -> bool:
        """Of a folder that is left out: could anything in it be meant all the same?"""
        ...


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


class Listing(Sequence[Found]):
    """All that was found: the top first, then what is in it, each folder before its content, names by their bytes.

    `began` is when the walk began, in nanoseconds since the epoch. `digest` is one of all records: as long as it stays
    the same, no file has been altered, but for what `is_settled` says.
    """

    def __init__(self, records: bytes, strings: bytes, *, began: int) -> None:
        self._records = records
        self._strings = strings
        self._starts: list[int] | None = None
        self.began = began

    @property
    def digest(self) -> str:
        """Of paths, kinds, modes, owners, sizes, times, inodes and targets of symlinks."""
        whole = hashlib.sha256(self._records)
        whole.update(self._strings)
        return whole.hexdigest()

    def __len__(self) -> int:
        return len(self._records) // _RECORD.size

    def __iter__(self) -> Iterator[Found]:
        start, strings = 0, self._strings
        for path, target, *facts in _RECORD.iter_unpack(self._records):
            middle, end = start + path, start + path + target
            yield Found(strings[start:middle], strings[middle:end], *facts)
            start = end

    @overload
    def __getitem__(self, index: int) -> Found: ...
    @overload
    def __getitem__(self, index: slice) -> list[Found]: ...
    def __getitem__(self, index: int | slice) -> Found | list[Found]:
        return list(self)[index]

    def entries(self) -> Iterator[tuple[bytes, bool]]:
        """The paths of all, and whether each is a folder."""
        start, strings = 0, self._strings
        for path, target, mode, *_ in _RECORD.iter_unpack(self._records):
            yield strings[start : start + path], stat.S_ISDIR(mode)
            start += path + target


def walk(root: int, top: bytes = b"", *, rules: Rules | None = None) -> Listing:
    """List what is at the path `top` below the directory descriptor `root`, and all that is below it.

    Symlinks are listed and not followed. What `rules` leave out is not listed, and not entered where nothing in it can
    be meant; a folder that is left out is listed if something in it is. Sockets are no part of a tree. What vanishes
    meanwhile is not there. Raises `OSError` when a folder cannot be read.
    """
    began = time.time_ns()
    records, strings = bytearray(), bytearray()
    _visit(root, top, rules, records, strings)
    return Listing(bytes(records), bytes(strings), began=began)


def _visit(root: int, path: bytes, rules: Rules | None, records: bytearray, strings: bytearray) -> None:
    try:
        facts = os.stat(path or b".", dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return
    text = os.fsdecode(path)
    left_out = bool(path) and rules is not None and rules.leaves_out(text)
    is_folder = stat.S_ISDIR(facts.st_mode)
    if stat.S_ISSOCK(facts.st_mode) or (left_out and not (is_folder and rules and rules.may_keep_below(text))):
        return
    target = os.readlink(path, dir_fd=root) if stat.S_ISLNK(facts.st_mode) else b""
    kept = len(records), len(strings)
    size = 0 if is_folder else facts.st_size
    records += _RECORD.pack(
        *(len(path), len(target), facts.st_mode, facts.st_uid, facts.st_gid, size, facts.st_mtime_ns),
        *(facts.st_ctime_ns, facts.st_dev, facts.st_ino, facts.st_rdev),
    )
    strings += path + target
    own = len(records)
    if is_folder:
        descriptor = os.open(path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        try:
            names = sorted(map(os.fsencode, os.listdir(descriptor)))
        finally:
            os.close(descriptor)
        for name in names:
            _visit(root, path + b"/" + name if path else name, rules, records, strings)
    if left_out and len(records) == own:
        del records[kept[0] :], strings[kept[1] :]
