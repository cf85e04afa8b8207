"""Tar archives, byte by byte.

`header` makes one 512-byte block with whatever is put in it, right or wrong. An `Entry` is what an entry of a layer
means, and how it is written down: `encode` puts it in one of the dialects of tar that are about (v7, ustar, GNU, PAX,
star, each kind of sparse file), `archive` puts entries together. Nothing here reads a tar, and nothing is shared with
the engine: what both agree on is the format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from attrs import evolve, field, fields_dict

from layerstore.values import frozen

BLOCK = 512
SECOND = 1_000_000_000
END = bytes(2 * BLOCK)
EPOCH = 1_000_000_000
"""The time of entries that do not care, in seconds: not zero, and no number that a clock shows today."""

Field = int | bytes


# --- blocks ----------------------------------------------------------------------------------------------------------


def octal(value: int, width: int) -> bytes:
    """A number as tar has it since 1979: octal digits, zeros in front, a NUL behind."""
    text = f"{value:0{width - 1}o}".encode() + b"\0"
    if value < 0 or len(text) > width:
        raise ValueError(f"{value} does not fit into {width} octal bytes")
    return text


def base256(value: int, width: int) -> bytes:
    """A number as GNU tar has it when octal digits are not enough: big-endian two's complement, top bit set."""
    raw = value.to_bytes(width, "big", signed=True)
    return bytes([raw[0] | 0x80]) + raw[1:]


def number(value: Field, width: int) -> bytes:
    """`value` in `width` bytes: bytes as they are, a number in octal where that can be, else base 256."""
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")
    if 0 <= value < 8 ** (width - 1):
        return octal(value, width)
    return base256(value, width)


def checksum(block: bytes, *, signed: bool = False) -> int:
    """The sum of a header's bytes, its own field counted as blanks. Old tars summed signed bytes."""
    blanked = block[:148] + b" " * 8 + block[156:]
    return sum(byte - 256 if signed and byte > 127 else byte for byte in blanked)


def sealed(block: bytes, *, signed: bool = False) -> bytes:
    """`block` with a right checksum."""
    return block[:148] + f"{checksum(block, signed=signed):06o}\0 ".encode() + block[156:]


USTAR_MAGIC = b"ustar\x0000"
GNU_MAGIC = b"ustar  \0"
V7_MAGIC = bytes(8)


def header(
    name: bytes = b"",
    *,
    typeflag: bytes = b"0",
    size: Field = 0,
    mode: Field = 0o644,
    uid: Field = 0,
    gid: Field = 0,
    mtime: Field = EPOCH,
    linkname: bytes = b"",
    magic: bytes = USTAR_MAGIC,
    uname: bytes = b"",
    gname: bytes = b"",
    major: Field = b"",
    minor: Field = b"",
    rest: bytes = b"",
    signed: bool = False,
) -> bytes:
    """One header block. `rest` is what follows the device numbers: the ustar prefix, or GNU's and star's fields."""
    block = b"".join(
        [
            name.ljust(100, b"\0"),
            number(mode, 8),
            number(uid, 8),
            number(gid, 8),
            number(size, 12),
            number(mtime, 12),
            b" " * 8,
            typeflag,
            linkname.ljust(100, b"\0"),
            magic,
            uname.ljust(32, b"\0"),
            gname.ljust(32, b"\0"),
            number(major, 8),
            number(minor, 8),
            rest.ljust(167, b"\0"),
        ]
    )
    if len(block) != BLOCK:
        raise ValueError("a field is too long for its place")
    return sealed(block, signed=signed)


