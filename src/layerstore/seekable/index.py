"""What a layer's index says, and its form as a blob (docs/format.md, "Indexes of layers").

It comes from elsewhere: whatever it says is checked here as far as it can be, sizes and order, and nothing of it is
larger than `Limits` allow.
"""

from __future__ import annotations

import itertools
import json
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from attrs import field

from layerstore import digest as digests
from layerstore.digest import DiffID, Digest
from layerstore.errors import InvalidArchive, InvalidDigest, LimitExceeded
from layerstore.kernel.files.numbers import number_in
from layerstore.limits import Limits
from layerstore.values import frozen

__all__ = ["ARTIFACT", "INDEX_TYPE", "WINDOWS_TYPE", "LayerIndex", "Point"]

ARTIFACT: Final = "application/vnd.layerstore.erofs-index"
"""The type of the manifest that refers to an image's, and has the indexes of its layers."""
INDEX_TYPE: Final = "application/vnd.layerstore.erofs-index.layer.v1+zstd"
WINDOWS_TYPE: Final = "application/vnd.layerstore.erofs-index.windows.v1"

CHUNK: Final = 128 << 10
"""Bytes of the tar that are proved together."""
_CHUNKS: Final = (4 << 10, 16 << 20)
FARTHEST: Final = 64 << 20
"""Bytes between two points, of the tar and of the blob: what one read may have to inflate, and to fetch."""

_MAGIC: Final = b"LSLAZY1\n"
_LENGTHS: Final = struct.Struct("<IIQ")
_POINT: Final = struct.Struct("<QQBQI")
_HASH: Final = 32
_BROKEN: Final = "Push the image once more with --with-index, or pull it without --lazy."


@frozen
class Point:
    """Where inflating can begin: `out` bytes of the tar come before, and bit `bit` of byte `at` of the blob is next.

    `window`: offset and length, in the windows' blob, of what of the tar before has to be known (gzip); else (0, 0).
    """

    out: int
    at: int
    bit: int = 0
    window: tuple[int, int] = (0, 0)


