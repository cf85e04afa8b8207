"""Compressed streams: found by their first bytes, inflated in a thread of their own, their digest checked at the end.

The thread is there so that inflating and what happens to the tar (hashing it, writing files) go on at the same time; a
few pieces wait between the two, never more, whatever the stream inflates to. A plain stream passes straight through.
The name of a file and a media type are only claims: what counts is what the bytes say.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, Self

from layerstore.compression.frames import FRAME_MAGIC, SKIPPABLE_MAGIC, Frames
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, InvalidArchive, LimitExceeded
from layerstore.limits import USUAL, Limits
from layerstore.patience import look_up

if TYPE_CHECKING:
    from layerstore.compression.recipes import Taster
    from layerstore.tar import Readable

_INPUT: Final = 128 << 10
_PIECE: Final = 256 << 10
_WAITING: Final = 8
"""Pieces between the thread and its reader."""
_SMALL: Final = 16 << 10
"""Pieces that are smaller are gathered, see `_inflate`."""
_GLIMPSE: Final = 4 << 10
_BLOCK: Final = 512
"""Of a tar, in bytes: what a member or frame that is of use has at least."""

_NARROWEST: Final = 1 << 10
_WIDEST: Final = 1 << 31
"""The windows that the library of zstd can have (zstd.h, ZSTD_WINDOWLOG_MAX)."""
HEAD: Final = 6
"""The bytes by which a compression is known."""

COMPRESSIONS: Final = ("gzip", "zstd", "none")
"""What can be written. Read are bzip2 and xz as well."""


def sniff(head: bytes) -> str | None:
    """The compression that a stream with these first bytes has: "gzip", "zstd", "bzip2", "xz"; None if it is plain."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"BZh"):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    magic = int.from_bytes(head[:4], "little")
    if len(head) >= 4 and (magic == FRAME_MAGIC or magic & ~0xF == SKIPPABLE_MAGIC):
        return "zstd"
    return None


def open_stream(
    raw: Readable | BinaryIO,
    *,
    expect: Digest | None = None,
    limits: Limits = USUAL,
) -> Stream:
    """What `raw` holds, inflated if it is compressed. `raw` is read to its end, and stays open.

    `expect` is the digest of the bytes of `raw`. Whoever reads to the end knows that it was right; else the last
    `readinto` raises `DigestMismatch`. Damaged and truncated data raise `InvalidArchive`. `limits` are the usual ones,
    if none are given: what inflates to more, or wants more memory, raises `LimitExceeded`.
    """
    return open_tasted(raw, expect, None, limits)


def open_tasted(raw: Readable | BinaryIO, expect: Digest | None, taster: Taster | None, limits: Limits) -> Stream:
    """The same; `taster` is given what comes in and, if it is compressed, what goes out."""
    source = _Source(raw, expect, taster, limits)
    head = bytearray(HEAD)
    filled = 0
    while filled < HEAD and (count := source.fetch(memoryview(head)[filled:])):
        filled += count
    source.begin = bytes(head[:filled])
    compression = sniff(source.begin)
    return _Plain(source) if compression is None else _Inflated(source, compression)


