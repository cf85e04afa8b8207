"""Processes that are to know when this one ends, however it does: by a pipe whose one end nobody else has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Tie"]

_held: set[int] = set()


class Tie:
    """The pipe. Whoever has the other end reads to its end when this process is gone, or when `close` was called."""

    def __init__(self) -> None:
        self._other, self._own = os.pipe2(os.O_CLOEXEC)
        self._process = os.getpid()
        _held.add(self._own)

    @contextmanager
    def other(self) -> Iterator[int]:
        """While inside: the end that is for the other process, which is started inside."""
        try:
            yield self._other
        finally:
            os.close(self._other)

    def close(self, word: bytes = b"") -> None:
        """Let the other read a word, and then the end. A second time is no error, nor is one who has ended before."""
        own, self._own = self._own, -1
        if own < 0 or self._process != os.getpid():
            return
        _held.discard(own)
        try:
            if word:
                os.write(own, word)
        except BrokenPipeError:
            pass
        finally:
            os.close(own)


def _let_go() -> None:
    # A fork has what its parent has, and would hold it for as long as it lives.
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
