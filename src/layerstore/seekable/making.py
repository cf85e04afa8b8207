"""Indexes of layers are made: of a blob, and of the tar that it holds, which is read once."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from layerstore import tar
from layerstore.digest import DiffID, Digest
from layerstore.errors import InvalidArchive
from layerstore.limits import USUAL, Limits
from layerstore.seekable import gzip, zstd
from layerstore.seekable.index import CHUNK, FARTHEST, LayerIndex, Point
from layerstore.tar.skeleton import SkeletonReader

if TYPE_CHECKING:
    from layerstore.tar import Readable

__all__ = ["make"]

_LONGEST: Final = 16 << 20
"""Bytes of the tar that one read may have to inflate. Layers with longer stretches are none that can be read lazily."""


def make(
    blob: Any,
    digest: Digest,
    size: int,
    compression: str,
    layer: DiffID,
    stream: Readable,
    folder: Path,
    limits: Limits = USUAL,
) -> tuple[LayerIndex, bytes] | None:
    """The index of a layer, and its windows' blob. None if its tar cannot be read from within the blob.

    `blob` is a buffer with the bytes of `digest`, `size` of them (of a plain one they are not asked for), `stream` the
    layer's tar; `folder` is for files that go again.
    Raises `InvalidArchive`, `DigestMismatch`.
    """
    places = _points(blob, size, compression, limits)
    if places is None:
        return None
    *found, (end, _) = places
    watched = _Watched(stream, iter(found))
    with tempfile.TemporaryDirectory(dir=folder, prefix="index-") as place:
        listing = Path(place) / "listing"
        taken = tar.take_listing(watched, listing, expected=layer, limits=limits, streamed=True)
        with SkeletonReader(listing) as reader:
            tokens = b"".join(reader.stream())
    if end.out != taken.size:
        raise InvalidArchive(f"the blob {digest} holds {end.out} bytes, its layer {taken.size}", layer=layer)
    windows = bytes(watched.windows)
    index = LayerIndex(
        blob=digest,
        size=size,
        compression=compression,
        diff_id=layer,
        tar_size=taken.size,
        chunk=CHUNK,
        hashes=watched.hashes(),
        points=tuple(watched.points),
        stream=tokens,
        windows=Digest(f"sha256:{hashlib.sha256(windows).hexdigest()}") if windows else None,
        windows_size=len(windows),
    )
    return index, windows


def _points(blob: Any, size: int, compression: str, limits: Limits) -> list[tuple[Point, int]] | None:
    """The points, and where the tar ends; None if there are too few to be of use."""
    match compression:
        case "none":
            return [(Point(size, size), 0)]
        case "gzip":
            found = list(gzip.points(blob))
        case "zstd":
            found = list(zstd.points(blob, limits))
        case _:
            return None
    outs = [point.out for point, _ in found]
    places = [*(point.at for point, _ in found[:-1]), size]
    return found if _longest(outs) <= _LONGEST and _longest(places) <= FARTHEST else None


def _longest(places: Sequence[int]) -> int:
    return max((after - before for before, after in itertools.pairwise(places)), default=0)


class _Watched:
    """A tar that is read: its chunks are hashed, and what has to be known before points is kept."""

    def __init__(self, stream: Readable, points: Iterator[tuple[Point, int]]) -> None:
        import zstandard

        self._stream = stream
        self._ahead = points
        self._compressor = zstandard.ZstdCompressor(level=9)
        self._recent = bytearray()
        self._size = 0
        self._hash = hashlib.sha256()
        self._hashes = bytearray()
        self.points: list[Point] = []
        self.windows = bytearray()
        self._next = next(points, None)

    def readinto(self, buffer: memoryview, /) -> int | None:
        """As the stream's."""
        count = self._stream.readinto(buffer)
        if count:
            self._hash_all(buffer[:count])
            self._keep_windows(buffer[:count])
            self._size += count
        return count

    def hashes(self) -> bytes:
        """Those of all chunks, after the end."""
        if self._size % CHUNK:
            self._hashes += self._hash.digest()
        return bytes(self._hashes)

    def _hash_all(self, data: memoryview) -> None:
        at = 0
        while at < len(data):
            room = CHUNK - (self._size + at) % CHUNK
            piece = data[at : at + room]
            self._hash.update(piece)
            at += len(piece)
            if len(piece) == room:
                self._hashes += self._hash.digest()
                self._hash = hashlib.sha256()

    def _keep_windows(self, data: memoryview) -> None:
        """The points that lie in these bytes, or at their beginning, each with what came before."""
        if self._next is not None and self._next[0].out < self._size + len(data):
            joined = bytes(self._recent) + bytes(data)
            base = self._size - len(self._recent)
            while self._next is not None and self._next[0].out < self._size + len(data):
                point, before = self._next
                at = point.out - base
                self._put(point, joined[at - before : at])
                self._next = next(self._ahead, None)
        self._recent += data[-gzip.WINDOW :]
        del self._recent[: -gzip.WINDOW]

    def _put(self, point: Point, window: bytes) -> None:
        place = (0, 0)
        if window:
            packed = self._compressor.compress(window)
            place = len(self.windows), len(packed)
            self.windows += packed
        self.points.append(evolve(point, window=place))
