"""Compressed streams that were altered anywhere: their bytes, or the one error; never more, and nothing else.

zlib and zstd's own reader judge beside us. They are laxer in one thing each: zstd's reader takes a stream that is cut
short for whole, isal does not look at the reserved flags of gzip (RFC 1952, section 2.3.1).
"""

from __future__ import annotations

import gzip
import io
import os
import random
import zlib

import zstandard

from layerstore.compression.streams import open_stream, sniff
from layerstore.errors import InvalidArchive

NUMBER = 5_000_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 4_000
MOST = 1 << 24
"""A few altered bytes may well say "a million times the same"."""


def seeds(dice: random.Random) -> list[bytes]:
    texts = [b"", b"a", b"the same again " * 40, bytes(range(256)) * 3, dice.randbytes(700)]
    packed = [gzip.compress(text, level, mtime=0) for text in texts for level in (0, 1, 9)]
    frames = [
        zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size).compress(text)
        for text in texts
        for checksum, size in ((False, True), (True, True), (False, False))
    ]
    named = io.BytesIO()
    with gzip.GzipFile("name", "wb", fileobj=named, mtime=5) as file:
        file.write(b"with a name")
    several = [packed[3] + packed[5], packed[4] + b"\0" * 20 + packed[7]]
    skippable = frames[0] + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + frames[4]
    return [*packed, *several, named.getvalue(), *frames, skippable]


def altered(dice: random.Random, given: bytes) -> bytes:
    data = bytearray(given)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(data):
                data[at] = dice.choice((0, 1, 128, 255, dice.randrange(256)))
            case 2:
                del data[at : at + dice.randrange(1, 9)]
            case 3:
                data[at:at] = dice.randbytes(dice.randrange(1, 6))
            case 4:
                del data[at:]
            case 5:
                again = dice.randrange(len(data) + 1)
                data[at:at] = data[again : again + dice.randrange(1, 40)]
    return bytes(data)


def inflated(data: bytes) -> bytes | None:
    """Its bytes; None if it is refused."""
    out, buffer = bytearray(), memoryview(bytearray(1 << 16))
    try:
        with open_stream(io.BytesIO(data)) as stream:
            while (count := stream.readinto(buffer)) and len(out) < MOST:
                out += buffer[:count]
    except InvalidArchive:
        return None
    return bytes(out)


def by_zlib(data: bytes) -> bytes | None:
    out = b""
    while True:
        member = zlib.decompressobj(31)
        try:
            out += member.decompress(data)
        except zlib.error:
            return None
        if not member.eof:
            return None
        data = member.unused_data.lstrip(b"\0")
        if not data:
            return out
        if not data.startswith(b"\x1f\x8b"):
            return None


def by_zstandard(data: bytes) -> bytes | None:
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True, read_size=6)
    try:
        return reader.read(MOST)
    except zstandard.ZstdError:
        return None


def test_altered_streams_give_their_bytes_or_the_one_error() -> None:
    dice = random.Random(2026)
    whole = seeds(dice)
    assert all(inflated(data) is not None for data in whole)
    refused = accepted = 0
    for _ in range(NUMBER):
        data = altered(dice, dice.choice(whole))
        kind = sniff(data[:6])
        if kind not in ("gzip", "zstd"):
            continue
        ours, theirs = inflated(data), by_zlib(data) if kind == "gzip" else by_zstandard(data)
        if ours is None:
            refused += 1
            assert theirs is None or kind == "zstd", data.hex()
        else:
            accepted += 1
            assert ours == theirs or (theirs is None and kind == "gzip"), data.hex()
    assert refused > NUMBER / 4
    assert accepted > NUMBER / 100
