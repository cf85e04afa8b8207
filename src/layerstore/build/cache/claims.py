"""Who does a step: locks between processes and threads, each by a name, that die with their holder.

They are waited for in short sleeps, so that an interrupt, or the end of the build elsewhere, is heard in any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from layerstore import Store

__all__ = ["held", "is_free", "of_build", "of_key", "of_mount"]

_SHORTEST, _LONGEST = 0.001, 0.05
"""Seconds between two looks."""


def of_key(key: str) -> str:
    """The lock of whoever does the step of this key."""
    return f"build step {key}"


def of_mount(name: str) -> str:
    """The lock of those who use a folder that steps share: alone, or together."""
    return f"build mount {name}"


def of_build(name: str) -> str:
    """The lock of a build that goes on."""
    return f"build {name}"


def is_free(store: Store, name: str) -> bool:
    """Whether nobody has this lock. It is not taken for that, so nobody who asks for it meanwhile is refused."""
    return not store.is_locked(name)


@contextmanager
def held(
    store: Store,
    name: str,
    *,
    shared: bool = False,
    waits: Callable[[], object] | None = None,
    stop: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Hold this lock of the store while inside.

    `waits` is called once if somebody has it; `stop` again and again meanwhile: what it raises ends the waiting.
    """
    pause = _SHORTEST
    while True:
        with store.lock(name, shared=shared, wait=False) as is_mine:
            if is_mine:
                yield
                return
        if waits is not None:
            waits()
            waits = None
        if stop is not None:
            stop()
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
