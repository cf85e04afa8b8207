"""Bodies of requests, read as they come: by their length, or in chunks (RFC 9112, section 7.1).

cheroot's own readers wait until all is there that was asked for, and keep a whole chunk in memory, however large. These
give what has come, so that a client that is too slow is found out; nothing that it says is believed.
"""

from __future__ import annotations

import errno
import re
import time
from typing import Any, Final

_CHUNK: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_LINE_LIMIT: Final = 4096
_TRAILERS_LIMIT: Final = 100
_PIECE: Final = 1 << 20


class Pace:
    """How fast a client takes or gives: at least `rate` bytes a second on the average, after `grace` seconds.

    What counts is the time for which the client is waited for.
    """

    def __init__(self, *, rate: float = 1024.0, grace: float = 30.0) -> None:
        self._rate = rate
        self._grace = grace
        self._waited = 0.0
        self._count = 0

    def took(self, began: float, count: int) -> None:
        """`count` bytes since `began`, by the monotonic clock. Raises `TimeoutError`."""
        self._waited += time.monotonic() - began
        self._count += count
        if self._waited > self._grace and self._count < self._rate * self._waited:
            raise TimeoutError("timed out")


class Body:
    """The body of a request. `size`: its length; None: it comes in chunks."""

    def __init__(self, source: Any, size: int | None, pace: Pace) -> None:
        self._source = source
        self._left = 0 if size is None else size
        self._is_chunked = size is None
        self._is_ended = size == 0
        self._pace = pace

    @property
    def is_ended(self) -> bool:
        """Was all of it read?"""
        return self._is_ended

    def read(self, size: int = -1) -> bytes:
        """Some of what comes next, at most `size` bytes; none at the end. Raises `ConnectionError`, `TimeoutError`."""
        if self._is_ended or size == 0:
            return b""
        if self._is_chunked and not self._left:
            self._left = self._next_chunk()
            if not self._left:
                self._is_ended = True
                return b""
        began = time.monotonic()
        data: bytes = self._source.read1(min(self._left, _PIECE if size < 0 else size))
        self._pace.took(began, len(data))
        if not data:
            raise _broken("in the middle of a body")
        self._left -= len(data)
        if not self._left:
            if self._is_chunked:
                self._require_line_end()
            else:
                self._is_ended = True
        return data

    def drain(self, limit: int) -> bool:
        """Read what is left and throw it away, unless it is more than `limit` bytes. True if all of it was read."""
        while not self._is_ended and limit > 0 and (data := self.read(min(limit, 64 << 10))):
            limit -= len(data)
        return self._is_ended

    def close(self) -> None:
        """Nothing: what it reads from is the connection's."""

    def _next_chunk(self) -> int:
        match = _CHUNK.fullmatch(self._line())
        if match is None:
            raise _broken("in what should be the size of a chunk")
        size = int(match[1], 16)
        if not size:
            for _ in range(_TRAILERS_LIMIT):
                if self._line() == b"\r\n":
                    return 0
            raise _broken("in too many trailers")
        return size

    def _require_line_end(self) -> None:
        if self._line() != b"\r\n":
            raise _broken("behind a chunk")

    def _line(self) -> bytes:
        began = time.monotonic()
        line: bytes = self._source.readline(_LINE_LIMIT)
        self._pace.took(began, len(line))
        return line


def _broken(where: str) -> ConnectionError:
    return ConnectionAbortedError(errno.ECONNABORTED, f"the request broke off {where}")
