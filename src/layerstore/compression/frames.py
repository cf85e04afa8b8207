"""Where zstd's frames end, found from their headers alone (RFC 8878, section 3.1).

The binding decompresses a stream that is cut short without a word. `Frames` watches the compressed bytes go by and
knows whether the end of the stream is the end of a frame. It judges nothing else: that is the decoder's work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

FRAME_MAGIC: Final = 0xFD2FB528
SKIPPABLE_MAGIC: Final = 0x184D2A50
"""The first of sixteen."""

_RLE_BLOCK: Final = 1

_HEAD: Final = 4 + 1 + 13 + 3
"""Magic, descriptor, the longest sizes (1 + 4 + 8), and the header of a block."""


class Frames:
    """Feed it the stream; then ask `whole`. `on_window` is told how much each frame wants remembered, in bytes."""

    def __init__(self, on_window: Callable[[int], object] | None = None) -> None:
        self._on_window = on_window
        self._step: Callable[[bytes], None] = self._read_magic
        self._head = bytearray()
        self._wanted = 4
        self._skip = 0
        self._lost = False
        self.count = 0
        """How many frames have begun."""

    @property
    def whole(self) -> bool:
        """Does the stream end between two frames, as far as can be told?"""
        return self._lost or (self._step == self._read_magic and not self._head and not self._skip)

    def feed(self, data: memoryview) -> None:
        """The next bytes of the stream."""
        at, end = 0, len(data)
        while at < end and not self._lost:
            if not self._skip and self._wanted == 4 and not self._head and (after := self._after(data, at)):
                at = after
                continue
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

    def _after(self, data: memoryview, at: int) -> int:
        """Where a frame of one block ends which begins here, if all of it is here; else 0.

        There may be millions of those, and step by step each costs several times as much.
        """
        head = bytes(data[at : at + _HEAD])
        if self._step != self._read_magic or len(head) < _HEAD:
            return 0
        magic = int.from_bytes(head[:4], "little")
        if magic & ~0xF == SKIPPABLE_MAGIC:
            end = at + 8 + int.from_bytes(head[4:8], "little")
        elif magic == FRAME_MAGIC:
            form = _Form.of(head[4])
            after_sizes = 5 + form.size
            header = int.from_bytes(head[after_sizes : after_sizes + 3], "little")
            end = at + after_sizes + 3 + _length_of(header) + form.checksum
            if not header & 1:
                return 0
        else:
            return 0
        if end > len(data):
            return 0
        self.count += 1
        if magic == FRAME_MAGIC and self._on_window is not None:
            self._on_window(form.window(head[5:after_sizes]))
        return end

    def _expect(self, step: Callable[[bytes], None], wanted: int, skip: int = 0) -> None:
        self._step, self._wanted, self._skip = step, wanted, skip

    def _read_magic(self, head: bytes) -> None:
        magic = int.from_bytes(head, "little")
        self.count += 1
        if magic == FRAME_MAGIC:
            self._expect(self._read_descriptor, 1)
        elif magic & ~0xF == SKIPPABLE_MAGIC:
            self._expect(self._read_skippable, 4)
        else:
            self._lost = True  # the decoder will say what is wrong

    def _read_skippable(self, head: bytes) -> None:
        self._expect(self._read_magic, 4, skip=int.from_bytes(head, "little"))

    def _read_descriptor(self, head: bytes) -> None:
        self._form = _Form.of(head[0])
        self._expect(self._read_sizes, self._form.size)

    def _read_sizes(self, head: bytes) -> None:
        if self._on_window is not None:
            self._on_window(self._form.window(head))
        self._expect(self._read_block, 3)

    def _read_block(self, head: bytes) -> None:
        header = int.from_bytes(head, "little")
        if header & 1:
            self._expect(self._read_magic, 4, skip=_length_of(header) + self._form.checksum)
        else:
            self._expect(self._read_block, 3, skip=_length_of(header))


class _Form(NamedTuple):
    """What the descriptor of a frame says of what follows: the bytes of its sizes and of its checksum."""

    is_single_segment: bool
    before_size: int
    size: int
    checksum: int

    @staticmethod
    @cache
    def of(flags: int) -> _Form:
        """Of these flags, the descriptor's only byte."""
        is_single_segment = bool(flags & 0x20)
        window = 0 if is_single_segment else 1
        dictionary = (0, 1, 2, 4)[flags & 3]
        content_size = (1 if is_single_segment else 0, 2, 4, 8)[flags >> 6]
        before_size = window + dictionary
        return _Form(is_single_segment, before_size, before_size + content_size, 4 if flags & 0x04 else 0)

    def window(self, sizes: bytes) -> int:
        """The window is what the descriptor says, or all of a single segment (RFC 8878, 3.1.1.1)."""
        if self.is_single_segment:
            size = int.from_bytes(sizes[self.before_size :], "little")
            return size + 256 if len(sizes) - self.before_size == 2 else size
        base = 1 << (10 + (sizes[0] >> 3))
        return base + base // 8 * (sizes[0] & 7)


def _length_of(header: int) -> int:
    """The bytes of a block that has this header."""
    return 1 if header >> 1 & 3 == _RLE_BLOCK else header >> 3
