"""Where zstd's frames end, found from their headers alone (RFC 8878, section 3.1).

The binding decompresses a stream that is cut short without a word. `Frames` watches the compressed bytes go by and
knows whether the end of the stream is the end of a frame. It judges nothing else: that is the decoder's work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FRAME_MAGIC: Final = 0xFD2FB528
SKIPPABLE_MAGIC: Final = 0x184D2A50
"""The first of sixteen."""

_RLE_BLOCK: Final = 1


class Frames:
    """Feed it the stream; then ask `whole`. `on_window` is told how much each frame wants remembered, in bytes."""

    def __init__(self, on_window: Callable[[int], object] | None = None) -> None:
        self._on_window = on_window
        self._step: Callable[[bytes], None] = self._read_magic
        self._head = bytearray()
        self._wanted = 4
        self._skip = 0
        self._has_checksum = False
        self._lost = False

    @property
    def whole(self) -> bool:
        """Does the stream end between two frames, as far as can be told?"""
        return self._lost or (self._step == self._read_magic and not self._head and not self._skip)

    def feed(self, data: memoryview) -> None:
        """The next bytes of the stream."""
        at, end = 0, len(data)
        while at < end and not self._lost:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            step = min(self._wanted - len(self._head), end - at)
            self._head += data[at : at + step]
            at += step
            if len(self._head) == self._wanted:
                head = bytes(self._head)
                self._head.clear()
                self._step(head)

    def _expect(self, step: Callable[[bytes], None], wanted: int, skip: int = 0) -> None:
        self._step, self._wanted, self._skip = step, wanted, skip

    def _read_magic(self, head: bytes) -> None:
        magic = int.from_bytes(head, "little")
        if magic == FRAME_MAGIC:
            self._expect(self._read_descriptor, 1)
        elif magic & ~0xF == SKIPPABLE_MAGIC:
            self._expect(self._read_skippable, 4)
        else:
            self._lost = True  # the decoder will say what is wrong

    def _read_skippable(self, head: bytes) -> None:
        self._expect(self._read_magic, 4, skip=int.from_bytes(head, "little"))

    def _read_descriptor(self, head: bytes) -> None:
        flags = head[0]
        single_segment = bool(flags & 0x20)
        self._has_checksum = bool(flags & 0x04)
        window = 0 if single_segment else 1
        dictionary = (0, 1, 2, 4)[flags & 3]
        content_size = (1 if single_segment else 0, 2, 4, 8)[flags >> 6]
        self._is_single_segment, self._before_size = single_segment, window + dictionary
        self._expect(self._read_sizes, window + dictionary + content_size)

    def _read_sizes(self, head: bytes) -> None:
        """The window is what the descriptor says, or all of a single segment (RFC 8878, 3.1.1.1)."""
        if self._is_single_segment:
            size = int.from_bytes(head[self._before_size :], "little")
            window = size + 256 if len(head) - self._before_size == 2 else size
        else:
            base = 1 << (10 + (head[0] >> 3))
            window = base + base // 8 * (head[0] & 7)
        if self._on_window is not None:
            self._on_window(window)
        self._expect(self._read_block, 3)

    def _read_block(self, head: bytes) -> None:
        header = int.from_bytes(head, "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        skip = 1 if kind == _RLE_BLOCK else size
        if last:
            self._expect(self._read_magic, 4, skip=skip + (4 if self._has_checksum else 0))
        else:
            self._expect(self._read_block, 3, skip=skip)
