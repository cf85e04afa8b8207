"""The skeleton file: what of a layer's tar is not file payload, and the index of its files.

Two zstd frames, the stream and the index (diff/index.h has both formats), between a magic number and a trailer with
their lengths. Whatever it says is checked by its user: an export by the DiffID, the index by its reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from layerstore.errors import Damaged

_MAGIC = b"LSSKEL1\n"
_TRAILER = struct.Struct("<QQ8s")
_LEVEL = 1
_PIECE = 1 << 18


class _Skeleton:
    """A file that is closed at the end of a `with` block."""

    _file: BinaryIO

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class SkeletonWriter(_Skeleton):
    """Writes a skeleton: the stream in pieces, then the index. Without `close` the file is not a skeleton."""

    def __init__(self, path: Path) -> None:
        import zstandard  # here and below: most commands read no skeleton, and it takes 15 ms

        self._file = path.open("xb", buffering=0)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._frame = self._compressor.compressobj()
        self._file.write(_MAGIC)

    def add(self, piece: bytes | memoryview) -> None:
        """Append tokens to the stream."""
        self._file.write(self._frame.compress(piece))

    def close(self, index: bytes | memoryview) -> None:
        """End the stream, write the index and the trailer."""
        self._file.write(self._frame.flush())
        stream_end = self._file.tell()
        self._file.write(self._compressor.compress(index))
        index_end = self._file.tell()
        self._file.write(_TRAILER.pack(stream_end - len(_MAGIC), index_end - stream_end, _MAGIC))
        self._file.close()


class SkeletonReader(_Skeleton):
    """Reads a skeleton. Raises `Damaged` when the file is none, or is cut short."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise Damaged(f"the skeleton {path.name} is missing", path=path) from None
        try:
            self._stream, self._index = self._lengths()
        except BaseException:
            self._file.close()
            raise

    def _lengths(self) -> tuple[int, int]:
        """Of the two frames, from the trailer."""
        size = self._file.seek(0, 2)
        self._file.seek(max(size - _TRAILER.size, 0))
        trailer = self._file.read(_TRAILER.size)
        if len(trailer) != _TRAILER.size:
            raise self._damaged()
        stream, index, magic = _TRAILER.unpack(trailer)
        if magic != _MAGIC or len(_MAGIC) + stream + index + _TRAILER.size != size:
            raise self._damaged()
        return stream, index

    def _damaged(self) -> Damaged:
        return Damaged(f"the skeleton {self._path.name} is damaged", path=self._path)

    def index(self) -> bytes:
        """The index, whole."""
        import zstandard

        self._file.seek(len(_MAGIC) + self._stream)
        try:
            return zstandard.ZstdDecompressor().decompress(self._file.read(self._index))
        except zstandard.ZstdError:
            raise self._damaged() from None

    def stream(self) -> Iterator[bytes]:
        """The stream, in pieces."""
        import zstandard

        self._file.seek(len(_MAGIC))
        frame = zstandard.ZstdDecompressor().decompressobj()
        left = self._stream
        try:
            while left:
                piece = self._file.read(min(left, _PIECE))
                if not piece:
                    raise self._damaged()
                left -= len(piece)
                yield frame.decompress(piece)
        except zstandard.ZstdError:
            raise self._damaged() from None
