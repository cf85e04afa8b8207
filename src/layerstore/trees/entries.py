"""One file, folder or other thing of a tree."""

from __future__ import annotations

import stat
from collections.abc import Hashable, Mapping
from io import BufferedReader
from typing import TYPE_CHECKING, Any

from attrs import field

from layerstore.errors import named
from layerstore.trees.readers import Facts, SliceReader
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.trees.tree import Tree

__all__ = ["Entry"]

Part = tuple[int, SliceReader, Any]
"""The number of a slice, it, and its handle of a folder or file."""


@frozen
class Entry:
    """What a tree has under a path, as it was when it was looked up. Its methods read while the tree is open."""

    path: str
    """From the tree's root, without a slash before it; "" is the root. What is no UTF-8 are surrogate escapes."""
    _facts: Facts = field(alias="facts")
    _parts: tuple[Part, ...] = field(repr=False)
    """Where it is read: of a folder, in all slices that it is laid together of, the nearest first."""
    _said: Part | None = field(repr=False)
    """That of them which says what `facts` are; None for the root of what has no layers."""
    _tree: Tree = field(repr=False, eq=False)

    @property
    def name(self) -> str:
        """The last of the names in its path."""
        return self.path.rpartition("/")[2]

    @property
    def mode(self) -> int:
        """Its permissions, with its type, as stat(2) has them."""
        return self._facts.mode

    @property
    def uid(self) -> int:
        """Whose it is."""
        return self._facts.uid

    @property
    def gid(self) -> int:
        """Of which group it is."""
        return self._facts.gid

    @property
    def mtime_ns(self) -> int:
        """When it was last modified, in nanoseconds since 1970."""
        return self._facts.mtime_ns

    @property
    def size(self) -> int:
        """The bytes of a file, or of a symlink's target; 0 of all else, where it is an accident of a filesystem."""
        return self._facts.size if self.is_file or self.is_symlink else 0

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number of a device."""
        is_device = stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)
        return self._facts.device if is_device else (0, 0)

    @property
    def identity(self) -> Hashable:
        """Equal for the names of one file (hard links), and for no others of this tree."""
        return self._parts[0][0] if self._parts else None, self._facts.inode

    @property
    def is_folder(self) -> bool:
        """Is it a folder?"""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Is it a file that has bytes?"""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Is it a symbolic link?"""
        return stat.S_ISLNK(self.mode)

    def target(self) -> str:
        """Where a symbolic link leads; "" of all else. Raises `Damaged`, `KernelError`."""
        return self._tree.target(self)

    def xattrs(self) -> Mapping[str, bytes]:
        """The extended attributes, by their names. Raises `Damaged`, `KernelError`."""
        return self._tree.xattrs(self)

    def open(self) -> BufferedReader:
        """The bytes of a file: seekable, and open after its tree was closed. Raises `KernelError`, `Damaged`."""
        return self._tree.open_entry(self)

    def read(self) -> bytes:
        """All bytes of a file. Raises what `open` raises."""
        with self.open() as file, named("read", f"/{self.path}"):
            return file.read()