def padded(data: bytes, filler: bytes = b"\0") -> bytes:
    """`data` filled up to whole blocks. Nobody says what the filling must be."""
    return data + filler * (-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """One line of a PAX header, which begins with its own length."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def pax(records: Iterable[tuple[bytes, bytes]], *, typeflag: bytes = b"x", name: bytes = b"PaxHeaders/entry") -> bytes:
    """A PAX extended header (`x`: of the next entry, `g`: of all that follow)."""
    return raw_pax(b"".join(record(key, value) for key, value in records), typeflag=typeflag, name=name)


def raw_pax(
    body: bytes, *, typeflag: bytes = b"x", name: bytes = b"PaxHeaders/entry", size: Field | None = None
) -> bytes:
    """A PAX header with any body, and any announced size."""
    return header(name, typeflag=typeflag, size=len(body) if size is None else size, mtime=0) + padded(body)


def gnu_long(typeflag: bytes, text: bytes, *, terminated: bool = True) -> bytes:
    """GNU's way to say a long name (`L`) or link target (`K`) of the next entry."""
    body = text + b"\0" if terminated else text
    return header(b"././@LongLink", typeflag=typeflag, size=len(body), mtime=0, mode=0, magic=GNU_MAGIC) + padded(body)


# --- entries ---------------------------------------------------------------------------------------------------------


class Kind(Enum):
    """What an entry makes. The values are tar's type flags."""

    FILE = b"0"
    HARDLINK = b"1"
    SYMLINK = b"2"
    CHAR = b"3"
    BLOCK = b"4"
    FOLDER = b"5"
    FIFO = b"6"


class Style(Enum):
    """Which of tar's dialects an entry is written in."""

    V7 = "v7"
    USTAR = "ustar"
    GNU = "gnu"
    PAX = "pax"
    STAR = "star"


class Sparse(Enum):
    """The four ways to write a file with holes."""

    GNU = "old GNU, type S"
    PAX_0_0 = "PAX 0.0: a pair of records per piece"
    PAX_0_1 = "PAX 0.1: the map in one record"
    PAX_1_0 = "PAX 1.0: the map before the data"


@frozen(repr=False)
class Entry:
    """One entry of a layer. `mtime` is in nanoseconds. `pieces` are the parts of a sparse file that hold data."""

    name: bytes
    kind: Kind = Kind.FILE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH * SECOND
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(factory=dict)
    style: Style = Style.PAX
    sparse: Sparse | None = None
    size: int = 0
    pieces: tuple[tuple[int, bytes], ...] = ()
    typeflag: bytes | None = None
    before: bytes = b""

    def __repr__(self) -> str:
        """What is out of the ordinary, in the words that make it."""
        usual = _MAKERS[self.kind](self.name)
        facts = [f"{name}={_short(name, value)}" for name, value in _facts(self) if value != getattr(usual, name)]
        return f"{_MAKERS[self.kind].__name__}({', '.join([repr(self.name), *facts])})"

    def _repr_pretty_(self, printer: Any, cycle: object) -> None:
        """The same for Hypothesis."""
        printer.text(repr(self))

    @property
    def content(self) -> bytes:
        """What reading the file gives."""
        if self.sparse is None:
            return self.data
        whole = bytearray(self.size)
        for offset, piece in self.pieces:
            whole[offset : offset + len(piece)] = piece
        return bytes(whole)


def _facts(entry: Entry) -> list[tuple[str, Any]]:
    return [(name, getattr(entry, name)) for name in fields_dict(Entry) if name not in {"name", "kind"}]


def _short(name: str, value: Any) -> str:
    if name == "mode":
        return oct(value)
    text = repr(value)
    return text if len(text) < 200 else f"{text[:80]}...{text[-20:]} ({len(value)} long)"


def file(name: bytes, data: bytes = b"", **facts: Any) -> Entry:
    return evolve(Entry(name, data=data), **facts)


def folder(name: bytes, **facts: Any) -> Entry:
    return evolve(Entry(name, Kind.FOLDER, mode=0o755), **facts)


def symlink(name: bytes, target: bytes = b"", **facts: Any) -> Entry:
    return evolve(Entry(name, Kind.SYMLINK, target=target, mode=0o777), **facts)


def hardlink(name: bytes, target: bytes = b"", **facts: Any) -> Entry:
    return evolve(Entry(name, Kind.HARDLINK, target=target), **facts)


def fifo(name: bytes, **facts: Any) -> Entry:
    return evolve(Entry(name, Kind.FIFO), **facts)


def char(name: bytes, major: int = 0, minor: int = 0, **facts: Any) -> Entry:
    return evolve(Entry(name, Kind.CHAR, device=(major, minor)), **facts)


def block(name: bytes, major: int = 0, minor: int = 0, **facts: Any) -> Entry:
    return evolve(Entry(name, Kind.BLOCK, device=(major, minor)), **facts)


_MAKERS: dict[Kind, Callable[[bytes], Entry]] = {
    Kind.FILE: file,
    Kind.HARDLINK: hardlink,
    Kind.SYMLINK: symlink,
    Kind.CHAR: char,
    Kind.BLOCK: block,
    Kind.FOLDER: folder,
    Kind.FIFO: fifo,
}


def whiteout(path: bytes, **facts: Any) -> Entry:
    """The entry that removes `path` from the layers below."""
    parent, slash, name = path.rpartition(b"/")
    return evolve(Entry(parent + slash + b".wh." + name, mode=0), **facts)


def opaque(path: bytes, **facts: Any) -> Entry:
    """The entry that removes all that the layers below have in `path` (`b""`: the root)."""
    return evolve(Entry(path + b"/.wh..wh..opq" if path else b".wh..wh..opq", mode=0), **facts)


def sparse(name: bytes, size: int, *pieces: tuple[int, bytes], form: Sparse = Sparse.PAX_1_0, **facts: Any) -> Entry:
    style = Style.GNU if form is Sparse.GNU else Style.PAX
    return evolve(Entry(name, sparse=form, size=size, pieces=pieces, style=style), **facts)


# --- encoding --------------------------------------------------------------------------------------------------------


def _decimal(mtime: int) -> bytes:
    """Nanoseconds as PAX writes times: decimal seconds, no zeros behind."""
    sign = "-" if mtime < 0 else ""
    seconds, nanoseconds = divmod(abs(mtime), SECOND)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{sign}{seconds}{fraction}".encode()


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """`name` as ustar's prefix and name, or None when no slash is in a useful place."""
    if len(name) <= 100:
        return b"", name
    for at in range(min(155, len(name) - 1), 0, -1):
        if name[at : at + 1] == b"/" and 0 < len(name) - at - 1 <= 100:
            return name[:at], name[at + 1 :]
    return None


def _seconds(entry: Entry) -> int:
    seconds, fraction = divmod(entry.mtime, SECOND)
    if fraction:
        raise ValueError(f"{entry.style} has no fractions of a second")
    return seconds


def encode(entry: Entry) -> bytes:
    """The blocks of one entry."""
    body = entry.data
    if entry.sparse is not None:
        return entry.before + _ENCODE_SPARSE[entry.sparse](entry)
    if entry.style is Style.PAX:
        return entry.before + _pax(entry, body, len(body))
    if entry.xattrs:
        raise ValueError(f"{entry.style} has no xattrs")
    if entry.style is Style.GNU:
        return entry.before + _gnu(entry, body, len(body))
    prefix, name = _split(entry.name) or (b"", entry.name)
    if entry.style is Style.V7 and prefix:
        raise ValueError("v7 has no long names")
    magic = {Style.V7: V7_MAGIC, Style.USTAR: USTAR_MAGIC, Style.STAR: USTAR_MAGIC}[entry.style]
    rest = prefix
    if entry.style is Style.STAR:
        # star: 131 bytes of prefix, then atime, ctime, and "tar\0" at the very end.
        rest = prefix.ljust(131, b"\0") + octal(EPOCH, 12) + octal(EPOCH, 12) + bytes(8) + b"tar\0"
    return (
        entry.before
        + header(
            name,
            typeflag=_typeflag(entry),
            size=len(body),
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime=_seconds(entry),
            linkname=entry.target,
            magic=magic,
            rest=rest,
            major=_device(entry)[0],
            minor=_device(entry)[1],
        )
        + padded(body)
    )


def _typeflag(entry: Entry) -> bytes:
    if entry.typeflag is not None:
        return entry.typeflag
    return b"\0" if entry.style is Style.V7 and entry.kind in {Kind.FILE, Kind.FOLDER} else entry.kind.value


def _device(entry: Entry) -> tuple[Field, Field]:
    return entry.device if entry.kind in {Kind.CHAR, Kind.BLOCK} else (b"", b"")


def _pax(entry: Entry, body: bytes, size: int, *extra: tuple[bytes, bytes], name: bytes | None = None) -> bytes:
    records: list[tuple[bytes, bytes]] = []
    name = entry.name if name is None else name
    if len(name) > 100 or not name.isascii():
        records.append((b"path", name))
    if len(entry.target) > 100 or not entry.target.isascii():
        records.append((b"linkpath", entry.target))
    seconds, fraction = divmod(entry.mtime, SECOND)
    if fraction or not 0 <= seconds < 8**11:
        records.append((b"mtime", _decimal(entry.mtime)))
    numbers = {b"uid": (entry.uid, 8**7), b"gid": (entry.gid, 8**7), b"size": (size, 8**11)}
    records += [(key, b"%d" % value) for key, (value, limit) in numbers.items() if value >= limit]
    records += [(b"SCHILY.xattr." + key, value) for key, value in entry.xattrs.items()]
    records += extra
    return (
        (pax(records) if records else b"")
        + header(
            name[:100],
            typeflag=_typeflag(entry),
            size=size if size < 8**11 else 0,
            mode=entry.mode,
            uid=entry.uid if entry.uid < 8**7 else 0,
            gid=entry.gid if entry.gid < 8**7 else 0,
            mtime=seconds if 0 <= seconds < 8**11 else 0,
            linkname=entry.target[:100],
            major=_device(entry)[0],
            minor=_device(entry)[1],
        )
        + padded(body)
    )


def _gnu(entry: Entry, body: bytes, size: int, rest: bytes = b"") -> bytes:
    names = b""
    if len(entry.target) > 100:
        names += gnu_long(b"K", entry.target)
    if len(entry.name) > 100:
        names += gnu_long(b"L", entry.name)
    return (
        names
        + header(
            entry.name[:100],
            typeflag=_typeflag(entry),
            size=size,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime=_seconds(entry),
            linkname=entry.target[:100],
            magic=GNU_MAGIC,
            rest=rest,
            major=_device(entry)[0],
            minor=_device(entry)[1],
        )
        + padded(body)
    )


def _stored(entry: Entry) -> tuple[list[tuple[int, int]], bytes]:
    """The map of a sparse file as GNU tar writes it (a piece of length 0 marks a hole at the end), and its data."""
    pieces = [(offset, len(piece)) for offset, piece in entry.pieces]
    end = pieces[-1][0] + pieces[-1][1] if pieces else 0
    if end < entry.size or not pieces:
        pieces.append((entry.size, 0))
    return pieces, b"".join(piece for _, piece in entry.pieces)


def gnu_map(pieces: Iterable[tuple[int, int]], slots: int) -> tuple[bytes, list[tuple[int, int]]]:
    """The first `slots` pieces of a GNU map as they stand in a block, and the pieces that are left."""
    pieces = list(pieces)
    written = b"".join(number(offset, 12) + number(length, 12) for offset, length in pieces[:slots])
    return written.ljust(24 * slots, b"\0"), pieces[slots:]


def gnu_sparse(entry: Entry, pieces: Iterable[tuple[int, int]], body: bytes, size: int | None = None) -> bytes:
    """An old GNU sparse entry with any map: four pieces in the header, 21 in each block that extends it."""
    first, left = gnu_map(pieces, 4)
    # From byte 345: atime, ctime, offset, longnames, unused, the map, isextended, realsize.
    rest = bytes(12 + 12 + 12 + 4 + 1) + first + (b"\1" if left else b"\0") + number(entry.size, 12)
    extensions = b""
    while left:
        more, left = gnu_map(left, 21)
        extensions += (more + (b"\1" if left else b"\0")).ljust(BLOCK, b"\0")
    whole = _gnu(evolve(entry, typeflag=b"S"), b"", len(body) if size is None else size, rest)
    return whole + extensions + padded(body)


def _encode_gnu_sparse(entry: Entry) -> bytes:
    pieces, body = _stored(entry)
    return gnu_sparse(entry, pieces, body)


def _encode_sparse_0_0(entry: Entry) -> bytes:
    pieces, body = _stored(entry)
    records = [(b"GNU.sparse.size", b"%d" % entry.size), (b"GNU.sparse.numblocks", b"%d" % len(pieces))]
    for offset, length in pieces:
        records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return _pax(entry, body, len(body), *records)


def _replacement(entry: Entry) -> bytes:
    """The name that readers without sparse files see: GNU tar makes it of the real one."""
    return b"GNUSparseFile.0/" + entry.name.rpartition(b"/")[2][:80]


def _encode_sparse_0_1(entry: Entry) -> bytes:
    pieces, body = _stored(entry)
    text = b",".join(b"%d,%d" % piece for piece in pieces)
    records = [
        (b"GNU.sparse.size", b"%d" % entry.size),
        (b"GNU.sparse.numblocks", b"%d" % len(pieces)),
        (b"GNU.sparse.map", text),
        (b"GNU.sparse.name", entry.name),
    ]
    return _pax(entry, body, len(body), *records, name=_replacement(entry))


def _encode_sparse_1_0(entry: Entry) -> bytes:
    pieces, data = _stored(entry)
    text = b"".join([b"%d\n" % len(pieces), *(b"%d\n%d\n" % piece for piece in pieces)])
    body = padded(text) + data
    records = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", entry.name),
        (b"GNU.sparse.realsize", b"%d" % entry.size),
    ]
    return _pax(entry, body, len(body), *records, name=_replacement(entry))


_ENCODE_SPARSE = {
    Sparse.GNU: _encode_gnu_sparse,
    Sparse.PAX_0_0: _encode_sparse_0_0,
    Sparse.PAX_0_1: _encode_sparse_0_1,
    Sparse.PAX_1_0: _encode_sparse_1_0,
}


def archive(*entries: Entry | bytes, end: bytes = END) -> bytes:
    """A tar of `entries`; bytes are taken as they are."""
    return b"".join(entry if isinstance(entry, bytes) else encode(entry) for entry in entries) + end


def docker_archive(layers: Sequence[bytes], tag: str = "test:latest") -> bytes:
    """An archive as `docker save` writes it, of one image with these layers. Its config is the tag's own."""
    names = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"name": tag}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{name}" for name in names]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
    }
    text = json.dumps(config).encode()
    config_name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": [f"{name}.tar" for name in names]}]
    files = {f"{name}.tar": layer for name, layer in zip(names, layers, strict=True)}
    files |= {config_name: text, "manifest.json": json.dumps(manifest).encode()}
    return archive(*(file(name.encode(), data) for name, data in files.items()))
