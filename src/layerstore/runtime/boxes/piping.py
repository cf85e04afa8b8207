"""A program's standard streams as `subprocess` has them: what it is given, what is ours, what comes and goes."""

from __future__ import annotations

import io
import os
import select
import selectors
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO, Any

from layerstore import KernelError
from layerstore.patience import at_once
from layerstore.values import frozen

__all__ = ["Pipes", "Text", "Traffic"]

Stream = int | IO[Any] | None

_PIECE = 1 << 16


@frozen
class Text:
    """How bytes are text; None in both is bytes that stay bytes."""

    encoding: str | None = None
    errors: str | None = None

    def decoded(self, data: bytes) -> Any:
        """As a file that was opened as text would give them: with line ends of any kind as newlines."""
        if self.encoding is None:
            return data
        return data.decode(self.encoding, self.errors or "strict").replace("\r\n", "\n").replace("\r", "\n")

    def encoded(self, data: Any) -> bytes:
        """What is sent, as bytes."""
        if self.encoding is None or isinstance(data, bytes | bytearray | memoryview):
            return bytes(data)
        return str(data).encode(self.encoding, self.errors or "strict")

    def opened(self, fd: int, mode: str) -> IO[Any]:
        """Our end of a pipe as a file, which closes it. It is closed where that fails, too."""
        try:
            raw = io.FileIO(fd, mode)
        except BaseException:  # which leaves it open
            os.close(fd)
            raise
        try:
            file = io.BufferedWriter(raw) if mode == "wb" else io.BufferedReader(raw)
            if self.encoding is None:
                return file
            return io.TextIOWrapper(file, encoding=self.encoding, errors=self.errors, write_through=mode == "wb")
        except BaseException:
            raw.close()
            raise


class Pipes:
    """What a program is given (`stdin`, `stdout`, `stderr`: descriptors), and our ends of it (`ours`, by 0, 1, 2).

    `given` is to be called when it has them.
    """

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream, text: Text) -> None:
        """Raises `KernelError`, `ValueError`."""
        self._its = ExitStack()
        self.ours: dict[int, IO[Any]] = {}
        self._text = text
        try:
            self.stdin = self._end(0, stdin)
            self.stdout = self._end(1, stdout)
            self.stderr = self.stdout if stderr == subprocess.STDOUT else self._end(2, stderr)
        except BaseException:
            self.close()
            raise

    def _end(self, number: int, wanted: Stream) -> int:
        if wanted is None:
            return number
        if wanted == subprocess.DEVNULL:
            fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._its.callback(os.close, fd)
            return fd
        if wanted != subprocess.PIPE:
            return wanted if isinstance(wanted, int) else wanted.fileno()
        try:
            reads, writes = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise KernelError("pipe2", error.errno or 0) from error
        its, ours, mode = (reads, writes, "wb") if number == 0 else (writes, reads, "rb")
        self._its.callback(os.close, its)
        self.ours[number] = self._text.opened(ours, mode)
        return its

    def given(self) -> None:
        """Its ends are the program's alone now."""
        self._its.close()

    def close(self) -> None:
        """All of them."""
        self._its.close()
        for file in self.ours.values():
            file.close()


class Traffic:
    """What goes to a program and what comes from it, both at once. It can be broken off and gone on with."""

    def __init__(self, ours: Mapping[int, IO[Any]], text: Text) -> None:
        self._ours = ours
        self._text = text
        self._came: dict[int, list[bytes]] = {number: [] for number in (1, 2) if number in ours}
        self._left: memoryview | None = None

    def send(self, data: Any) -> None:
        """What is to go there; once."""
        if self._left is None and 0 in self._ours:
            self._left = memoryview(self._text.encoded(data) if data is not None else b"")

    def run(self, deadline: float | None) -> bool:
        """Until all has gone and come, or the deadline (by `time.monotonic`): False then."""
        with selectors.PollSelector() as selector:
            for number, file in self._ours.items():
                if not file.closed:
                    selector.register(file, selectors.EVENT_READ if number else selectors.EVENT_WRITE, number)
            if 0 in self._ours and not self._ours[0].closed:
                self._flush(selector)
            while selector.get_map():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left < 0:
                    return False
                for key, _ in selector.select(at_once(left)):
                    done = self._put(key.fd) if key.data == 0 else self._take(key.fd, key.data)
                    if done:
                        selector.unregister(key.fileobj)
                        self._ours[key.data].close()
        return True

    def _flush(self, selector: selectors.BaseSelector) -> None:
        """What the caller has written before goes first; if there is nothing to send, it is the end."""
        try:
            self._ours[0].flush()
        except BrokenPipeError:
            self._left = memoryview(b"")
        if not self._left:
            selector.unregister(self._ours[0])
            _close(self._ours[0])

    def _put(self, fd: int) -> bool:
        left = self._left or memoryview(b"")
        try:
            self._left = left[os.write(fd, left[: select.PIPE_BUF]) :]  # as much as is taken without waiting
        except BrokenPipeError:
            self._left = memoryview(b"")  # it does not want more
        return not self._left

    def _take(self, fd: int, number: int) -> bool:
        data = os.read(fd, _PIECE)
        self._came[number].append(data)
        return not data

    def came(self, number: int) -> Any:
        """All that has come on a stream; None if that is no pipe."""
        return self._text.decoded(b"".join(self._came[number])) if number in self._came else None


def _close(file: IO[Any]) -> None:
    try:
        file.close()
    except BrokenPipeError:
        pass
