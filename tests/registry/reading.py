"""What several of these tests do with blobs."""

from __future__ import annotations

import random
from typing import Any


def noise(size: int, seed: int = 1) -> bytes:
    """So many bytes, no two pieces of which are alike."""
    return random.Random(seed).randbytes(size)


def all_of(reader: Any, piece: int = 10_000) -> bytes:
    """All that a reader has, read piece by piece."""
    buffer = bytearray(piece)
    parts = []
    with reader:
        while count := reader.readinto(memoryview(buffer)):
            parts.append(bytes(buffer[:count]))
    return b"".join(parts)
