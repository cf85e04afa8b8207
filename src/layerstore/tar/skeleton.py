"""The skeleton file: what of a layer's tar is not file payload, and the index of its files.

Two zstd frames, the stream and the index (tar/index.h has both formats), between a magic number and a trailer with
their lengths. Whatever it says is checked by its user: an export by the DiffID, the index by its reader.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Self

from layerstore.errors import Damaged, KernelError, LayerstoreError, named
from layerstore.kernel.files.descriptors import private

_MAGIC = b"LSSKEL1\n"
_TRAILER = struct.Struct("<QQ8s")
_LEVEL = 1
_PIECE = 1 << 18


def shadow_of(skeleton: Path) -> Path:
    """The folder beside a skeleton, for files that the tar itself replaces. Most layers have none."""
    return skeleton.with_name(skeleton.name + ".shadowed")


class SkeletonWriter:
    """Writes a skeleton: the stream in pieces, then the index. Without `close` there is no file afterwards."""

    def __init__(self, path: Path) -> None:
        import zstandard  # here and below: most commands read no skeleton, and it takes 15 ms

        # With a checksum: a listing is what a stack looks like, and a bit of it may be that of a setuid program.
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self._frame = self._compressor.compressobj()
        self._path = path
        self._whole = False
        with named("open", path):
            self._file = FileIO(path, "xb", opener=private)
        try:
            self._write(_MAGIC)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def add(self, piece: bytes | memoryview) -> None:
        """Append tokens to the stream."""
        self._write(self._frame.compress(piece))

    def close(self, index: bytes | memoryview) -> None:
        """End the stream, write the index and the trailer."""
        self._write(self._frame.flush())
        stream_end = self._file.tell()
        self._write(self._compressor.compress(index))
        index_end = self._file.tell()
        self._write(_TRAILER.pack(stream_end - len(_MAGIC), index_end - stream_end, _MAGIC))
        with named("close", self._path):
            self._file.close()
        self._whole = True

    def _write(self, data: bytes) -> None:
        """All of it: a disk that fills up takes a part first, and says so only when it is asked again."""
        rest = memoryview(data)
        with named("write", self._path):
            while rest:
                rest = rest[self._file.write(rest) or 0 :]

    def _end(self) -> None:
        if not self._whole:
            with suppress(OSError):  # if it has to stay, then without a trailer, as what is no skeleton
                self._path.unlink()
            self._file.close()


class SkeletonReader:
    """Reads a skeleton. Raises `Damaged` when the file is none or cut short, `KernelError` when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with named("open", path):
                self._file = FileIO(path, "rb", opener=private)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            raise Damaged(f"the skeleton {path.name} is missing", path=path) from None
        try:
            self._stream, self._index = self._lengths()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def index(self) -> bytes:
        """The index, whole."""
        import zstandard

        # Not at one go: a damaged frame may say that it has petabytes, for which memory would be asked at once.
        frame = zstandard.ZstdDecompressor().decompressobj()
        packed = self._read(len(_MAGIC) + self._stream, self._index)
        try:
            index = frame.decompress(packed)
        except zstandard.ZstdError as error:
            raise self._wrong(error) from None
        if not frame.eof:
            raise self._damaged()
        return index

    def stream(self) -> Iterator[bytes]:
        """The stream, in pieces."""
        import zstandard

        frame = zstandard.ZstdDecompressor().decompressobj()
        for done in range(0, self._stream, _PIECE):
            packed = self._read(len(_MAGIC) + done, min(self._stream - done, _PIECE))
            try:
                piece = frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise self._wrong(error) from None
            yield piece

    def _lengths(self) -> tuple[int, int]:
        """Of the two frames, from the trailer."""
        with named("fstat", self._path):
            size = os.fstat(self._file.fileno()).st_size
        stream, index, magic = _TRAILER.unpack(self._read(size - _TRAILER.size, _TRAILER.size))
        begins = self._read(0, len(_MAGIC))
        if not begins == magic == _MAGIC or len(_MAGIC) + stream + index + _TRAILER.size != size:
            raise self._damaged()
        return stream, index

    def _read(self, at: int, count: int) -> bytes:
        """So many bytes, and no fewer."""
        found = b""
        if at < 0:
            raise self._damaged()
        with named("read", self._path):
            while len(found) < count:
                piece = os.pread(self._file.fileno(), count - len(found), at + len(found))
                if not piece:
                    raise self._damaged()
                found = found + piece if found else piece
        return found

    def _wrong(self, error: Exception) -> LayerstoreError:
        """What zstd's words mean: it has no other way to tell that there is no memory."""
        if "not enough memory" in str(error):
            return KernelError("malloc", errno.ENOMEM, path=self._path)
        return self._damaged()

    def _damaged(self) -> Damaged:
        return Damaged(f"the skeleton {self._path.name} is damaged", path=self._path)
