"""Which streams are tars, compressed or not: by what their first bytes say, for names are only claims."""

from __future__ import annotations

from typing import BinaryIO

from layerstore import InvalidArchive, LimitExceeded, Limits, open_stream

__all__ = ["begins_as_archive", "is_tar"]

_HEAD = 512
_COMPRESSED = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""gzip, bzip2, xz, zstd."""


def is_tar(file: BinaryIO, limits: Limits) -> bool:
    """Does it begin with a tar's header (POSIX, ustar: the sum of its bytes stands in it), inflated if need be?"""
    head = bytearray(_HEAD)
    filled = 0
    try:
        with open_stream(file, limits=limits) as stream:
            while filled < _HEAD and (count := stream.readinto(memoryview(head)[filled:])):
                filled += count
    except LimitExceeded:  # it is more than one likes, and not something else
        raise
    except InvalidArchive:
        return False
    return _is_header(bytes(head[:filled]))


def begins_as_archive(head: bytes) -> bool:
    """The same by the first bytes of what cannot be read twice: all that is compressed is taken for a tar."""
    return head.startswith(_COMPRESSED) or _is_header(head[:_HEAD])


def _is_header(head: bytes) -> bool:
    if len(head) < _HEAD or not any(head):
        return False
    try:
        said = int(head[148:156].strip(b" \0") or b"-", 8)
    except ValueError:
        return False
    return said == sum(head) - sum(head[148:156]) + 8 * 0x20
