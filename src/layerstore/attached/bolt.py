"""bbolt's files, read and never locked: what containerd remembers lies in two of them.

A file is pages: two metas, and a tree of buckets from the root that the newer meta names (bbolt, `internal/common`:
`page.go`, `meta.go`, `bucket.go`). A page that a meta leads to is not written again while that meta is the newest, so
a copy is sound if the newest is the same before and after it was read. Whatever is wrong in it ends in words: each
offset is looked at, no page counts twice on a way down, and a tree has a depth.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from layerstore.errors import Damaged
from layerstore.values import frozen

__all__ = ["Bucket", "newest", "root"]

_META: Final = struct.Struct("<IIIIQQQQQQ")
"""magic, version, page size, flags, root page, root sequence, freelist, pages in use, transaction, checksum."""
_PAGE: Final = struct.Struct("<QHHI")
"""Number, flags, elements, pages that follow it."""
_BRANCH: Final = struct.Struct("<IIQ")
"""Of a branch: where the key begins, from here; its length; the page below."""
_LEAF: Final = struct.Struct("<IIII")
"""Of a leaf: 1 for a bucket; where the key begins, from here; its length; that of the value, which follows."""
_HEAD: Final = struct.Struct("<QQ")
"""Of a bucket, as the value of a leaf: its root page, 0 for a page that follows; its sequence."""
_MAGIC, _VERSION = 0xED0CDAED, 2
_IS_BRANCH, _IS_LEAF, _IS_META = 0x01, 0x02, 0x04
_DEEPEST: Final = 64
"""Pages on the way to a leaf. A tree of a billion keys has six."""

Wrong = Callable[[str], Damaged]


@frozen
class Meta:
    """What the newest meta page says."""

    transaction: int
    page_size: int
    root: int


def newest(head: bytes) -> Meta | None:
    """The newest meta of a file, of its first bytes (two pages and more); None if none is whole."""
    first = _meta(head, 0)
    sizes = [first.page_size] if first is not None else [1 << bits for bits in range(10, 17)]
    found = [first, *(_meta(head, size) for size in sizes)]
    return max((meta for meta in found if meta is not None), key=lambda meta: meta.transaction, default=None)


def _meta(head: bytes, at: int) -> Meta | None:
    if at + _PAGE.size + _META.size > len(head):
        return None
    _, flags, _, _ = _PAGE.unpack_from(head, at)
    magic, version, size, _, top, _, _, _, transaction, checksum = _META.unpack_from(head, at + _PAGE.size)
    if not flags & _IS_META or magic != _MAGIC or version != _VERSION or not 1 << 10 <= size <= 1 << 16:
        return None
    body = head[at + _PAGE.size : at + _PAGE.size + _META.size - 8]
    return Meta(transaction, size, top) if checksum == _fnv(body) else None


def _fnv(data: bytes) -> int:
    """FNV-1a of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def root(data: bytes, wrong: Wrong) -> Bucket:
    """The bucket in which all others are. Raises `Damaged`."""
    meta = newest(data)
    if meta is None:
        raise wrong("it is no file of bbolt, or both of its first pages are damaged")
    return Bucket(_File(data, meta.page_size, wrong), meta.root)


@frozen
class _File:
    data: bytes
    page_size: int
    wrong: Wrong


