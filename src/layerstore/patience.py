"""Waiting that an interrupt can end.

A signal that comes in the moment before a wait begins is only noted: Python sees to it when the wait is over, which may
be never. So nobody waits without an end. Who waits looks up now and then, and waits again.

Signals come to the main thread alone. What another thread does is `stoppable`: it is told to stop at the same places,
those at which an interrupt is expected.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from concurrent.futures import Future

GLANCE: Final = 1.0
"""Seconds after which a wait is begun anew."""


_SOON: Final = 0.1
"""The same, for what may be told to stop."""


class Stopped(BaseException):
    """What this thread does is not wanted any more. Like an interrupt, it is no error of anybody's."""


class Unwanted(Exception):
    """The same, in a thread that works for another: an error, for that is what it passes on."""


class _Wishes(threading.local):
    is_over: Callable[[], bool] | None = None


_wishes = _Wishes()


@contextmanager
def stoppable(is_over: Callable[[], bool]) -> Iterator[None]:
    """While inside, `Stopped` is raised once where this thread waits, after `is_over` has become true."""
    before, _wishes.is_over = _wishes.is_over, is_over
    try:
        yield
    finally:
        _wishes.is_over = before


def look_up() -> float:
    """How many seconds to wait until the next look. Raises `Stopped`, once."""
    if _wishes.is_over is None:
        return GLANCE
    if _wishes.is_over():
        _wishes.is_over = None
        raise Stopped
    return _SOON


def checking() -> Callable[[], None]:
    """A function that raises, in whatever thread it is called, when what this one does is not wanted any more.

    Here that is `Stopped`; in threads that work for this one, `Unwanted`.
    """
    is_over, mine = _wishes.is_over, threading.get_ident()

    def check() -> None:
        if is_over is not None and is_over():
            raise Stopped if threading.get_ident() == mine else Unwanted

    return check


def at_once(left: float | None) -> float:
    """For how many seconds to wait before looking up, if so many are left; None: without an end. Raises `Stopped`."""
    glance = look_up()
    return glance if left is None else min(max(left, 0.0), glance)


def until_done_or_one_fails(futures: Collection[Future[Any]]) -> None:
    """Wait until all have been done, or one has failed. None of them may have been cancelled."""
    from concurrent.futures import FIRST_EXCEPTION, wait

    done, left = wait(futures, look_up(), FIRST_EXCEPTION)
    while left and not any(future.exception() for future in done):
        done, left = wait(futures, look_up(), FIRST_EXCEPTION)
