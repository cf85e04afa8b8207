"""Zstd from the middle: a stream can be read from each of its frames on. Most are one frame, and can not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from layerstore.errors import InvalidArchive, LimitExceeded
from layerstore.limits import Limits
from layerstore.seekable.index import Point

__all__ = ["SPAN", "inflating", "points"]

SPAN: Final = 1 << 20
"""Bytes of the tar between two points, at least."""

_FIRST, _PIECE = 4 << 10, 256 << 10
_WIDEST: Final = 1 << 31
"""The window that zstd itself takes at most: what claims a wider one is no frame."""


def points(blob: Any, limits: Limits) -> Iterator[tuple[Point, int]]:
    """As `gzip.points`: nothing has to be known before a frame. Raises `InvalidArchive`, `LimitExceeded`."""
    view = memoryview(blob)
    at, out, last = 0, 0, -SPAN
    while at < len(view):
        if out - last >= SPAN:
            last = out
            yield Point(out, at), 0
        end, made = _frame(view, at, limits)
        at, out = end, out + made
    yield Point(out, at), 0


def _frame(view: memoryview, at: int, limits: Limits) -> tuple[int, int]:
    """Where a frame ends, and how much it inflates to."""
    import zstandard

    decoder = _decoder(limits).decompressobj()
    made, piece = 0, _FIRST
    try:
        while not decoder.eof:
            data = view[at : at + piece]
            if not data:
                raise _damaged("it is cut short")
            made += len(decoder.decompress(data))
            at += len(data)
            piece = min(piece * 2, _PIECE)
    except zstandard.ZstdError as error:
        raise _refused(error, limits) from None
    return at - len(decoder.unused_data), made


@contextmanager
def framing(write: Callable[[memoryview], object]) -> Iterator[Callable[[memoryview], object]]:
    """A function that compresses what it is given into `write`, in frames that can each be read by itself."""
    import zstandard

    compressor, held = zstandard.ZstdCompressor(), bytearray()

    def feed(data: memoryview) -> None:
        held.extend(data)
        while len(held) >= SPAN:
            write(memoryview(compressor.compress(held[:SPAN])))
            del held[:SPAN]

    yield feed
    if held:
        write(memoryview(compressor.compress(held)))


def inflating(pieces: Iterable[bytes], size: int, limits: Limits) -> Iterator[bytes]:
    """`size` bytes of what frames inflate to, little by little; the first begins them. Raises `InvalidArchive`."""
    import zstandard

    made = 0
    with _decoder(limits).stream_reader(_Pieces(pieces), read_across_frames=True) as reader:
        try:
            while made < size and (piece := reader.read(min(size - made, _PIECE))):
                made += len(piece)
                yield piece
        except zstandard.ZstdError as error:
            raise _refused(error, limits) from None
    if made != size:
        raise _damaged("what it inflates to is too short")


class _Pieces:
    """Pieces, as a file: each read gives one, or what is left of it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; none at the end."""
        if not self._rest:
            self._rest = next(self._pieces, b"")
        data, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return data


def _decoder(limits: Limits) -> Any:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=min(max(limits.zstd_window or _WIDEST, 1 << 10), _WIDEST))


def _refused(error: Exception, limits: Limits) -> InvalidArchive:
    if "too much memory" in str(error) and 0 < limits.zstd_window < _WIDEST:
        what = "the window of a zstd frame"
        return LimitExceeded(what, setting="max-zstd-window", limit=limits.zstd_window, met=None)
    return _damaged(str(error))


def _damaged(what: str) -> InvalidArchive:
    return InvalidArchive(f"the zstd data are damaged: {what}", remedy="Get the layer from its source again.")
