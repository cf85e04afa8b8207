"""A blob that is sent by pieces: read once where they follow each other, from its beginning where one is sent again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from attrs import field

from layerstore.digest import Digest
from layerstore.errors import KernelError, LayerstoreError
from layerstore.registry.transport.http import Body, Readable
from layerstore.values import define

__all__ = ["Progress", "Source"]

Progress = Callable[[int], None]
"""Told how many bytes of a blob have been sent so far."""

_PIECE: Final = 1 << 20


class Source:
    """The bytes of a blob, by pieces, in whatever order; most follow each other, and then it is read once."""

    def __init__(self, body: Body, digest: Digest, progress: Progress | None) -> None:
        self._body = body
        self._digest = digest
        self._progress = progress
        self._stream: Readable | None = None
        self._at = 0
        self.sent = 0
        """How far it has been read for sending."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def piece(self, offset: int, count: int) -> Body:
        """So many bytes from `offset`, as often as they have to be sent."""
        return Body(count, lambda: self._window(offset, count))

    def whole(self) -> Body:
        """All of it, however much that is."""
        return Body(self._body.size, lambda: self._window(0, self._body.size))

    def tell_all(self) -> None:
        """It has arrived."""
        if self._progress is not None and self._body.size is not None:
            self._progress(self._body.size)

    def _window(self, offset: int, count: int | None) -> _Window:
        try:
            if self._stream is None or self._at > offset:
                self._close()
                self._stream = self._body.open()
                self._at = 0
        except OSError as error:
            raise KernelError("open", error.errno or errno.EIO) from error
        while self._at < offset:
            self.read(min(offset - self._at, _PIECE), is_sent=False)
        return _Window(self, count)

    def read(self, count: int, *, is_sent: bool = True) -> bytes:
        """The next bytes. What fails here is no failure of the connection, and is not taken for one."""
        assert self._stream is not None
        try:
            data = self._stream.read(count)
        except OSError as error:
            raise KernelError("read", error.errno or errno.EIO) from error
        if not data and self._body.size is not None:
            raise LayerstoreError(
                f"blob {self._digest} ends after {self._at} bytes, and should have {self._body.size}",
                remedy="What it is read from has changed: try again.",
            )
        self._at += len(data)
        if is_sent:
            self.sent = self._at
            if self._progress is not None:
                self._progress(self._at)
        return data


@define(eq=False)
class _Window:
    """A part of a source, as urllib3 reads it. To close it closes nothing."""

    source: Source
    left: int | None
    _is_over: bool = field(default=False, init=False)

    def read(self, count: int = -1) -> bytes:
        if self.left == 0 or self._is_over:
            return b""
        wanted = _PIECE if count < 0 else count
        data = self.source.read(wanted if self.left is None else min(wanted, self.left))
        if self.left is not None:
            self.left -= len(data)
        self._is_over = not data
        return data

    def close(self) -> None:
        """Nothing: the next piece goes on from here."""
