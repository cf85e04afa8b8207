"""Tables of contents: what a compressed layer says of itself, so that one file of it can be read by a range.

Two forms are known, and are the same for whoever reads them. eStargz (containerd/stargz-snapshotter, docs/estargz.md)
has a gzip member for each piece of a file, and its table in the last but one. zstd:chunked (containers/storage,
pkg/chunked) has a zstd frame for each, and its table in a frame that readers skip. A table is believed only where the
manifest names its digest, which the image's digest covers; the digest of each piece is in the table. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from attrs import field

from layerstore.digest import Digest
from layerstore.errors import InvalidArchive
from layerstore.manifests.fields import as_digest, as_list, as_object, parse_object
from layerstore.manifests.reading import Descriptor
from layerstore.values import define, frozen

__all__ = ["FOOTER", "TABLE_FILE", "Piece", "TableEntry", "TablePlace", "place_in_footer", "place_of", "read_table"]

FOOTER: Final = 51
"""Bytes of eStargz's footer, at the end of the blob."""

TABLE_FILE: Final = "stargz.index.json"
"""The one file of the tar in which eStargz has its table."""

_STARGZ: Final = "containerd.io/snapshot/stargz/toc.digest"
_CHUNKED: Final = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.")
_POSITION: Final = re.compile(r"(\d{1,19}):(\d{1,19}):(\d{1,19}):1")
_FOOTER: Final = re.compile(rb"\x1f\x8b\x08\x04.{6}\x1a\0SG\x16\0([0-9a-f]{16})STARGZ.*", re.DOTALL)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_TYPES: Final = ("reg", "dir", "symlink", "hardlink", "char", "block", "fifo")
_LANDMARKS: Final = (".prefetch.landmark", ".no.prefetch.landmark", TABLE_FILE)
"""eStargz's own names in the root, which are no files of the image."""
_LARGEST: Final = 1 << 62


@frozen
class TablePlace:
    """Where a layer's table lies. `digest` is that of the table as JSON, or, if `of_compressed`, as it lies there.

    `start` None: the footer says it (`place_in_footer`). `end` is the first byte behind it. `size`: of the JSON, if it
    is known.
    """

    form: str
    """`gzip` (eStargz) or `zstd` (zstd:chunked): also how pieces are compressed."""
    digest: Digest
    of_compressed: bool
    start: int | None
    end: int
    size: int | None = None


@frozen
class Piece:
    """Bytes of a file, compressed by themselves: `size` of them, from `offset` in the file on.

    In the blob they lie from `start` to before `end`, behind `skip` others that are inflated with them. Without a place
    they are zeros. `digest` is that of the bytes.
    """

    offset: int
    size: int
    start: int
    end: int
    digest: Digest | None
    skip: int = 0
    is_zeros: bool = False


@frozen
class TableEntry:
    """One entry of a layer's tar, as its table has it. `name` is as the tar has it, whiteouts too."""

    name: str
    type: str
    """`reg`, `dir`, `symlink`, `hardlink`, `char`, `block`, `fifo`."""
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: str
    device: tuple[int, int]
    xattrs: Mapping[str, bytes]
    pieces: tuple[Piece, ...] = field(repr=False)


def place_of(descriptor: Descriptor) -> TablePlace | None:
    """Where the table of a layer lies, by what the manifest says of it; None if it names none that can be verified."""
    notes = descriptor.annotations
    for prefix in _CHUNKED:
        found = _POSITION.fullmatch(notes.get(f"{prefix}manifest-position", ""))
        digest = _digest(notes.get(f"{prefix}manifest-checksum"))
        if found is not None and digest is not None:
            start, length, size = map(int, found.groups())
            if start + length <= descriptor.size:
                return TablePlace("zstd", digest, True, start, start + length, size)
    digest = _digest(notes.get(_STARGZ))
    if digest is None or descriptor.size < FOOTER:
        return None
    return TablePlace("gzip", digest, False, None, descriptor.size - FOOTER)


def place_in_footer(footer: bytes) -> int | None:
    """Where eStargz's table begins, by the last `FOOTER` bytes of the blob; None: that is no footer."""
    found = _FOOTER.fullmatch(footer) if len(footer) == FOOTER else None
    return None if found is None else int(found[1], 16)


