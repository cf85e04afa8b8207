"""A layer that is read by the index that `push --with-index` has attached to its image: names of it, data by ranges."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from layerstore.errors import InvalidArchive, LayerstoreError, named
from layerstore.kernel.files.positioned import Positioned
from layerstore.limits import Limits
from layerstore.manifests import Descriptor
from layerstore.registry.browsing.blobs import Parts
from layerstore.registry.browsing.listing import ListedLayer
from layerstore.registry.browsing.passing import PassReader
from layerstore.registry.browsing.spooling import spooled
from layerstore.registry.forms import compression_of
from layerstore.seekable import WINDOWS_TYPE, Hollow, LayerIndex, Ranges
from layerstore.tar import Lying, Unpacked, take_listing
from layerstore.trees import Tree

__all__ = ["IndexedReader"]

_AHEAD: Final = 32
"""Chunks that are asked for together at most, where a file is read from front to end."""


class IndexedReader(ListedLayer):
    """See `ListedLayer`. Whatever is wrong with the index, `otherwise` reads the layer, all of it.

    `find` gives the index as it lies in the registry, None if the layer has none, and is asked once.
    """

    def __init__(
        self,
        parts: Parts,
        below: Tree | None,
        limits: Limits,
        find: Callable[[], bytes | None],
        parts_of: Callable[[Descriptor], Parts],
        otherwise: PassReader,
    ) -> None:
        super().__init__(parts, below)
        self._limits = limits
        self._find = find
        self._parts_of = parts_of
        self._otherwise = otherwise
        self._ranges: Ranges | None = None
        self._is_asked = False

    def close(self) -> None:
        """See `SliceReader`."""
        self._otherwise.close()

    def list_into(self, listing: Path, below: int | None) -> Unpacked:
        """See `ListedLayer`."""
        if not self._is_asked:
            self._is_asked = True
            self._ranges = self._found()
        if self._ranges is None:
            return self._otherwise.list_into(listing, below)
        index = self._ranges.index
        return take_listing(
            Hollow(index), listing, below=below, bottom=self.is_bottom, limits=self._limits, claimed=index.diff_id
        )

    def open_file(self, size: int, payload: int | None, lying: Lying | None) -> io.BufferedReader:
        """See `ListedLayer`."""
        if self._ranges is None:
            return self._otherwise.open_file(size, payload, lying)
        if lying is None:
            return io.BufferedReader(io.BytesIO(bytes(size)))
        tar = _Slice(self._ranges, lying.place, lying.payload.size)
        if not lying.payload.extents:
            return io.BufferedReader(tar)
        extents, source = lying.payload.extents, io.BufferedReader(tar)

        def fill(spool: Any) -> None:
            with named("write"):
                spool.truncate(size)
            for offset, count in extents:
                data = source.read(count)
                with named("write"):
                    spool.seek(offset)
                    spool.write(data)

        return spooled(fill)

    def _found(self) -> Ranges | None:
        layer = self._parts.layer
        try:
            packed = self._find()
            if packed is None:
                return None
            index = LayerIndex.unpacked(packed, self._limits)
        except LayerstoreError:
            return None
        is_its = (index.blob, index.size, index.compression) == (
            layer.digest,
            layer.size,
            compression_of(layer.media_type),
        )
        if not is_its:
            return None
        windows = None
        if index.windows is not None:
            windows = self._parts_of(Descriptor(WINDOWS_TYPE, index.windows, index.windows_size))
        return Ranges(
            index,
            lambda at, count: self._parts.pieces(at, at + count),
            lambda at, count: b"" if windows is None else windows.read(at, at + count),
            self._limits,
        )


class _Slice(Positioned):
    """Bytes of the tar from `begin` on, chunk by chunk, each proved before a byte of it is given out."""

    def __init__(self, ranges: Ranges, begin: int, size: int) -> None:
        super().__init__(size)
        self._ranges = ranges
        self._begin = begin
        self._kept: dict[int, bytes] = {}
        self._next, self._count = -1, 1

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._at >= self._size or not view:
            return 0
        index = self._ranges.index
        place = self._begin + self._at
        number = place // index.chunk
        if number not in self._kept:
            self._fetch(number)
        begin = place - number * index.chunk
        part = self._kept[number][begin : begin + min(len(view), self._size - self._at)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _fetch(self, number: int) -> None:
        index = self._ranges.index
        self._count = min(self._count * 2, _AHEAD) if number == self._next else 1
        last = min(number + self._count - 1, (self._begin + self._size - 1) // index.chunk)
        found = dict(self._ranges.chunks(number, last))
        self._kept = {one: data for one, data in found.items() if one >= number}
        if number not in self._kept:
            raise InvalidArchive("what came of a layer is too short", remedy="Try again.")
        self._next = max(self._kept) + 1
