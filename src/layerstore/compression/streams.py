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
from layerstore.limits import Limits
from layerstore.patience import GLANCE

if TYPE_CHECKING:
    from layerstore.compression.recipes import Taster
    from layerstore.tar import Readable

_INPUT: Final = 128 << 10
_PIECE: Final = 256 << 10
_WAITING: Final = 8
"""Pieces between the thread and its reader."""

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
    taster: Taster | None = None,
    limits: Limits | None = None,
) -> Stream:
    """What `raw` holds, inflated if it is compressed. `raw` is read to its end, and stays open.

    `expect` is the digest of the bytes of `raw`. Whoever reads to the end knows that it was right; else the last
    `readinto` raises `DigestMismatch`. Damaged and truncated data raise `InvalidArchive`. `taster` is given what comes
    in and, if it is compressed, what goes out. `limits` are the usual ones, if none are given: what inflates to more,
    or wants more memory, raises `LimitExceeded`.
    """
    source = _Source(raw, expect, taster, Limits() if limits is None else limits)
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
                return self._full.get(timeout=GLANCE)
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


def _inflate(
    source: _Source, make: Callable[[], _Decompressor], errors: Any, name: str, magic: bytes
) -> Iterator[bytes]:
    """Members one after the other, as gzip, bzip2 and xz allow; zeros may follow, as on tapes."""
    buffer = memoryview(bytearray(_INPUT))
    decoder = make()
    while True:
        data: bytes | memoryview = b""
        if decoder.eof:
            data = _next_member(source, buffer, decoder.unused_data, magic)
            if not data:
                return
            if data[: len(magic)] != magic:
                raise InvalidArchive(f"after the end of the {name} data there is something else")
            decoder = make()
        elif decoder.needs_input:
            data = buffer[: source.readinto(buffer)]
            if not data:
                raise _truncated(name)
        try:
            piece = decoder.decompress(data, _PIECE)
        except errors as error:
            raise _damaged(name, error) from error
        if piece:
            yield piece


def _next_member(source: _Source, buffer: memoryview, data: bytes, magic: bytes) -> bytes:
    """What follows a member, without the zeros between; empty at the end of the stream."""
    data = data.lstrip(b"\0")
    while len(data) < len(magic) and (count := source.readinto(buffer)):
        data = (data + bytes(buffer[:count])).lstrip(b"\0")
    return data


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
        self._source = source
        self._buffer = memoryview(bytearray(_INPUT))

    def read(self, _size: int) -> memoryview:
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
