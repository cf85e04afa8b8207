"""Gzip from the middle: the points from which it can be inflated, and inflating from one.

A block of deflate may begin at any bit, and zlib begins at a byte. So empty blocks are put before it, whose bits end
where those of the block begin: 10 bits are one of fixed codes, 93 one with codes of its own.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

from layerstore.errors import InvalidArchive
from layerstore.kernel._shim import ffi, lib
from layerstore.seekable.index import Point

__all__ = ["SPAN", "WINDOW", "inflating", "points"]

WINDOW: Final = 32 << 10
"""How far back deflate can refer to, in bytes."""
SPAN: Final = 1 << 20
"""Bytes of the tar between two points, at least."""

_MOST: Final = 1 << 20
"""Bytes that are inflated at once."""
_TRAILER: Final = 8
_ROOM: Final = 64
_FIXED: Final = (10, 0b0000000_01_0)
"""An empty block, as the number of its bits and their value: fixed codes, and the end."""


def points(blob: Any) -> Iterator[tuple[Point, int]]:
    """The points of a gzip blob, a buffer, each with how many bytes before it have to be known (at most `WINDOW`).

    The last is where the tar ends. Raises `InvalidArchive`.
    """
    view = ffi.from_buffer(blob)
    size, at, out, last = len(view), 0, 0, -SPAN
    while at < size:
        begin = at + _header(view, at)
        found, end, made = _blocks(view, begin)
        for bit, before in found:
            if out + before - last >= SPAN:
                last = out + before
                yield Point(last, begin + bit // 8, bit % 8), min(before, WINDOW)
        out += made
        at = begin + end + _TRAILER
        if at > size:
            raise _damaged("it is cut short")
        if not any(bytes(ffi.buffer(view + at, min(size - at, _TRAILER)))) and _only_zeros(view, at):
            break
    yield Point(out, at), 0


def _blocks(view: Any, begin: int) -> tuple[list[tuple[int, int]], int, int]:
    """Of one member's deflate: bits and sizes before the blocks, where it ends, and what it inflates to."""
    room = _ROOM
    while True:
        made = ffi.new("struct ls_point[]", room)
        found = ffi.new("struct ls_points *", {"list": made, "room": room})
        answer = lib.ls_points_find(view + begin, len(view) - begin, SPAN, found)
        if not answer:
            break
        if answer != -errno.ENOSPC:
            raise _damaged("its blocks cannot be told apart, or it is cut short")
        room *= 8
    return [(one.bit, one.out) for one in made[0 : found.count]], found.end, found.out


def _only_zeros(view: Any, at: int) -> bool:
    return not any(
        any(ffi.buffer(view + place, min(len(view) - place, 1 << 16))[:]) for place in range(at, len(view), 1 << 16)
    )


def _header(view: Any, at: int) -> int:
    """The bytes of a member's header (RFC 1952, 2.3)."""
    data = ffi.buffer(view + at, min(len(view) - at, 1 << 17))[:]
    return header_size(data)


def header_size(data: bytes) -> int:
    """The bytes of the header that a gzip member begins with. Raises `InvalidArchive`."""
    if len(data) < 10 or data[:3] != b"\x1f\x8b\x08":
        raise _damaged("no member begins where one should")
    flags, at = data[3], 10
    if flags & 4:
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for bit in (8, 16):  # a name, a comment
        if flags & bit:
            end = data.find(b"\0", at)
            if end < 0:
                raise _damaged("a header has no end")
            at = end + 1
    at += 2 if flags & 2 else 0
    if at > len(data):
        raise _damaged("a header has no end")
    return at


def inflating(pieces: Iterable[bytes], bit: int, window: bytes, size: int) -> Iterator[bytes]:
    """`size` bytes of what blocks inflate to, little by little. The first begins at bit `bit` of the first byte.

    `window` comes before. Members may follow. Raises `InvalidArchive`.
    """
    source, made = iter(pieces), 0
    decoder = zlib.decompressobj(-zlib.MAX_WBITS, zdict=window) if window else zlib.decompressobj(-zlib.MAX_WBITS)
    rest = _aligned(next(source, b""), bit)
    try:
        while made < size:
            if decoder.eof:
                rest = _after_header(decoder.unused_data, source)
                decoder = zlib.decompressobj(-zlib.MAX_WBITS)
            data = decoder.decompress(rest, min(size - made, _MOST))
            rest = decoder.unconsumed_tail
            made += len(data)
            if data:
                yield data
            elif not rest and not decoder.eof:
                rest = next(source, b"")
                if not rest:
                    raise _damaged("what it inflates to is too short")
    except zlib.error as error:
        raise _damaged(str(error)) from None


def _after_header(data: bytes, source: Iterator[bytes]) -> bytes:
    """What comes after the end of a member and the header of the next, which may be in two pieces."""
    while True:
        try:
            return data[_TRAILER + header_size(data[_TRAILER:]) :]
        except InvalidArchive:
            more = next(source, b"")
            if not more:
                raise
            data += more


def _aligned(data: bytes, bit: int) -> bytes:
    if not bit or not data:
        return data
    count, value = _padding(bit)
    first = (data[0] >> bit << bit) | (value >> (count - bit))
    return (value & ((1 << (count - bit)) - 1)).to_bytes((count - bit) // 8, "little") + bytes([first]) + data[1:]


@cache
def _padding(bit: int) -> tuple[int, int]:
    """Empty blocks that end at this bit of a byte: how many bits they are, and these as a number."""
    blocks = [] if bit % 2 == 0 else [_odd()]
    while sum(count for count, _ in blocks) % 8 != bit:
        blocks.append(_FIXED)
    count = value = 0
    for bits, block in blocks:
        value |= block << count
        count += bits
    return count, value


def _odd() -> tuple[int, int]:
    """An empty block of an odd number of bits, with codes of its own: one for the end, one for distances."""
    lengths = {18: 1, 1: 1}  # of the codes for lengths; a run of zeros is 0, and "1" is 1 by order of symbols
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
    parts = [(1, 0), (2, 2), (5, 0), (5, 0), (4, 15), *((3, lengths.get(symbol, 0)) for symbol in order)]
    one, zeros = (1, 0), (1, 1)  # canonical: the lesser symbol has the lesser code
    parts += [zeros, (7, 138 - 11), zeros, (7, 118 - 11), one, one, (1, 0)]
    count = value = 0
    for bits, part in parts:
        value |= part << count
        count += bits
    return count, value


def _damaged(what: str) -> InvalidArchive:
    return InvalidArchive(f"the gzip data are damaged: {what}", remedy="Get the layer from its source again.")
