"""Signals that this process gets, passed on to a program; and the size of the terminal, whenever that changes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["passed_on"]

_KEPT = {
    signal.SIGKILL,
    signal.SIGSTOP,  # which nobody can catch
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGURG,  # which docker keeps to itself, too
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,  # which are about our own terminal
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSYS,
    signal.SIGTRAP,  # which tell of our own faults
}
_PASSED = frozenset(signal.valid_signals()) - _KEPT


@contextmanager
def passed_on(
    send: Callable[[int], object] | None = None, *, resized: Callable[[], object] | None = None
) -> Iterator[None]:
    """While inside, each signal is given to `send` instead; SIGWINCH has `resized` called, which is for a terminal.

    SIGHUP does not end us then, although nothing is sent: that the terminal has gone is seen by whoever reads from it.

    Outside of the main thread Python lets nobody catch signals, and nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted: dict[int, Callable[[int, FrameType | None], object]] = {}
    if send is not None:
        give = send
        wanted = {number: lambda number, _: give(number) for number in _PASSED}
    if resized is not None:
        tell = resized
        wanted[signal.SIGWINCH] = lambda _, __: tell()
        wanted.setdefault(signal.SIGHUP, lambda _, __: None)
    before: dict[int, Any] = {}
    try:
        for number, handler in wanted.items():
            kept = signal.getsignal(number)
            if kept is None:
                continue  # caught by C, which Python could not give it back to
            signal.signal(number, handler)
            before[number] = kept
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
