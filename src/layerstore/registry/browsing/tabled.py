"""A layer that is read by its table of contents. What each piece has to be is in it, and its digest in the manifest."""

from __future__ import annotations

import io
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from layerstore import digest
from layerstore.errors import DigestMismatch, InvalidArchive
from layerstore.kernel.files.positioned import Positioned
from layerstore.limits import Limits
from layerstore.manifests.tables import FOOTER, TABLE_FILE, Piece, TableEntry, TablePlace, place_in_footer, read_table
from layerstore.registry.browsing.blobs import Parts
from layerstore.registry.browsing.listing import ListedLayer
from layerstore.registry.client.manifests import ALTERED
from layerstore.tar import Lying, Unpacked, take_listing
from layerstore.trees import Tree

__all__ = ["TableReader"]

_BLOCK: Final = 512
_OCTAL: Final = re.compile(rb"[0-7]{1,11}")
_LETTERS: Final = {
    "reg": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
_LARGEST: Final = 256 << 20
"""Bytes of a table, inflated: some 800,000 entries. None has as many before."""
_LARGEST_PIECE: Final = 1 << 30
"""Bytes of a piece: it is proved as a whole, in memory. Most have 4 MiB, and some are whole files."""
_WINDOW: Final = 128 << 20
"""What zstd may ask a reader to remember."""
_TAIL: Final = 256 << 10
"""What is read at once from the end, where eStargz has its footer: many tables are no larger."""
_AHEAD: Final = 1 << 20
"""How many bytes of a file's next pieces are read with one, where it is read from front to end."""


class TableReader(ListedLayer):
    """See `ListedLayer`. What is listed is a tar of headers alone, made of the table."""

    def __init__(self, parts: Parts, below: Tree | None, place: TablePlace, limits: Limits) -> None:
        super().__init__(parts, below)
        self._place = place
        self._limits = limits
        self._files: list[TableEntry] = []
        """Those that have bytes, in the order of the tar."""

    def list_into(self, listing: Path, below: int | None) -> Unpacked:
        """See `ListedLayer`."""
        entries = self._entries()
        self._files = [entry for entry in entries if entry.type == "reg" and entry.size]
        return take_listing(
            _Headers(entries, self._parts.title), listing, below=below, bottom=self.is_bottom, limits=self._limits
        )

    def open_file(self, size: int, payload: int | None, lying: Lying | None) -> io.BufferedReader:
        """See `ListedLayer`."""
        entry = None if payload is None else self._files[payload]
        return io.BufferedReader(io.BytesIO() if entry is None else _File(self._parts, self._place.form, entry))

    # --- the table ---

    def _entries(self) -> list[TableEntry]:
        start, data = self._zstd() if self._place.form == "zstd" else self._estargz()
        what = f"the table of {self._parts.title}"
        entries = read_table(data, start, what)
        self._limits.check("max-layer-entries", len(entries), what, "entries")
        return entries

    def _zstd(self) -> tuple[int, bytes]:
        place = self._place
        assert place.start is not None  # which the manifest says of this form
        data = self._read_table(place.start, place.end)
        self._prove(data)
        return place.start, _inflated("zstd", data, min(place.size or _LARGEST, _LARGEST), self._parts.title)

    def _estargz(self) -> tuple[int, bytes]:
        size = self._parts.layer.size
        begin = max(size - _TAIL, 0)
        tail = self._parts.read(begin, size)
        start = place_in_footer(tail[-FOOTER:])
        if start is None or start >= self._place.end:
            raise InvalidArchive(f"{self._parts.title} has no table where it should have one")
        if start < begin:
            tail = self._read_table(start, begin) + tail
            begin = start
        tar = _inflated("gzip", tail[start - begin : self._place.end - begin], _LARGEST, self._parts.title)
        data = _only_file(tar, self._parts.title)
        self._prove(data)
        return start, data

    def _read_table(self, start: int, end: int) -> bytes:
        if end - start > _LARGEST:
            raise InvalidArchive(f"the table of {self._parts.title} would have {end - start} bytes: it is none")
        return self._parts.read(start, end)

    def _prove(self, data: bytes) -> None:
        actual = digest.of_bytes(data)
        if actual != self._place.digest:
            raise DigestMismatch(
                f"the table of {self._parts.title}", expected=self._place.digest, actual=actual, remedy=ALTERED
            )


def _only_file(tar: bytes, title: str) -> bytes:
    """What the one file of a tar has: it is as it came, in the place that its name and size have in every tar."""
    name, size = tar[:100].rstrip(b"\0"), tar[124:136].strip(b" \0")
    if name != TABLE_FILE.encode() or not _OCTAL.fullmatch(size) or len(tar) < _BLOCK:
        raise InvalidArchive(f"the table of {title} is not where it should be")
    return tar[_BLOCK : _BLOCK + int(size, 8)]


class _Headers:
    """A tar of the entries of a table, for the unpacker: each file has one byte, and is a hole from there on."""

    def __init__(self, entries: Sequence[TableEntry], title: str) -> None:
        self._rest = io.BytesIO()
        self._entries = iter(entries)
        self._title = title
        self._ended = False

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes; 0 at the end."""
        while not (count := self._rest.readinto(buffer)) and not self._ended:
            entry = next(self._entries, None)
            self._ended = entry is None
            self._rest = io.BytesIO(bytes(2 * _BLOCK) if entry is None else self._packed(entry))
        return count

    def _packed(self, entry: TableEntry) -> bytes:
        try:
            body = b"".join(_record(key, value) for key, value in _records(entry))
        except UnicodeEncodeError:
            raise InvalidArchive(f"the table of {self._title} has names that are no text at {entry.name!a}") from None
        has_data = entry.type == "reg" and entry.size
        device = entry.device if entry.type in ("char", "block") else (0, 0)
        own = _header(_LETTERS[entry.type], 1 if has_data else 0, entry.mode, device)
        return _header(b"x", len(body)) + body + bytes(-len(body) % _BLOCK) + own + (bytes(_BLOCK) if has_data else b"")


def _records(entry: TableEntry) -> Iterator[tuple[bytes, bytes]]:
    """What its header has no room for, as PAX has it (pax(1), "pax Interchange Format"; GNU's sparse files, 0.1)."""
    yield b"path", _bytes(entry.name)
    if entry.type in ("symlink", "hardlink"):
        yield b"linkpath", _bytes(entry.target)
    yield b"uid", b"%d" % entry.uid
    yield b"gid", b"%d" % entry.gid
    seconds, fraction = divmod(abs(entry.mtime_ns), 1_000_000_000)
    yield b"mtime", b"%s%d.%09d" % (b"-" if entry.mtime_ns < 0 else b"", seconds, fraction)
    if entry.type == "reg" and entry.size > 1:
        yield b"GNU.sparse.size", b"%d" % entry.size
        yield b"GNU.sparse.numblocks", b"2"
        yield b"GNU.sparse.map", b"0,1,%d,0" % entry.size
    for name, value in entry.xattrs.items():
        yield b"SCHILY.xattr." + _bytes(name), value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    return b"%d %s=%s\n" % (rest + len(str(length)), key, value)


def _number(value: int) -> bytes:
    return b"%07o\0" % value if value < 8**7 else b"\x80" + min(value, 1 << 48).to_bytes(7, "big")


def _header(letter: bytes, size: int, mode: int = 0, device: tuple[int, int] = (0, 0)) -> bytes:
    """A block; base 256 where a device's number has no room for octal digits. What is too large for any stays so."""
    major, minor = (
        b"%07o\0" % number if number < 8**7 else b"\x80" + min(number, 1 << 48).to_bytes(7, "big") for number in device
    )
    head = b"x".ljust(100, b"\0") + b"%07o\0" % mode + b"0000000\0" * 2 + b"%011o\0" % size + b"00000000000\0"
    rest = letter + bytes(100) + b"ustar\00000" + bytes(64) + major + minor
    total = sum(head) + 8 * ord(" ") + sum(rest)
    return (head + b"%06o\0 " % total + rest).ljust(_BLOCK, b"\0")


def _inflated(form: str, data: bytes, most: int, title: str) -> bytes:
    """What is compressed there, but no more than its first `most` bytes."""
    if form == "gzip":
        try:
            return zlib.decompressobj(31).decompress(data, most)
        except zlib.error as error:
            raise InvalidArchive(f"{title} cannot be inflated: {error}") from error
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(data, read_across_frames=True) as reader:
            return reader.read(most)
    except zstandard.ZstdError as error:
        raise InvalidArchive(f"{title} cannot be inflated: {error}") from error


class _File(Positioned):
    """A file of a layer, by its pieces, each proved before a byte of it is given out."""

    def __init__(self, parts: Parts, form: str, entry: TableEntry) -> None:
        self._parts = parts
        self._form = form
        self._entry = entry
        self._starts = [piece.offset for piece in entry.pieces]
        super().__init__(self._entry.size)
        self._number = -1
        """Of the piece that is inflated."""
        self._data = b""
        self._raw: tuple[int, bytes] = (0, b"")
        """What was read of the blob, and from where on."""

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._at >= self._entry.size or not view:
            return 0
        number = bisect_right(self._starts, self._at) - 1
        piece = self._entry.pieces[number]
        if piece.is_zeros:
            count = min(len(view), piece.offset + piece.size - self._at)
            view[:count] = bytes(count)
            self._at += count
            self._number, self._data = number, b""
            return count
        if number != self._number:
            self._data = self._piece(number)
            self._number = number
        begin = self._at - self._starts[number]
        part = self._data[begin : begin + len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _piece(self, number: int) -> bytes:
        piece = self._entry.pieces[number]
        title = f"/{self._entry.name.lstrip('./')} in {self._parts.title}"
        if piece.digest is None:
            raise InvalidArchive(f"{title}: its table does not say what it has to be")
        if max(piece.skip + piece.size, piece.end - piece.start) > _LARGEST_PIECE:
            raise InvalidArchive(
                f"{title}: a piece of it has more than {_LARGEST_PIECE >> 20} MiB",
                remedy="Pull the image, and look into it in the store.",
            )
        found = _inflated(self._form, self._compressed(number, piece), piece.skip + piece.size, title)
        data = found[piece.skip :]
        actual = digest.of_bytes(data)
        if actual != piece.digest:
            raise DigestMismatch(title, expected=piece.digest, actual=actual, remedy=ALTERED)
        return data

    def _compressed(self, number: int, piece: Piece) -> bytes:
        start, raw = self._raw
        if not start <= piece.start < piece.end <= start + len(raw):
            end = piece.end
            if number == self._number + 1 > 0:
                for later in self._entry.pieces[number + 1 :]:
                    if later.is_zeros or later.end - piece.start > _AHEAD:
                        break
                    end = max(end, later.end)
            start, raw = self._raw = piece.start, self._parts.read(piece.start, end)
        return raw[piece.start - start : piece.end - start]
