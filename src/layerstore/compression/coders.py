"""The compressors whose bytes can be made again, each with the settings in which layers are met.

`go` is Go's compress/gzip: docker, BuildKit, ko. `pigz` made the base layers of Debian's images. `zlib` stands for all
that call zlib in one stream: Python's gzip, Java's (jib), Node's. `isal` is python-isal's threaded writer, which is our
own. `zstd` is libzstd, without a dictionary. The header of gzip is kept as it is.
"""

from __future__ import annotations

import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final, Protocol

Write = Callable[[memoryview], object]
Settings = Mapping[str, int]

GZIP_LEVEL: Final = 3
"""Of isal: its best. 9 % larger than gzip -6, and ten times as fast."""
ZSTD_LEVEL: Final = 3
THREADS: Final = min(4, os.cpu_count() or 1)
"""Threads that compress one stream. The bytes do not depend on how many they are, but zstd's on there being any."""

SIP: Final = 96 << 10
"""Bytes of a tar on which a candidate is tried first: most fall here. Then on three times as much."""

_BLOCK: Final = 1 << 20
"""Bytes of a tar that isal's threaded writer takes at a time."""

_SHORT: Final = 10
"""Bytes of a gzip header that holds no name."""

_UNIX, _UNKNOWN_SYSTEM = 3, 255

_BEST, _FASTEST = 2, 4
"""What the byte XFL of a gzip header says of the level (RFC 1952, section 2.3.1)."""


class Coder(ABC):
    """One of them."""

    name: str
    own: Settings
    """The settings in which `streams.compressing` uses it, or the usual ones."""

    def own_header(self) -> bytes:
        """What stands before."""
        return b""

    @property
    @abstractmethod
    def library(self) -> str:
        """The version of what does the work."""

    @abstractmethod
    def candidates(self, header: bytes, begin: bytes, *, rare: bool) -> Iterator[Settings]:
        """The settings in which it may have written a blob with this header and this beginning, the likeliest first.

        `rare`: those that are hardly met, and no others.
        """

    @abstractmethod
    def attempt(self, settings: Settings, tar: memoryview, size: int, *, is_all: bool) -> Iterator[bytes]:
        """What it makes of a tar that begins so (`is_all`: that is all of it), piece by piece, without the header."""

    @abstractmethod
    def making(self, settings: Settings, size: int, write: Write) -> Any:
        """A context manager that gives a function to call with the tar; at its end all is written but the header."""


class _Deflating(Protocol):
    def feed(self, data: memoryview) -> bytes: ...
    def finish(self) -> bytes: ...
    def close(self) -> None: ...


class _Gzip(Coder):
    """Those that write gzip's trailer (RFC 1952) after one stream of deflate."""

    @abstractmethod
    def deflating(self, settings: Settings, *, is_trial: bool) -> _Deflating:
        """The stream. `is_trial`: of what is compared at once, a little."""

    def attempt(self, settings: Settings, tar: memoryview, size: int, *, is_all: bool) -> Iterator[bytes]:
        with closing(_Framed(self.deflating(settings, is_trial=True))) as coder:
            yield coder.feed(tar[:SIP])
            yield coder.feed(tar[SIP : len(tar) if is_all else 3 * SIP])
            if is_all:
                yield coder.finish()

    @contextmanager
    def making(self, settings: Settings, size: int, write: Write) -> Iterator[Write]:
        with closing(_Framed(self.deflating(settings, is_trial=False))) as coder:

            def feed(data: memoryview) -> None:
                if piece := coder.feed(data):
                    write(memoryview(piece))

            yield feed
            write(memoryview(coder.finish()))


class _Framed:
    def __init__(self, deflating: _Deflating) -> None:
        self._deflating = deflating
        self._crc = 0
        self._size = 0

    def feed(self, data: memoryview) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        return self._deflating.feed(data)

    def close(self) -> None:
        self._deflating.close()

    def finish(self) -> bytes:
        return self._deflating.finish() + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)


