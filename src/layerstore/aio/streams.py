"""A pipe of a program, as tasks read it and write to it. No thread waits for it: the event loop does."""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import select
from collections.abc import AsyncIterator, Callable
from typing import IO, Any, Self

__all__ = ["Stream"]

_PIECE = 1 << 16


class Stream:
    """One end of a pipe. An asynchronous iterator of lines, of bytes or text as the program's pipes are.

    Who is cancelled has taken nothing from it, and written what had been written by then. One task at a time may read.
    It is not for a program whose `communicate` is called.
    """

    def __init__(self, file: IO[Any] | io.IOBase) -> None:
        self._file: Any = file
        self._is_at_end = False
        if isinstance(self._file, io.TextIOBase):
            encoding, errors = str(self._file.encoding), str(self._file.errors or "strict")
            decoder = codecs.getincrementaldecoder(encoding)(errors)
            self._decoder: Any = io.IncrementalNewlineDecoder(decoder, translate=True)
            self._encode: Callable[[Any], bytes] = lambda data: codecs.encode(data, encoding, errors)
            self._came: Any = ""
            self._newline: Any = "\n"
        else:
            self._decoder, self._encode, self._came, self._newline = None, bytes, b"", b"\n"

    async def readline(self) -> Any:
        """The next line with its end, or what is left without one; empty at the end."""
        while (end := self._came.find(self._newline) + 1) == 0 and await self._more():
            pass
        return self._taken(end or len(self._came))

    async def read(self, size: int = -1) -> Any:
        """The next `size` bytes (of text: characters), or fewer before the end; less than 0: all."""
        if size < 0:
            return await self._rest()
        while len(self._came) < size and await self._more():
            pass
        return self._taken(size)

    async def pieces(self) -> AsyncIterator[Any]:
        """What comes, as it comes, to the end."""
        while self._came or await self._more():
            piece = self._taken(len(self._came))
            if piece:
                yield piece

    async def write(self, data: Any) -> None:
        """Write all of it. Raises `BrokenPipeError` if nobody reads any more."""
        left = memoryview(self._encode(data))
        while left:
            await self._ready(is_read=False)
            left = left[os.write(self._file.fileno(), left[: select.PIPE_BUF]) :]  # what is taken without waiting

    def close(self) -> None:
        """Close this end: a program that reads comes to the end of what it reads."""
        self._file.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def _rest(self) -> Any:
        """All to the end, put together once: each piece added to those before it would be copied with all of them."""
        parts: list[Any] = []
        try:
            async for piece in self.pieces():
                parts.append(piece)
            whole, parts = self._newline[:0].join(parts), []
            return whole
        finally:
            self._came = self._newline[:0].join([*parts, self._came])

    def _taken(self, size: int) -> Any:
        taken, self._came = self._came[:size], self._came[size:]
        return taken

    async def _more(self) -> bool:
        if self._is_at_end:
            return False
        await self._ready(is_read=True)
        data = os.read(self._file.fileno(), _PIECE)
        self._is_at_end = not data
        self._came += data if self._decoder is None else self._decoder.decode(data, self._is_at_end)
        return not self._is_at_end

    async def _ready(self, *, is_read: bool) -> None:
        """Wait until the pipe has, or takes, at least a byte."""
        loop, fd = asyncio.get_running_loop(), self._file.fileno()
        ready: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        add, remove = (loop.add_reader, loop.remove_reader) if is_read else (loop.add_writer, loop.remove_writer)
        add(fd, tell)
        try:
            await ready
        finally:
            remove(fd)
