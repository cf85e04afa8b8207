"""What is read at any offset, as a raw stream: for who makes bytes up as they are asked for."""

from __future__ import annotations

import errno
import io
import os

__all__ = ["Positioned"]


class Positioned(io.RawIOBase):
    """A stream of `size` bytes that can be read from anywhere; how, `readinto` of a subclass says, from `_at` on."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = base + offset
        return self._at
