"""Pieces of a layer's tar, made of pieces of its blob, and proved chunk by chunk."""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, Final

from layerstore.errors import DigestMismatch, InvalidArchive
from layerstore.limits import USUAL, Limits
from layerstore.seekable import gzip, zstd
from layerstore.seekable.index import LayerIndex
from layerstore.values import frozen

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Hollow", "Ranges", "Span"]

_PLAIN: Final = 1 << 20
"""Bytes of a plain blob that are read at once, at least."""
_ZEROS: Final = memoryview(bytes(1 << 20))
_BEFORE, _AFTER = "before", "after"
_HALVES: Final = 64
"""Halves of chunks that are kept."""
_BEYOND: Final = 1
"""The byte in which a block ends that does not end with one."""


class Hollow:
    """The tar as a stream, with zeros in the place of file data."""

    def __init__(self, index: LayerIndex) -> None:
        self._tokens = index.tokens()
        self._known: bytes | memoryview = b""
        self._zeros = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer`; 0 at the end. Raises `InvalidArchive`."""
        while not self._known and not self._zeros:
            token = next(self._tokens, None)
            if token is None:
                return 0
            self._known, self._zeros = memoryview(token[0]), token[1]
        if self._known:
            count = min(len(self._known), len(buffer))
            buffer[:count] = self._known[:count]
            self._known = self._known[count:]
            return count
        count = min(self._zeros, len(buffer), len(_ZEROS))
        buffer[:count] = _ZEROS[:count]
        self._zeros -= count
        return count


@frozen
class Span:
    """Bytes of the tar that are had at once, from `begin` up to `end`; `number`: of the point that they begin at."""

    number: int
    begin: int
    end: int


class _Edges:
    """Halves of chunks, by the offset in the tar at which a span ends and the next begins. Thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = Lock()

    def has(self, side: str, at: int) -> bool:
        """Is that half there?"""
        with self._lock:
            return (side, at) in self._kept

    def take(self, side: str, at: int) -> bytes | None:
        """That half, which is not kept any more."""
        with self._lock:
            return self._kept.pop((side, at), None)

    def keep(self, side: str, at: int, data: bytes) -> None:
        """Keep it, as long as there are not too many later ones."""
        with self._lock:
            self._kept[side, at] = data
            if len(self._kept) > _HALVES:
                self._kept.popitem(last=False)


class Ranges:
    """The tar of a layer, by spans. `read` gives so many bytes of the blob from an offset, in pieces, `windows` of the
    windows'.

    It keeps halves of chunks that lie in two spans, and nothing else: whoever asks twice, reads twice. Thread-safe, as
    far as what it is given is.
    """

    def __init__(
        self,
        index: LayerIndex,
        read: Callable[[int, int], Iterable[bytes]],
        windows: Callable[[int, int], bytes],
        limits: Limits = USUAL,
        pool: Executor | None = None,
    ) -> None:
        """`pool`: windows are read there, while the blob is."""
        self._pool = pool
        self.index = index
        self._read = read
        self._windows = windows
        self._limits = limits
        self._outs = [point.out for point in index.points]
        self._edges = _Edges()

    def span_at(self, offset: int) -> Span:
        """The span that has this byte of the tar."""
        if not self._outs:
            number = offset // _PLAIN
            return Span(number, number * _PLAIN, min((number + 1) * _PLAIN, self.index.tar_size))
        number = bisect_right(self._outs, offset) - 1
        return Span(number, self._outs[number], self._end(number))

    def _pieces(self, span: Span) -> Iterator[bytes]:
        """The bytes of spans that follow each other, as they come. They are not proved."""
        size = span.end - span.begin
        if not size:
            return
        if self.index.compression == "none":
            yield from self._read(span.begin, size)
            return
        point = self.index.points[span.number]
        after = bisect_left(self._outs, span.end, span.number + 1)
        end = self.index.points[after].at + _BEYOND if after < len(self.index.points) else self.index.size
        later = None if self._pool is None or not point.window[1] else self._pool.submit(self._window, point.window)
        source = iter(self._read(point.at, min(end, self.index.size) - point.at))
        if self.index.compression == "zstd":
            yield from zstd.inflating(source, size, self._limits)
        else:
            first = next(source, b"")  # asked for before the window is waited for
            window = self._window(point.window) if later is None else later.result()
            yield from gzip.inflating(itertools.chain([first], source), point.bit, window, size)
        for _ in source:  # what is left of a reply would cost its connection
            pass

    def coming(self, first: int, last: int) -> range:
        """The chunks that `chunks` gives for these: those, and others that come along."""
        span = self._span_of(first, last)
        end = span.end if span.end < self.index.tar_size else self.index.chunks * self.index.chunk
        return range(min(-(-span.begin // self.index.chunk), first), max(end // self.index.chunk, last + 1))

    def _span_of(self, first: int, last: int) -> Span:
        """All that has to be read for these chunks, but for halves of them that are kept."""
        chunk, size = self.index.chunk, self.index.tar_size
        span, end = self.span_at(first * chunk), self.span_at(min((last + 1) * chunk, size) - 1)
        if span.end < min((first + 1) * chunk, size) and self._edges.has(_BEFORE, span.end):
            span = self.span_at(span.end)
        if max(span.begin, last * chunk) < end.begin and self._edges.has(_AFTER, end.begin):
            return Span(span.number, span.begin, end.begin)
        return Span(span.number, span.begin, end.end)

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """The chunks from `first` to `last`, each proved, and others that come along: numbers and bytes, as they come.

        All is one request, and one more for what has to be known before. Raises what `read` does, `InvalidArchive`;
        `DigestMismatch`, which names the layer, where a chunk is not what the index says.
        """
        index = self.index
        span = self._span_of(first, last)
        begin = span.begin + -span.begin % index.chunk  # of the first chunk that begins in it
        skip, kept, skipped = begin - span.begin, bytearray(), bytearray()
        if skip and (before := self._edges.take(_BEFORE, span.begin)) is not None:
            begin, skip, kept = span.begin - len(before), 0, bytearray(before)
        for data in itertools.chain(self._pieces(span), [None]):
            if data is None:  # what is kept is half a chunk, whose other half may be there
                data = self._edges.take(_AFTER, span.end) if kept else None
                if data is None:
                    break
            left = skip - len(skipped)
            skipped += data[:left]
            kept += data[left:]
            while kept and (len(kept) >= index.chunk or begin + len(kept) == index.tar_size):
                number, piece = begin // index.chunk, bytes(kept[: index.chunk])
                self._prove(number, piece)
                yield number, piece
                del kept[: len(piece)]
                begin += len(piece)
        if skip:
            self._edges.keep(_AFTER, span.begin, bytes(skipped))
        if kept:
            self._edges.keep(_BEFORE, span.end, bytes(kept))
        if begin < min((last + 1) * index.chunk, index.tar_size):
            raise InvalidArchive("what came of the layer is too short", layer=index.diff_id)

    def _prove(self, number: int, piece: bytes) -> None:
        if (found := hashlib.sha256(piece).digest()) != (wanted := self.index.hash_of(number)):
            at = number * self.index.chunk
            raise DigestMismatch(
                f"bytes {at} to {at + len(piece)} of the layer",
                expected=f"sha256:{wanted.hex()}",
                actual=f"sha256:{found.hex()}",
                layer=self.index.diff_id,
            )

    def _window(self, place: tuple[int, int]) -> bytes:
        import zstandard

        offset, length = place
        if not length:
            return b""
        with zstandard.ZstdDecompressor().stream_reader(self._windows(offset, length)) as reader:
            try:
                return reader.read(gzip.WINDOW)
            except zstandard.ZstdError:
                return b""  # what is made without it is wrong, and is found to be

    def _end(self, number: int) -> int:
        after = number + 1
        return self._outs[after] if after < len(self._outs) else self.index.tar_size
