"""Trees that are read and not mounted: what a stack shows, name by name, as the kernel would show it.

A stack is read in its slices (`StorageDriver.slices`), each by what answers as `readers.SliceReader` asks: one looks
into folders, one into an index of tars, and a registry's layers are others. `Tree` lays them on each other as overlay
does (kernel: filesystems/overlayfs.rst), where it is asked and no further: nothing is read that nobody asks for, and
nothing is kept. Paths are resolved in the tree's own root, so no link leads out of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from layerstore.driver import Slice
from layerstore.trees.entries import Entry
from layerstore.trees.folders import FolderReader
from layerstore.trees.readers import SliceReader
from layerstore.trees.tree import Tree

__all__ = ["Entry", "Tree", "open_slices"]


def open_slices(slices: Iterable[Slice]) -> Tree:
    """The tree of slices of a stack, the nearest first. The layers have to be kept while it is open."""
    with ExitStack() as undo:
        readers: list[SliceReader] = []
        for one in slices:
            if one.tars:
                from layerstore.trees.indexed import TarsReader

                readers.append(TarsReader(one.path, one.tars))
            else:
                readers.append(FolderReader(one.path, one.marks))
            undo.callback(readers[-1].close)
        undo.pop_all()
    return Tree(readers)
