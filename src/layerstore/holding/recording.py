"""What is read of a lazy layer is written down, in order, for whoever has asked for it."""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import Final

from attrs import field

from layerstore.values import define

__all__ = ["Record"]

_MOST: Final = 100_000
"""Lines that one layer may write."""


@define(eq=False)
class Record:
    """Writes lines into `file`: `number`, an offset in the layer's tar, and a size; each chunk once."""

    client: socket.socket
    """Who has asked: it ends when that has gone."""
    file: int
    number: int
    _seen: set[int] = field(factory=set)
    _lines: int = 0

    @property
    def is_over(self) -> bool:
        """Has whoever asked gone?"""
        asked = select.poll()
        asked.register(self.client, select.POLLRDHUP)
        return bool(asked.poll(0))

    def add(self, first: int, last: int, chunk: int, size: int) -> None:
        """These chunks, of so many bytes each, of a tar of so many, are read. What cannot be written is left out."""
        new = [one for one in range(first, last + 1) if one not in self._seen]
        if not new or self._lines >= _MOST:
            return
        self._seen.update(new)
        self._lines += len(new)
        lines = (f"{self.number} {one * chunk} {min(chunk, size - one * chunk)}\n" for one in new)
        with suppress(OSError):
            os.write(self.file, "".join(lines).encode())

    def close(self) -> None:
        """Write no more."""
        os.close(self.file)