@frozen(slots=False)
class LayerIndex:
    """What has to be known of a layer to read its tar by pieces. Sizes and offsets are bytes."""

    blob: Digest
    size: int
    """Of the blob."""
    compression: str
    """"gzip", "zstd" or "none"."""
    diff_id: DiffID
    tar_size: int
    chunk: int
    hashes: bytes = field(repr=False)
    """The sha256 of each chunk of the tar, 32 bytes each; the last chunk is what is left."""
    points: tuple[Point, ...] = field(repr=False)
    """From the beginning on. The end of one's bytes is where the next begins. None of a plain blob."""
    stream: bytes = field(repr=False)
    """All of the tar that is not file data, as tokens (docs/format.md, "Skeletons")."""
    windows: Digest | None = None
    """The blob that has what points need."""
    windows_size: int = 0

    @property
    def chunks(self) -> int:
        """How many chunks the tar has."""
        return -(-self.tar_size // self.chunk)

    def hash_of(self, chunk: int) -> bytes:
        """The sha256 that a chunk has to have."""
        return self.hashes[chunk * _HASH : (chunk + 1) * _HASH]

    def file_end(self, offset: int) -> int:
        """Where the file data end that this byte of the tar belongs to; `offset` if it belongs to none."""
        begins, ends = self._files
        number = bisect_right(begins, offset) - 1
        return max(ends[number], offset) if number >= 0 else offset

    @cached_property
    def _files(self) -> tuple[array[int], array[int]]:
        """Where file data begin in the tar, and where they end."""
        begins, ends, at = array("Q"), array("Q"), 0
        for data, size in self.tokens():
            if size:
                begins.append(at)
                ends.append(at + size)
            at += len(data) + size
        return begins, ends

    def packed(self) -> bytes:
        """The index as a blob."""
        import zstandard

        head = {
            "blob": self.blob,
            "size": self.size,
            "compression": self.compression,
            "diffID": self.diff_id,
            "tarSize": self.tar_size,
            "chunkSize": self.chunk,
            **({} if self.windows is None else {"windows": self.windows, "windowsSize": self.windows_size}),
        }
        text = json.dumps(head, separators=(",", ":"), sort_keys=True).encode()
        points = b"".join(_POINT.pack(one.out, one.at, one.bit, *one.window) for one in self.points)
        parts = (_MAGIC, _LENGTHS.pack(len(text), len(self.points), len(self.stream)), text, self.hashes, points)
        return zstandard.ZstdCompressor(level=9).compress(b"".join((*parts, self.stream)))

    @classmethod
    def unpacked(cls, data: bytes, limits: Limits) -> LayerIndex:
        """The index that a blob is. Raises `InvalidArchive`, `LimitExceeded`."""
        try:
            made = _read(_inflated(data, limits))
        except (struct.error, ValueError, KeyError, TypeError, InvalidDigest) as error:
            raise _damaged(str(error)) from None
        limits.check("max-layer-size", made.tar_size, "the layer's tar")
        _check(made)
        return made

    def tokens(self) -> Iterator[tuple[bytes, int]]:
        """The tar, bytes that are known and then so many of file data, over and over. Raises `InvalidArchive`."""
        at, made, data = 0, 0, self.stream
        while at < len(data):
            try:
                number, at = number_in(data, at)
            except IndexError:
                raise _damaged("its stream has a number without an end") from None
            length = number >> 1
            made += length
            if made > self.tar_size:
                break
            if number & 1:
                yield b"", length
                continue
            if length > len(data) - at:
                raise _damaged("its stream is cut short")
            yield data[at : at + length], 0
            at += length
        if made != self.tar_size:
            raise _damaged(f"its stream is that of a tar of {made} bytes")


def _inflated(data: bytes, limits: Limits) -> bytes:
    import zstandard

    most = limits.layer_memory or (1 << 40)
    frame = zstandard.ZstdDecompressor().decompressobj()
    made = bytearray()
    try:
        for at in range(0, len(data), 64 << 10):  # little by little: what it inflates to is told by nobody
            made += frame.decompress(data[at : at + (64 << 10)])
            if len(made) > most:
                raise LimitExceeded("the index of a layer", setting="max-layer-memory", limit=most, met=None)
    except zstandard.ZstdError as error:
        raise _damaged(str(error)) from None
    if not frame.eof:
        raise _damaged("it is cut short")
    return bytes(made)


def _read(data: bytes) -> LayerIndex:
    if not data.startswith(_MAGIC):
        raise ValueError("it does not begin as one")
    head_size, point_count, stream_size = _LENGTHS.unpack_from(data, len(_MAGIC))
    at = len(_MAGIC) + _LENGTHS.size
    head = json.loads(data[at : at + head_size])
    tar_size, chunk = _count(head, "tarSize"), _count(head, "chunkSize")
    if not _CHUNKS[0] <= chunk <= _CHUNKS[1] or chunk & (chunk - 1):
        raise ValueError(f"its chunks have {chunk} bytes")
    at += head_size
    hashes_end = at + -(-tar_size // chunk) * _HASH
    points_end = hashes_end + point_count * _POINT.size
    if points_end + stream_size != len(data):
        raise ValueError("its parts are not as long as it says")
    points = tuple(
        Point(out, place, bit, (offset, length))
        for out, place, bit, offset, length in _POINT.iter_unpack(data[hashes_end:points_end])
    )
    windows = head.get("windows")
    return LayerIndex(
        blob=digests.parse(head["blob"]),
        size=_count(head, "size"),
        compression=str(head["compression"]),
        diff_id=DiffID(digests.parse(head["diffID"])),
        tar_size=tar_size,
        chunk=chunk,
        hashes=data[at:hashes_end],
        points=points,
        stream=data[points_end:],
        windows=None if windows is None else digests.parse(windows),
        windows_size=0 if windows is None else _count(head, "windowsSize"),
    )


def _count(head: dict[str, Any], name: str) -> int:
    value = head[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError(f"{name} is {value!r}")
    return value


def _check(index: LayerIndex) -> None:
    if index.compression not in ("gzip", "zstd", "none"):
        raise _damaged(f"it is of a layer compressed with {index.compression!r}")
    if index.compression == "none":
        if index.size != index.tar_size or index.points:
            raise _damaged("it is of a plain layer, with points")
        return
    if not index.points or index.points[0].out:
        raise _damaged("it has no point at the beginning")
    _check_order(index.points, index.tar_size, index.size)
    for point in index.points:
        offset, length = point.window
        if point.bit > 7 or length > 64 << 10 or offset + length > index.windows_size:
            raise _damaged("one of its points cannot be")


def _check_order(points: Sequence[Point], tar_size: int, size: int) -> None:
    outs = [*(point.out for point in points), tar_size]
    places = [*(point.at for point in points), size]
    for numbers, whose in ((outs, "the tar"), (places, "the blob")):
        for before, after in itertools.pairwise(numbers):
            if not 0 <= after - before <= FARTHEST:
                raise _damaged(f"{after - before} bytes of {whose} lie between two of its points")


def _damaged(what: str) -> InvalidArchive:
    return InvalidArchive(f"the index of a layer is damaged: {what}", remedy=_BROKEN)
