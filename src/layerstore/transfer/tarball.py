"""The outer tar of an archive, header by header: which members there are, and where their bytes lie.

Only what archives of images are made of: ustar, GNU and PAX headers, files and links. No name is ever given to the
filesystem, so none can escape; a size is believed only as far as there are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol

from layerstore.errors import InvalidArchive
from layerstore.values import frozen

BLOCK: Final = 512
MEMBERS_LIMIT: Final = 100_000
_EXTENSION_LIMIT: Final = 1 << 20
"""Bytes of a long name or a PAX header. PATH_MAX is 4096."""

# POSIX.1-2017, pax, "ustar Interchange Format", and what GNU and old tars add.
_FILES: Final = (b"0", b"\0", b"7")
_HARD_LINK: Final = b"1"
_SYMLINK: Final = b"2"
_LONG_NAME: Final = b"L"
_LONG_LINK: Final = b"K"
_PAX: Final = (b"x", b"X")
_PAX_GLOBAL: Final = b"g"
_OCTAL: Final = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_RECORD: Final = re.compile(rb"([0-9]{1,7}) ([^=]+)=")


class Input(Protocol):
    """Where the tar comes from: a file, or a stream that can be read once."""

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than `size` only at the end."""
        ...

    def skip(self, size: int) -> int:
        """Go over the next bytes; says how many there were."""
        ...

    def tell(self) -> int:
        """The bytes that were read or skipped."""
        ...


@frozen
class Member:
    """A file or a link. `target` is where a link leads, None for a file; `offset` is where the content lies."""

    name: str
    offset: int
    size: int
    target: str | None = None


def members(tar: Input) -> Iterator[Member]:
    """The files and links of a tar. After each the caller may read up to `size` bytes of `tar`; the rest is skipped.

    Raises `InvalidArchive` for what is no tar, and for one that ends within a member. The zeros at the end may miss.
    """
    names: dict[str, str] = {}
    count = 0
    while True:
        at = tar.tell()
        block = tar.read(BLOCK)
        if not block.strip(b"\0"):
            if names:
                raise _truncated(f"at byte {at}, after a header without its member")
            return
        if not is_header(block):
            if len(block) < BLOCK:
                raise _truncated(f"at byte {at}, in a header")
            raise InvalidArchive(f"the archive is damaged: at byte {at} there should be a tar header")
        count += 1
        if count > MEMBERS_LIMIT:
            raise InvalidArchive(f"the archive has more than {MEMBERS_LIMIT} members, which no archive of images has")
        kind, size = block[156:157], _number(block[124:136], at)
        if kind == _PAX_GLOBAL:
            _body(tar, size, at)
            continue
        if kind in (_LONG_NAME, _LONG_LINK, *_PAX):
            names |= _extension(kind, _body(tar, size, at), at)
            continue
        size = _decimal(names.get("size", str(size)), at)
        if kind in (_HARD_LINK, _SYMLINK):
            size = 0
        name = names.get("path") or _short_name(block)
        link = names.get("linkpath") or _text(block[157:257])
        offset = tar.tell()
        member = _member(kind, name, link, offset, size)
        if member is not None:
            yield member
        missing = offset + size - tar.tell()
        if tar.skip(missing) < missing:
            raise _truncated(f"within {name}", path=name)
        tar.skip(-size % BLOCK)
        names = {}


def is_header(block: bytes) -> bool:
    """Is this block the header of a member? Its checksum says so."""
    stated = _OCTAL.fullmatch(block[148:156])
    if len(block) < BLOCK or stated is None or not stated[1]:
        return False
    others = block[:148] + b" " * 8 + block[156:]
    # Some old tars summed signed bytes.
    return int(stated[1], 8) in (sum(others), sum(byte - 256 if byte > 127 else byte for byte in others))


def normal(name: str, folder: str = "") -> str | None:
    """A name, as seen from `folder`, without `.`, `..` and extra slashes; None if it leads out of the archive."""
    parts: list[str] = []
    for part in (name if name.startswith("/") else f"{folder}/{name}").split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _member(kind: bytes, name: str, link: str, offset: int, size: int) -> Member | None:
    if kind not in (*_FILES, _HARD_LINK, _SYMLINK):
        return None
    path = normal(name)
    if path is None:
        raise InvalidArchive(f"member {name!r} lies outside of the archive", path=name)
    match kind:
        case b"1":
            return Member(path, offset, size, target=link)
        case b"2":
            # A symlink is seen from its folder. The slash makes what is absolute, or leads out, plain to `normal`.
            return Member(
                path, offset, size, target=link if link.startswith("/") else f"{path.rpartition('/')[0]}/{link}"
            )
    return Member(path, offset, size)


def _body(tar: Input, size: int, at: int) -> bytes:
    if size > _EXTENSION_LIMIT:
        raise InvalidArchive(f"the archive is damaged: the header at byte {at} claims {size} bytes")
    body = tar.read(size)
    if len(body) < size:
        raise _truncated(f"at byte {at}, in a header")
    tar.skip(-size % BLOCK)
    return body


def _extension(kind: bytes, body: bytes, at: int) -> dict[str, str]:
    """What a header says of the member after it."""
    if kind == _LONG_NAME:
        return {"path": _text(body)}
    if kind == _LONG_LINK:
        return {"linkpath": _text(body)}
    records: dict[str, str] = {}
    start, end = 0, len(body.rstrip(b"\0"))
    while start < end:
        record = _RECORD.match(body, start)
        after = start + int(record[1]) if record is not None else 0
        if record is None or not record.end() < after <= end or body[after - 1] != ord("\n"):
            raise InvalidArchive(f"the archive is damaged: the PAX header at byte {at} cannot be read")
        if record[2] in (b"path", b"linkpath", b"size"):
            records[record[2].decode()] = body[record.end() : after - 1].decode(errors="surrogateescape")
        start = after
    return records


def _short_name(block: bytes) -> str:
    name, prefix = _text(block[:100]), _text(block[345:500])
    # GNU's own format has times where ustar has the prefix.
    return f"{prefix}/{name}" if prefix and block[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _number(field: bytes, at: int) -> int:
    """Octal digits, or binary after a byte with the highest bit set (GNU tar, "Extensions")."""
    if field[0] & 0x80:
        value = -1 if field[0] & 0x40 else int.from_bytes(field, "big") & ~(0x80 << 88)
        return _decimal(str(value), at)
    octal = _OCTAL.fullmatch(field)
    if octal is None:
        raise InvalidArchive(f"the archive is damaged: the header at byte {at} has no size")
    return int(octal[1] or b"0", 8)


def _decimal(text: str, at: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or int(text) >= 1 << 63:
        raise InvalidArchive(f"the archive is damaged: the header at byte {at} claims a size of {text[:40]} bytes")
    return int(text)


def _truncated(where: str, path: str | None = None) -> InvalidArchive:
    return InvalidArchive(f"the archive ends {where}", remedy="It was cut short: get it again.", path=path)
