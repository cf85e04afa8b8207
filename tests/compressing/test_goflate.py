"""What Go's compress/gzip writes, to the byte. The digests are of what Go 1.19.8 made of the samples."""

from __future__ import annotations

import hashlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressing.samples import SAMPLES, mixed
from layerstore.compression.goflate import LEVELS, Deflate

WRITTEN = {
    1: "81da0491 030e58d5 12f95b1a 7f416aa1 c49923c1 ef74c186 809ec16f cad76f44 81aad5bf e4f32a7b",
    4: "30e6fa98 9097c65d e6f28b31 28906769 85e67924 bf41544d 13d6c646 37a5dc01 7d3c2b5c 3c461ec0",
    5: "30e6fa98 9097c65d e6f28b31 e12ae855 85e67924 06dab003 13d6c646 37a5dc01 4b6fb417 ad391f29",
    6: "30e6fa98 9097c65d e6f28b31 e12ae855 85e67924 7dc65f7c 13d6c646 37a5dc01 89578d77 60941498",
    7: "30e6fa98 9097c65d e6f28b31 e12ae855 85e67924 5ae61493 13d6c646 37a5dc01 f2d75775 445e68c6",
    8: "30e6fa98 9097c65d e6f28b31 e12ae855 85e67924 bda6b647 13d6c646 37a5dc01 12028a52 5abced18",
    9: "10c22218 5349afdc 955d3da2 3bdcce13 50f67b89 d6ff8536 696f1892 eeee9d34 b9f4d72a 7ade58ac",
}
"""By level, the beginning of the sha256 of each sample's gzip file, in order."""

LONG = {4: "6f85654c", 6: "729342c2", 1: "2d32c9ea"}
"""The same of 20 MiB: Go begins its count of places anew at 16."""


def deflated(data: bytes, level: int, piece: int = 1 << 16) -> bytes:
    stream = Deflate(level)
    made = [stream.feed(memoryview(data)[start : start + piece]) for start in range(0, len(data), piece)]
    return b"".join([*made, stream.finish()])


def digest_of(data: bytes, level: int) -> str:
    speed = {1: 4, 9: 2}.get(level, 0)
    header = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, speed, 255])
    trailer = struct.pack("<II", zlib.crc32(data), len(data))
    return hashlib.sha256(header + deflated(data, level) + trailer).hexdigest()[:8]


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_bytes_as_go(level: int) -> None:
    assert {name: digest_of(data, level) for name, data in SAMPLES.items()} == dict(
        zip(SAMPLES, WRITTEN[level].split(), strict=True)
    )


@pytest.mark.parametrize("level", LONG)
def test_the_same_bytes_as_go_of_a_long_stream(level: int) -> None:
    assert digest_of(mixed(6, 1 << 20) * 20, level) == LONG[level]


@given(st.integers(0, 2**32), st.integers(0, 200_000), st.sampled_from(LEVELS), st.integers(1, 100_000))
def test_it_inflates_to_what_it_was_in_whatever_pieces_it_came(seed: int, size: int, level: int, piece: int) -> None:
    data = mixed(seed, size)
    made = deflated(data, level, piece)
    assert zlib.decompress(made, -15) == data
    assert made == deflated(data, level)


@pytest.mark.parametrize("level", [-1, 0, 2, 3, 10])
def test_levels_that_are_not_known(level: int) -> None:
    with pytest.raises(ValueError, match="no level"):
        Deflate(level)
