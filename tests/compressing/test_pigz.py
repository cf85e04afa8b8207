"""What pigz writes, to the byte. The digests are of what pigz 2.6 with zlib 1.2.13 made of the samples, by -n -p 4."""

from __future__ import annotations

import hashlib
import zlib
from contextlib import closing

import pytest

from compressing.samples import SAMPLES, mixed
from layerstore.compression.pigz import BLOCK, Deflate

WRITTEN = {
    1: "9b4fb24e 005a097e 2dd38ce5 e77c4247 50558e1d 14212fa6 f4e25f0c a3edc17f 1e2f6652 c17db0d0",
    6: "9b4fb24e 005a097e 2dd38ce5 e588875e 781c8d6b f29546d7 3c54027b 30af9b6e 038a795a e85788c1",
    9: "9b4fb24e 005a097e 2dd38ce5 e588875e 781c8d6b f92a36c0 3c54027b 30af9b6e 9683b4c3 d35e408a",
}
"""By level, the beginning of the sha256 of each sample's deflate data, in order."""

pytestmark = pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng writes otherwise than zlib")


def deflated(data: bytes, level: int, *, piece: int = 100_000, threads: int = 2) -> bytes:
    with closing(Deflate(level, threads)) as stream:
        made = [stream.feed(memoryview(data)[start : start + piece]) for start in range(0, len(data), piece)]
        return b"".join([*made, stream.finish()])


@pytest.mark.parametrize("level", WRITTEN)
def test_the_same_bytes_as_pigz(level: int) -> None:
    found = {name: hashlib.sha256(deflated(data, level)).hexdigest()[:8] for name, data in SAMPLES.items()}
    assert found == dict(zip(SAMPLES, WRITTEN[level].split(), strict=True))


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 5 * BLOCK + 7])
def test_it_inflates_to_what_it_was(size: int) -> None:
    data = mixed(size, size)
    made = deflated(data, 6)
    assert zlib.decompress(made, -15) == data
    for piece, threads in ((1 << 20, 1), (BLOCK, 3), (777, 2)):
        assert deflated(data, 6, piece=piece, threads=threads) == made
