"""Slices that are tars: read by the index of them (`layerstore.indexes`). A handle is an inode."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path

from layerstore.indexes.reading import Index, Inode
from layerstore.trees.readers import Facts, Found, Name

__all__ = ["TarsReader"]


class TarsReader:
    """Tars under one index, which shows them as a whole tree: nothing in it says what it removes."""

    def __init__(self, index: Path, tars: Sequence[Path]) -> None:
        self._index = Index(index, tars)

    def close(self) -> None:
        """See `SliceReader`."""
        self._index.close()

    def top(self) -> Inode:
        """See `SliceReader`."""
        return self._index.inode(self._index.root)

    def root(self) -> Found:
        """See `SliceReader`."""
        return self._found(self._index.root)

    def find(self, folder: Inode, name: str) -> Found | None:
        """See `SliceReader`."""
        number = self._index.find(folder, os.fsencode(name))
        return None if number is None else self._found(number)

    def names(self, folder: Inode) -> Iterator[Name]:
        """See `SliceReader`."""
        return (Name(os.fsdecode(name)) for name in self._index.names(folder))

    def target(self, handle: Inode) -> str:
        """See `SliceReader`."""
        return os.fsdecode(self._index.target(handle))

    def xattrs(self, handle: Inode) -> Mapping[str, bytes]:
        """See `SliceReader`."""
        return self._index.xattrs(handle)

    def open(self, handle: Inode) -> BufferedReader:
        """See `SliceReader`."""
        return self._index.open(handle)

    def _found(self, number: int) -> Found:
        one = self._index.inode(number)
        facts = Facts(one.mode, one.uid, one.gid, one.size, one.mtime_ns, one.device, number)
        return Found(facts, one)
