"""What a program writes, as whole lines: two streams that come in any pieces, told a line at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

__all__ = ["LONGEST", "Lines", "Stream", "Tail"]

Stream = Literal["stdout", "stderr"]

LONGEST = 64 * 1024
"""Bytes of a line that are told in one piece."""

_KEPT = 200
"""Lines that an error can show."""


class Lines:
    """One stream. `tell` is given whole lines, each with its end, and at the very end what has none."""

    def __init__(self, tell: Callable[[bytes], object]) -> None:
        self._tell = tell
        self._pending = b""

    def take(self, data: bytes) -> None:
        """Bytes that came."""
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._tell(self._pending + whole + newline)
            self._pending = rest
        else:
            self._pending += data
        while len(self._pending) >= LONGEST:
            self._tell(self._pending[:LONGEST])
            self._pending = self._pending[LONGEST:]

    def end(self) -> None:
        """Nothing comes any more."""
        if self._pending:
            self._tell(self._pending)
            self._pending = b""


class Tail:
    """The last lines of what came, of both streams in the order in which they came."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=_KEPT)

    def take(self, data: bytes) -> None:
        """Whole lines that came."""
        self._lines.extend(data.splitlines(keepends=True)[-_KEPT:])

    @property
    def text(self) -> bytes:
        """All of them."""
        return b"".join(self._lines)
