"""A piece of what is written from its beginning: the bytes before it are left out, those after it not waited for."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from layerstore.layers.relay import Write


class _Enough(Exception):
    """All that was wanted has been written."""


class Window:
    """Passes on the bytes from `start` up to before `end`, of `size` in all; leaves the block when they are written."""

    def __init__(self, write: Write, start: int, end: int, size: int) -> None:
        self._write = write
        self._start = start
        self._end = end
        self._size = size
        self._at = 0

    def write(self, data: memoryview) -> None:
        """The next bytes."""
        data = memoryview(data).cast("B")
        piece = data[max(self._start - self._at, 0) : max(self._end - self._at, 0)]
        if piece:
            self._write(piece)
        self._at += len(data)
        if self._end <= self._at and self._end < self._size:
            raise _Enough

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return isinstance(error, _Enough)