class Go(_Gzip):
    """Go's compress/gzip, as it was up to Go 1.26."""

    name = "go"
    library = "go1.26"

    def __init__(self) -> None:
        self.own = {"level": 6}

    def candidates(self, header: bytes, begin: bytes, *, rare: bool) -> Iterator[Settings]:
        if len(header) == _SHORT and not any(header[3:8]) and header[9] == _UNKNOWN_SYSTEM:
            hinted = {_BEST: 9, _FASTEST: 1}.get(header[8], 6)
            yield from ({"level": level} for level in ((5, 4, 7, 8) if rare else (hinted,)))

    def deflating(self, settings: Settings, *, is_trial: bool) -> _Deflating:
        from layerstore.compression.goflate import Deflate

        return Deflate(settings["level"])


class Pigz(_Gzip):
    """pigz, by two threads or more."""

    name = "pigz"

    def __init__(self) -> None:
        self.own = {"level": 6}

    @property
    def library(self) -> str:
        return zlib.ZLIB_RUNTIME_VERSION

    def candidates(self, header: bytes, begin: bytes, *, rare: bool) -> Iterator[Settings]:
        if header and header[9] == _UNIX:
            hinted = {_BEST: 9, _FASTEST: 1}.get(header[8], 6)
            yield from ({"level": level} for level in ((5, 7, 8, 4, 3, 2) if rare else (hinted,)))

    def deflating(self, settings: Settings, *, is_trial: bool) -> _Deflating:
        from layerstore.compression.pigz import Deflate

        return Deflate(settings["level"], 1, ahead=0) if is_trial else Deflate(settings["level"], THREADS)


class Zlib(_Gzip):
    """zlib's deflate."""

    name = "zlib"

    def __init__(self) -> None:
        self.own = {"level": 6, "memory": 8}

    @property
    def library(self) -> str:
        return zlib.ZLIB_RUNTIME_VERSION

    def candidates(self, header: bytes, begin: bytes, *, rare: bool) -> Iterator[Settings]:
        if not header:
            return
        hinted = {_BEST: 9, _FASTEST: 1}.get(header[8], 6)
        if rare:
            yield from ({"level": level, "memory": 8} for level in (6, 9, 1, 5, 4, 7, 3, 2, 8) if level != hinted)
        else:
            yield from ({"level": hinted, "memory": memory} for memory in (8, 9))

    def deflating(self, settings: Settings, *, is_trial: bool) -> _Deflating:
        return _ZlibStream(settings)


class _ZlibStream:
    def __init__(self, settings: Settings) -> None:
        self._deflate = zlib.compressobj(settings["level"], zlib.DEFLATED, -15, settings["memory"])
        self.feed = self._deflate.compress
        self.finish = self._deflate.flush

    def close(self) -> None:
        pass


class Isal(Coder):
    """python-isal's threaded writer: blocks of 1 MiB, each with the end of the one before as its dictionary."""

    name = "isal"

    def __init__(self) -> None:
        self.own = {"level": GZIP_LEVEL}

    @property
    def library(self) -> str:
        import isal

        return f"{isal.__version__}/{isal.ISAL_VERSION}"

    def own_header(self) -> bytes:
        # Its version decides: 1.9 puts the two last bytes in the wrong order.
        made = bytearray()
        with self._writer(made.extend, self.own, 1):
            pass
        return bytes(made[:_SHORT])

    def candidates(self, header: bytes, begin: bytes, *, rare: bool) -> Iterator[Settings]:
        if len(header) == _SHORT and not any(header[3:8]):  # neither a name nor a time
            yield from ({"level": level} for level in ((2, 1, 0) if rare else (3,)))

    def attempt(self, settings: Settings, tar: memoryview, size: int, *, is_all: bool) -> Iterator[bytes]:
        made = bytearray()
        with self._writer(made.extend, settings, 1) as writer:
            writer.write(tar[:_BLOCK])
            writer.flush()
            yield bytes(made[_SHORT:])
            if is_all and len(tar) > _BLOCK:
                writer.write(tar[_BLOCK:])
            done = len(made)
        if is_all:
            yield bytes(made[done:])

    @contextmanager
    def making(self, settings: Settings, size: int, write: Write) -> Iterator[Write]:
        left = _SHORT

        def without_header(data: memoryview) -> None:
            nonlocal left
            skipped = min(left, len(data))
            left -= skipped
            if len(data) > skipped:
                write(data[skipped:])

        with self._writer(without_header, settings, THREADS) as writer:
            blocks = _Blocks(writer.write)
            yield blocks.feed
            blocks.finish()

    @contextmanager
    def _writer(self, write: Callable[[memoryview], object], settings: Settings, threads: int) -> Iterator[Any]:
        from isal import igzip_threaded

        make: Any = igzip_threaded.open
        with make(Sink(write), "wb", settings["level"], threads=threads) as writer:
            yield writer


