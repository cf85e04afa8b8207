"""A layer whose tar is listed by the unpacker: what it means is decided where it is for layers in stores."""

from __future__ import annotations

import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path

from layerstore.errors import LayerstoreError, named
from layerstore.kernel.files.descriptors import HANDLE, opened
from layerstore.kernel.files.folders import remove_tree
from layerstore.registry.browsing.blobs import Parts
from layerstore.tar import Lying, Unpacked
from layerstore.trees import Tree
from layerstore.trees.listed import ListReader, Node, leads_away, write_shape
from layerstore.trees.readers import Found, Name

__all__ = ["ListedLayer"]


class ListedLayer(ABC):
    """A slice: see `SliceReader`. It is listed with the first question.

    `below` is the tree of the layers below, None of the bottom one: it is asked where the tar leads through what they
    have.
    """

    def __init__(self, parts: Parts, below: Tree | None) -> None:
        self._parts = parts
        self._below = below
        self._reader: ListReader | None = None
        self._lock = threading.RLock()

    @abstractmethod
    def list_into(self, listing: Path, below: int | None) -> Unpacked:
        """`tar.take_listing` of its tar, or of what stands for that."""

    @abstractmethod
    def open_file(self, size: int, payload: int | None, lying: Lying | None) -> BufferedReader:
        """See `trees.listed.Bytes`."""

    def close(self) -> None:
        """See `SliceReader`."""

    def top(self) -> Node:
        """See `SliceReader`."""
        return self._read().top()

    def root(self) -> Found:
        """See `SliceReader`."""
        return self._read().root()

    def find(self, folder: Node, name: str) -> Found | None:
        """See `SliceReader`."""
        return self._read().find(folder, name)

    def names(self, folder: Node) -> Iterator[Name]:
        """See `SliceReader`."""
        return self._read().names(folder)

    def target(self, handle: Node) -> str:
        """See `SliceReader`."""
        return self._read().target(handle)

    def xattrs(self, handle: Node) -> Mapping[str, bytes]:
        """See `SliceReader`."""
        return self._read().xattrs(handle)

    def open(self, handle: Node) -> BufferedReader:
        """See `SliceReader`."""
        return self._read().open(handle)

    @property
    def is_bottom(self) -> bool:
        """Are there no layers below?"""
        return self._below is None

    def _read(self) -> ListReader:
        with self._lock:
            if self._reader is None:
                with named("mkdir", tempfile.gettempdir()):
                    folder = Path(tempfile.mkdtemp(prefix="layerstore-"))
                try:
                    self._reader = self._listed(folder)
                except LayerstoreError as error:
                    if self._parts.title not in error.message:
                        error.message = f"{self._parts.title}: {error.message}"
                    raise
                finally:
                    remove_tree(folder)
        return self._reader

    def _listed(self, folder: Path) -> ListReader:
        listing = folder / "listing"
        found = self.list_into(listing, None)
        below = self._below
        if below is not None and (found.needs_parents or leads_away(found.implied, below)):
            os.unlink(listing)
            write_shape(below, folder / "below")
            with opened(folder / "below", HANDLE) as root:
                found = self.list_into(listing, root)
        return ListReader(listing, self.open_file, root_opaque=found.root_opaque)
