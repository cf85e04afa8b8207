"""Data for compressors, the same on every machine: what is easy, what is hard, and what is at the edge of a block."""

from __future__ import annotations

import random


def words(seed: int, size: int, *, kinds: int = 3000) -> bytes:
    """Bytes that compress as programs do."""
    dice = random.Random(seed)
    known = [dice.randbytes(dice.randrange(2, 12)) for _ in range(kinds)]
    found = bytearray()
    while len(found) < size:
        found += b"".join(dice.choices(known, k=1 + (size - len(found)) // 12))
    return bytes(found[:size])


def mixed(seed: int, size: int) -> bytes:
    """Runs, noise, words, and what was there before."""
    dice = random.Random(seed)
    known = [dice.randbytes(dice.randrange(1, 30)) for _ in range(50)]
    found = bytearray()
    while len(found) < size:
        kind = dice.randrange(20)
        if kind == 0:
            found += dice.randbytes(dice.randrange(1, 3000))
        elif kind == 1:
            found += bytes([dice.randrange(256)]) * dice.randrange(1, 2000)
        elif kind == 2 and found:
            start = dice.randrange(len(found))
            found += found[start : start + dice.randrange(1, 400)]
        else:
            found += known[dice.randrange(len(known))]
    return bytes(found[:size])


SAMPLES = {
    "nothing": b"",
    "a few": b"hello, hello, hello",
    "little": words(1, 127),
    "some": words(1, 5000, kinds=40),
    "words": words(2, 400_000),
    "mixed": mixed(3, 500_000),
    "noise": random.Random(4).randbytes(200_000),
    "zeros": bytes(300_000),
    "a block": mixed(5, 65_535),
    "and one more": mixed(5, 65_536),
}
"""By what they are."""
