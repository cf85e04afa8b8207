"""Deflate in blocks that are compressed at the same time, as pigz writes it: the base layers of Debian's images are.

Each block of 128 KiB is a stream of zlib of its own, with the 32 KiB before it as dictionary, and ends with a whole
byte. How it gets there depends on how many bits are left over, which zlib does not tell: they are found by two ways of
ending the block that differ in one bit.
"""

from __future__ import annotations

import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

__all__ = ["BLOCK", "Deflate"]

BLOCK: Final = 128 << 10
_DICTIONARY: Final = 32 << 10
_EMPTY: Final = 0b010
_EMPTY_BITS: Final = 10
"""An empty block with fixed codes."""


class Deflate:
    """One stream, compressed by several threads. `close` it in any case."""

    def __init__(self, level: int, threads: int, *, ahead: int | None = None) -> None:
        """`ahead`: so many blocks may be in the making when `feed` returns."""
        self._level = level
        self._block = bytearray()
        self._before = b""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="layerstore-pigz")
        self._making: deque[Future[bytes]] = deque()
        self._most = 2 * threads if ahead is None else ahead

    def feed(self, data: memoryview) -> bytes:
        """Take the next bytes in; what is done by now."""
        made = bytearray()
        self._block += data
        # The last block is told from the others, so one is kept back.
        start = 0
        while len(self._block) - start > BLOCK:
            self._add(bytes(memoryview(self._block)[start : start + BLOCK]), is_last=False)
            start += BLOCK
            while len(self._making) > self._most:
                made += self._making.popleft().result()
        if start:
            del self._block[:start]
        return bytes(made)

    def finish(self) -> bytes:
        """The rest, to the end of the stream."""
        self._add(bytes(self._block), is_last=True)
        self._block.clear()
        return b"".join(one.result() for one in self._making)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _add(self, block: bytes, *, is_last: bool) -> None:
        before, self._before = self._before, block[-_DICTIONARY:]
        self._making.append(self._pool.submit(_made, block, before, self._level, is_last=is_last))


def _made(block: bytes, before: bytes, level: int, *, is_last: bool) -> bytes:
    options: dict[str, Any] = {"zdict": before} if before else {}
    coder = zlib.compressobj(level, zlib.DEFLATED, -15, 8, **options)
    body = coder.compress(block)
    if is_last:
        return body + coder.flush()
    return body + coder.flush(zlib.Z_BLOCK) + _ended(coder)


def _ended(coder: Any) -> bytes:
    """What brings a block to the end of a byte: nothing, as many empty blocks as it takes, or a marker."""
    marker = coder.copy().flush(zlib.Z_SYNC_FLUSH)
    empty = coder.copy().flush(zlib.Z_PARTIAL_FLUSH)
    # Both begin with the bits that are left over, and then the one has 000 and the other 010.
    begin = int.from_bytes(marker[: len(empty)], "little")
    left = (begin ^ int.from_bytes(empty, "little")).bit_length() - 2
    if left % 2:
        return bytes(marker)
    bits, count = begin & ((1 << left) - 1), left
    while count % 8:
        bits |= _EMPTY << count
        count += _EMPTY_BITS
    return bits.to_bytes(count // 8, "little")