class Stream(ABC):
    """The uncompressed bytes of a stream. A context manager; closing it ends its thread."""

    compression: str | None = None

    @abstractmethod
    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer`; 0 at the end of the stream."""

    def close(self, *, wait: bool = False) -> None:
        """Give back what the stream holds; `raw` stays open. `wait`: until nothing reads from `raw` any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Source:
    """The bytes as they come in, hashed if their digest is to be checked. `begin`: what was read ahead.

    `limits` are for whoever inflates them; `size` is how many have come.
    """

    def __init__(self, raw: Any, expect: Digest | None, taster: Taster | None, limits: Limits) -> None:
        self.begin = b""
        self.taster = taster
        self.limits = limits
        self.size = 0
        self._raw = raw
        self._expect = expect
        self._hash = None if expect is None else hashlib.sha256()
        self._ended = False

    def fetch(self, buffer: memoryview) -> int:
        """The next bytes of `raw`."""
        if self._ended:
            return 0
        count: int = self._raw.readinto(buffer)
        if not count:
            self._ended = True
            return 0
        self.size += count
        if self._hash is not None:
            self._hash.update(buffer[:count])
        if self.taster is not None:
            self.taster.blob(buffer[:count])
        return count

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes, those that were read ahead first."""
        if not self.begin:
            return self.fetch(buffer)
        count = min(len(self.begin), len(buffer))
        buffer[:count] = self.begin[:count]
        self.begin = self.begin[count:]
        return count

    def check_parts(self, what: str, count: int, made: int) -> None:
        """Raise `LimitExceeded` if so many members or frames, which made so many bytes, can be of no layer's tar.

        Each may be a file or a piece of one (eStargz, zstd:chunked, bgzip), so it has a block of the tar or more; those
        that have less are taken for entries.
        """
        most = self.limits.layer_entries
        if most and count > most + made // _BLOCK:
            unit = f"parts of less than {_BLOCK} bytes"
            raise LimitExceeded(what, setting="max-layer-entries", limit=most, met=None, unit=unit)

    def check(self) -> None:
        """After the end: raise `DigestMismatch` unless the digest is as expected."""
        if self._hash is not None and (actual := f"sha256:{self._hash.hexdigest()}") != self._expect:
            raise DigestMismatch("the blob", expected=str(self._expect), actual=actual)

    def drain(self) -> None:
        """Read what is left, so that the digest can be checked after the decoder gave up."""
        buffer = memoryview(bytearray(_INPUT))
        while self._hash is not None and self.readinto(buffer):
            pass


class _Plain(Stream):
    def __init__(self, source: _Source) -> None:
        self._source = source

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._source.readinto(buffer)
        if not count and len(buffer):
            self._source.check()
        return count


class _Inflated(Stream):
    """Pieces come from a thread through `_full`; each token in `_free` allows it one more."""

    def __init__(self, source: _Source, compression: str) -> None:
        self.compression = compression
        self._source = source
        self._pieces = _DECODERS[compression](source)
        self._piece = memoryview(b"")
        self._failure: BaseException | None = None
        self._ended = False
        self._full: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._free: SimpleQueue[bool] = SimpleQueue()
        for _ in range(_WAITING):
            self._free.put(True)
        self._thread = threading.Thread(target=self._run, name="layerstore-inflate", daemon=True)
        self._thread.start()

    def readinto(self, buffer: memoryview, /) -> int:
        if self._failure is not None:
            raise self._failure
        if not self._piece and not self._ended:
            self._next()
        count = min(len(self._piece), len(buffer))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        if self._source.taster is not None:
            self._source.taster.tar(buffer[:count])
        return count

    def close(self, *, wait: bool = False) -> None:
        self._ended = True
        self._free.put(False)
        # It ends at its next piece. One that waits for the other end of a pipe is left to itself: what it reads yet, it
        # throws away.
        self._thread.join(timeout=None if wait else 1)

    def _next(self) -> None:
        match self._arrived():
            case None:
                self._ended = True
            case BaseException() as error:
                self._failure = error
                raise error
            case piece:
                self._piece = memoryview(piece)
                self._free.put(True)

    def _arrived(self) -> bytes | BaseException | None:
        while True:
            try:
                return self._full.get(timeout=look_up())
            except Empty:
                pass

    def _run(self) -> None:
        size = 0
        try:
            while self._free.get():
                piece = next(self._pieces, None)
                if piece is None:
                    self._source.check()
                    self._full.put(None)
                    return
                size += len(piece)
                self._check_ratio(size)
                self._full.put(piece)
        except BaseException as error:
            self._full.put(self._verdict(error))

    def _check_ratio(self, size: int) -> None:
        limits = self._source.limits
        if limits.compression_ratio and size > limits.compression_floor:
            ratio = size // self._source.size
            limits.check(
                "max-compression-ratio", ratio, f"{self.compression} data of which {size:,} bytes came", "to 1"
            )

    def _verdict(self, error: BaseException) -> BaseException:
        """Data of the wrong digest is the reason for whatever a decoder makes of it."""
        if isinstance(error, InvalidArchive) and not isinstance(error, DigestMismatch | LimitExceeded):
            try:
                self._source.drain()
                self._source.check()
            except Exception as other:
                if isinstance(other, DigestMismatch):
                    other.__cause__ = error
                return other
        return error


class _Decompressor(Protocol):
    """What the decoders of isal, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Any, max_length: int) -> bytes: ...


class _Window:
    """What came of a source and was not used yet. More is read only when there is nothing left."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._buffer = memoryview(bytearray(_INPUT))
        self._at = self._end = 0

    @property
    def is_empty(self) -> bool:
        """Is more to be read before there is something?"""
        return self._at == self._end

    def take(self, most: int) -> memoryview:
        """The next bytes, at most so many; none at the end of the source."""
        if self._at == self._end:
            self._at, self._end = 0, self._source.readinto(self._buffer)
        begin, self._at = self._at, min(self._at + most, self._end)
        return self._buffer[begin : self._at]

    def give_back(self, count: int) -> None:
        """So many of the bytes that were taken last are still to come."""
        self._at -= count

    def begins(self, magic: bytes) -> bool | None:
        """Do these bytes come next, after any zeros? None: nothing but zeros comes."""
        while True:
            while self._at < self._end and not self._buffer[self._at]:
                some = bytes(self._buffer[self._at : min(self._at + _GLIMPSE, self._end)])
                self._at += len(some) - len(some.lstrip(b"\0"))
            found = bytes(self._buffer[self._at : min(self._at + len(magic), self._end)])
            if len(found) == len(magic):
                return found == magic
            self._buffer[: len(found)] = found
            count = self._source.readinto(self._buffer[len(found) :])
            self._at, self._end = 0, len(found) + count
            if not count:
                return False if found else None


def _inflate(
    source: _Source, make: Callable[[], _Decompressor], errors: Any, name: str, magic: bytes
) -> Iterator[bytes]:
    """Members one after the other, as gzip, bzip2 and xz allow; zeros may follow, as on tapes.

    There may be millions of them, with hardly anything in each: what came of those is gathered for as long as nothing
    has to be read, and a new one is shown little at first, for it copies what it does not need.
    """
    window, gathered, made, members = _Window(source), bytearray(), 0, 1
    decoder, most = make(), _INPUT
    while True:
        data: bytes | memoryview = b""
        if decoder.eof:
            window.give_back(len(decoder.unused_data))
            if window.is_empty and gathered:
                yield bytes(gathered)
                gathered.clear()
            if (is_next := window.begins(magic)) is None:
                break
            if not is_next:
                raise InvalidArchive(f"after the end of the {name} data there is something else")
            members += 1
            source.check_parts(f"{name} data", members, made)
            decoder, most = make(), _GLIMPSE
        if decoder.needs_input:
            if window.is_empty and gathered:
                yield bytes(gathered)
                gathered.clear()
            data, most = window.take(most), _INPUT
            if not data:
                raise _truncated(name)
        try:
            piece = decoder.decompress(data, _PIECE)
        except errors as error:
            raise _damaged(name, error) from error
        made += len(piece)
        if gathered or len(piece) < _SMALL:
            gathered += piece
            if len(gathered) < _PIECE:
                continue
            piece = bytes(gathered)
            gathered.clear()
        yield piece
    if gathered:
        yield bytes(gathered)


def _truncated(name: str) -> InvalidArchive:
    return InvalidArchive(f"the {name} data end too early", remedy="The archive was cut short: get it again.")


def _damaged(name: str, error: Exception) -> InvalidArchive:
    return InvalidArchive(f"the {name} data are damaged: {error}", remedy="Get the archive again.")


def _gzip(source: _Source) -> Iterator[bytes]:
    from isal import igzip_lib

    return _inflate(
        source,
        lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP),
        (igzip_lib.IsalError,),
        "gzip",
        b"\x1f\x8b",
    )


def _bzip2(source: _Source) -> Iterator[bytes]:
    import bz2

    return _inflate(source, bz2.BZ2Decompressor, (OSError, ValueError), "bzip2", b"BZh")


def _xz(source: _Source) -> Iterator[bytes]:
    import lzma

    most = source.limits.xz_memory or None
    pieces = _inflate(
        source,
        lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=most),
        (lzma.LZMAError,),
        "xz",
        b"\xfd7zXZ\0",
    )
    try:
        yield from pieces
    except InvalidArchive as error:
        if most is not None and "Memory usage limit" in str(error.__cause__):
            raise LimitExceeded("what xz has to remember", setting="max-xz-memory", limit=most, met=None) from None
        raise


def _zstd(source: _Source) -> Iterator[bytes]:
    import zstandard

    watched: Any = _Watched(source)
    window = min(max(source.limits.zstd_window or _WIDEST, _NARROWEST), _WIDEST)
    reader = zstandard.ZstdDecompressor(max_window_size=window).stream_reader(
        watched, read_size=_INPUT, read_across_frames=True, closefd=False
    )
    try:
        while piece := reader.read(_PIECE):
            watched.made += len(piece)
            yield piece
    except zstandard.ZstdError as error:
        raise _damaged("zstd", error) from error
    if not watched.frames.whole:
        raise _truncated("zstd")


class _Watched:
    """A source as zstandard reads it. One buffer is enough: it is asked for more when all of it is used."""

    def __init__(self, source: _Source) -> None:
        self.frames = Frames(
            lambda window: source.limits.check("max-zstd-window", window, "the window of a zstd frame")
        )
        self.made = 0
        self._source = source
        self._buffer = memoryview(bytearray(_INPUT))

    def read(self, _size: int) -> memoryview:
        # What has come is used, but what it made may not have been asked for yet, if it is less than a piece.
        self._source.check_parts("zstd data", self.frames.count, self.made + _PIECE)
        data = self._buffer[: self._source.readinto(self._buffer)]
        self.frames.feed(data)
        return data


_DECODERS: Final[dict[str, Callable[[_Source], Iterator[bytes]]]] = {
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "zstd": _zstd,
}


@contextmanager
def compressing(write: Callable[[memoryview], object], compression: str) -> Iterator[Callable[[memoryview], object]]:
    """A function that compresses what it is given into `write`. At the end of the block all has been written.

    `compression`: one of `COMPRESSIONS`. The same input gives the same bytes, without a time or a name in them, as long
    as the library behind it and the processor's vector instructions are the same.
    """
    if compression == "none":
        yield write
        return
    from layerstore.compression.recipes import making, own

    recipe = own(compression)
    assert recipe is not None
    with making(recipe, -1, write) as feed:
        yield feed