def read_table(data: bytes, end: int, what: str) -> list[TableEntry]:
    """The entries of a table, which is `data` (JSON), in the order of the tar. Raises `InvalidArchive`.

    `end`: where in the blob the pieces of all files end.
    """
    fields = parse_object(data, what)
    if fields.get("version") != 1:
        raise InvalidArchive(f"{what} has version {fields.get('version')!r}, which is not known")
    raw = [_Raw(as_object(value, what), what) for value in as_list(fields.get("entries"), what)]
    ends = _Ends([one.number("offset") for one in raw], end)
    entries: list[TableEntry] = []
    at = 0
    while at < len(raw):
        one, at = raw[at], at + 1
        rest = []
        while at < len(raw) and raw[at].fields.get("type") == "chunk":
            rest.append(raw[at])
            at += 1
        if one.fields.get("type") not in _TYPES:
            raise InvalidArchive(f"{what} has an entry of type {one.fields.get('type')!r}, which is not known")
        if one.text("name").removeprefix("./") not in _LANDMARKS:
            entries.append(_entry(one, rest, ends))
    return entries


@define
class _Raw:
    """An entry as JSON has it."""

    fields: dict[str, Any]
    what: str

    def text(self, key: str) -> str:
        value = self.fields.get(key, "")
        if not isinstance(value, str) or "\0" in value:
            raise InvalidArchive(f"{self.what}: {key} is no text: {value!r}")
        return value

    def number(self, key: str) -> int:
        value = self.fields.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
            raise InvalidArchive(f"{self.what}: {key} is no size or number: {value!r}")
        return value

    def digest(self, key: str) -> Digest | None:
        value = self.fields.get(key)
        return None if not value else as_digest(value, f"{self.what}: {key}")


class _Ends:
    """Where each piece ends: where the next one of the blob begins."""

    def __init__(self, offsets: Sequence[int], end: int) -> None:
        known = [*sorted({offset for offset in offsets if offset}), end]
        self._after = dict(pairwise(known))
        self._end = end

    def of(self, offset: int, stated: int) -> int:
        return min(self._after.get(offset, self._end), stated or self._end)


def _entry(one: _Raw, rest: Sequence[_Raw], ends: _Ends) -> TableEntry:
    size = one.number("size")
    kind = one.text("type")
    return TableEntry(
        name=one.text("name"),
        type=kind,
        mode=one.number("mode") & 0o7777,
        uid=one.number("uid"),
        gid=one.number("gid"),
        size=size if kind == "reg" else 0,
        mtime_ns=_nanoseconds(one.text("modtime")),
        target=one.text("linkName"),
        device=(one.number("devMajor"), one.number("devMinor")),
        xattrs=dict(_xattrs(one)),
        pieces=tuple(_pieces(one, rest, size, ends)) if kind == "reg" and size else (),
    )


def _pieces(one: _Raw, rest: Sequence[_Raw], size: int, ends: _Ends) -> Iterator[Piece]:
    """The pieces of a file, which have to be the whole of it, one after the other."""
    last = one.number("endOffset")
    at = 0
    for number, raw in enumerate((one, *rest)):
        offset, start = raw.number("chunkOffset"), raw.number("offset")
        count = raw.number("chunkSize") or size - offset
        if offset != at or count <= 0 or offset + count > size:
            raise InvalidArchive(f"{one.what}: the pieces of {one.text('name')} are not the whole of it")
        at += count
        zeros = raw.text("chunkType") == "zeros"
        end = ends.of(start, last if number == len(rest) else 0)
        if not zeros and not 0 < start < end:
            raise InvalidArchive(f"{one.what}: a piece of {one.text('name')} lies nowhere")
        digest = raw.digest("chunkDigest") or (one.digest("digest") if not rest else None)
        yield Piece(offset, count, start, end, digest, raw.number("innerOffset"), zeros)
    if at != size:
        raise InvalidArchive(f"{one.what}: the pieces of {one.text('name')} are not the whole of it")


def _xattrs(one: _Raw) -> Iterator[tuple[str, bytes]]:
    for name, value in as_object(one.fields.get("xattrs") or {}, f"{one.what}: xattrs").items():
        try:
            yield name, base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InvalidArchive(f"{one.what}: the xattr {name!r} is no base64") from None


def _nanoseconds(text: str) -> int:
    """Since 1970, of a time as RFC 3339 has it; 0 of none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return 0
    try:
        moment = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError):
        return 0
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return seconds * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))


def _digest(text: str | None) -> Digest | None:
    try:
        return None if text is None else as_digest(text, "annotation")
    except InvalidArchive:
        return None