class Bucket:
    """Keys, in order, with values and further buckets. What is asked is read then; nothing is kept."""

    def __init__(self, file: _File, page: int, at: int | None = None) -> None:
        """`at`: where its only page lies, if that is within another's value."""
        self._file = file
        self._page = page
        self._at = at

    def bucket(self, *keys: str | bytes) -> Bucket | None:
        """The bucket of a path of keys."""
        found: Bucket | None = self
        for key in keys:
            if found is None:
                return None
            answer = found._find(key)
            found = answer if isinstance(answer, Bucket) else None
        return found

    def value(self, key: str | bytes) -> bytes | None:
        """The value of a key; None if there is none, or a bucket."""
        answer = self._find(key)
        return answer if isinstance(answer, bytes) else None

    def buckets(self) -> Iterator[tuple[bytes, Bucket]]:
        """The buckets in it, by their keys."""
        return ((key, value) for key, value in self if isinstance(value, Bucket))

    def _find(self, wanted: str | bytes) -> bytes | Bucket | None:
        """Down one way of the tree."""
        key = wanted.encode() if isinstance(wanted, str) else wanted
        at = self._start(self._page) if self._at is None else self._at
        for _ in range(_DEEPEST):
            flags, count = self._head(at)
            if flags & _IS_LEAF:
                low, high = 0, count
                while low < high:
                    middle = (low + high) // 2
                    if self._leaf_key(at, middle) < key:
                        low = middle + 1
                    else:
                        high = middle
                if low == count or self._leaf_key(at, low) != key:
                    return None
                return self._leaf(at, low)[1]
            low, high = 0, count
            while low < high:
                middle = (low + high) // 2
                if self._branch(at, middle)[0] <= key:
                    low = middle + 1
                else:
                    high = middle
            at = self._start(self._branch(at, max(low - 1, 0))[1])
        raise self._file.wrong("its pages lead in a circle")

    def __iter__(self) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """All keys, with their values. Raises `Damaged`."""
        left = len(self._file.data)  # no whole file has more in its elements than it has bytes
        stack = [(self._start(self._page) if self._at is None else self._at, 0, 0)]
        while stack:
            at, number, depth = stack.pop()
            flags, count = self._head(at)
            if flags & _IS_LEAF:
                for one in range(count):
                    key, value = self._leaf(at, one)
                    left -= _LEAF.size + len(key) + (0 if isinstance(value, Bucket) else len(value))
                    if left < 0:
                        break
                    yield key, value
            elif number < count:
                stack.append((at, number + 1, depth))
                stack.append((self._start(self._branch(at, number)[1]), 0, depth + 1))
                left -= _BRANCH.size
            if depth >= _DEEPEST or left < 0:
                raise self._file.wrong("its pages lead in a circle")

    # --- pages ---

    def _start(self, page: int) -> int:
        """Where a page begins. The first two are metas."""
        at = page * self._file.page_size
        if page < 2 or at + _PAGE.size > len(self._file.data):
            raise self._file.wrong(f"it has no page {page}, to which another leads")
        return at

    def _head(self, at: int) -> tuple[int, int]:
        data = self._file.data
        if at + _PAGE.size > len(data):
            raise self._file.wrong("a bucket has no page")
        _, flags, count, _ = _PAGE.unpack_from(data, at)
        size = _LEAF.size if flags & _IS_LEAF else _BRANCH.size
        if flags not in (_IS_LEAF, _IS_BRANCH) or (flags == _IS_BRANCH and not count):
            raise self._file.wrong(f"the page at byte {at} is no leaf and no branch")
        if at + _PAGE.size + count * size > len(data):
            raise self._file.wrong(f"the page at byte {at} is longer than the file")
        return flags, count

    def _branch(self, at: int, number: int) -> tuple[bytes, int]:
        place = at + _PAGE.size + number * _BRANCH.size
        begin, length, page = _BRANCH.unpack_from(self._file.data, place)
        return self._bytes(place + begin, length), page

    def _leaf_key(self, at: int, number: int) -> bytes:
        place = at + _PAGE.size + number * _LEAF.size
        _, begin, length, _ = _LEAF.unpack_from(self._file.data, place)
        return self._bytes(place + begin, length)

    def _leaf(self, at: int, number: int) -> tuple[bytes, bytes | Bucket]:
        place = at + _PAGE.size + number * _LEAF.size
        flags, begin, length, size = _LEAF.unpack_from(self._file.data, place)
        key, value = self._bytes(place + begin, length), place + begin + length
        if not flags & 1:
            return key, self._bytes(value, size)
        if size < _HEAD.size:
            raise self._file.wrong(f"the bucket at byte {value} has no head")
        self._bytes(value, size)
        page, _ = _HEAD.unpack_from(self._file.data, value)
        return key, Bucket(self._file, page, value + _HEAD.size if page == 0 else None)

    def _bytes(self, at: int, length: int) -> bytes:
        if at + length > len(self._file.data):
            raise self._file.wrong(f"what lies at byte {at} is longer than the file")
        return self._file.data[at : at + length]