class _Blocks:
    """Passes on what it is given in blocks of one size: the writer makes of each piece what it is given at once."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._block = bytearray(_BLOCK)
        self._filled = 0

    def feed(self, data: memoryview) -> None:
        data = memoryview(data).cast("B")
        while data:
            count = min(len(data), _BLOCK - self._filled)
            self._block[self._filled : self._filled + count] = data[:count]
            self._filled += count
            data = data[count:]
            if self._filled == _BLOCK:
                self.finish()

    def finish(self) -> None:
        if self._filled:
            self._write(memoryview(self._block)[: self._filled])
            self._filled = 0


class Zstd(Coder):
    """libzstd in one frame, by one thread or by several: their bytes differ."""

    name = "zstd"

    def __init__(self) -> None:
        self.own = {"level": ZSTD_LEVEL, "threads": 1, "checksum": 0, "sized": 0}

    @property
    def library(self) -> str:
        import zstandard

        return f"{zstandard.__version__}/{'.'.join(str(part) for part in zstandard.ZSTD_VERSION)}"

    def candidates(self, header: bytes, begin: bytes, *, rare: bool) -> Iterator[Settings]:
        import zstandard

        try:
            frame = zstandard.get_frame_parameters(begin)
        except zstandard.ZstdError:
            return
        if frame.dict_id:
            return
        sized = int(frame.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, 0))
        for level in (5, 6, 4, 7, 8, 9) if rare else (3, 1, 2):
            window = 1 << zstandard.ZstdCompressionParameters.from_level(level).window_log
            if sized or frame.window_size == window:
                for threads in (0, 1):
                    checksum = int(frame.has_checksum)
                    yield {"level": level, "threads": threads, "checksum": checksum, "sized": sized}

    def attempt(self, settings: Settings, tar: memoryview, size: int, *, is_all: bool) -> Iterator[bytes]:
        made = bytearray()
        with self._writer(made.extend, settings, size, 1, is_all=is_all) as writer:
            if not settings["threads"]:
                writer.write(tar[: 3 * SIP])
                yield bytes(made)
                made.clear()
            writer.write(tar[0 if settings["threads"] else 3 * SIP :])
            if settings["threads"] and not is_all:
                # Several threads have much more in hand before they write anything. A flush ends what they have begun,
                # earlier than it would have; what comes before that is the same.
                writer.flush()
                del made[len(made) // 2 :]
            yield bytes(made)
            done = len(made)
        if is_all:
            yield bytes(made[done:])

    @contextmanager
    def making(self, settings: Settings, size: int, write: Write) -> Iterator[Write]:
        with self._writer(write, settings, size, THREADS, is_all=True) as writer:
            yield writer.write

    @contextmanager
    def _writer(self, write: Write, settings: Settings, size: int, threads: int, *, is_all: bool) -> Iterator[Any]:
        import zstandard

        compressor: Any = zstandard.ZstdCompressor(
            level=settings["level"],
            threads=threads if settings["threads"] else 0,
            write_checksum=bool(settings["checksum"]),
            write_content_size=bool(settings["sized"]),
        )
        writer = compressor.stream_writer(Sink(write), size=size if settings["sized"] else -1, closefd=False)
        yield writer
        if is_all:
            writer.close()


class Sink:
    """A function, as a file that can only be written to."""

    def __init__(self, write: Callable[[memoryview], object]) -> None:
        self._write = write

    def write(self, data: Any) -> int:
        """Pass it on."""
        view = memoryview(data).cast("B")
        self._write(view)
        return len(view)

    def flush(self) -> None:
        """Nothing waits here."""
