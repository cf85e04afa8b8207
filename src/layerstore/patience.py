"""Waiting that an interrupt can end.

A signal that comes in the moment before a wait begins is only noted: Python sees to it when the wait is over, which may
be never. So nobody waits without an end. Who waits looks up now and then, and waits again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from concurrent.futures import Future

GLANCE: Final = 1.0
"""Seconds after which a wait is begun anew."""


def at_once(left: float | None) -> float:
    """For how many seconds to wait before looking up, if so many are left; None: without an end."""
    return GLANCE if left is None else min(max(left, 0.0), GLANCE)


def until_done_or_one_fails(futures: Collection[Future[Any]]) -> None:
    """Wait until all have been done, or one has failed. None of them may have been cancelled."""
    from concurrent.futures import FIRST_EXCEPTION, wait

    done, left = wait(futures, GLANCE, FIRST_EXCEPTION)
    while left and not any(future.exception() for future in done):
        done, left = wait(futures, GLANCE, FIRST_EXCEPTION)
