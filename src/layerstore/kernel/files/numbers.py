"""Numbers of any length in bytes (LEB128), as C has them: bytes.h."""

from __future__ import annotations

__all__ = ["number_in", "written"]

_MOST_BITS = 63
"""Where the last of ten bytes has its bits: no number of C's is longer."""


def number_in(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends. Raises `IndexError` if it does not."""
    found = shift = 0
    while True:
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, at
        shift += 7
        if shift > _MOST_BITS:
            raise IndexError


def written(value: int) -> bytes:
    """The bytes of a number that is not negative."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
