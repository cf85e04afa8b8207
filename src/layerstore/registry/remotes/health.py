"""Which remotes are left alone for a while, since they did not answer: remembered for the life of the process.

The first failure is followed by half a minute of silence, each one that follows without a success between by twice as
much, up to ten minutes. While it lasts nobody waits for the remote, or even asks. One that has answered before may only
have much to do, as all have when all begin at once: with it, the silence begins at a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["HEALTH", "Health"]

FIRST_PAUSE: Final = 30.0
SHORT_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 600.0


class Health:
    """The pauses of remotes, by name. Any thread may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._paused: dict[str, tuple[int, float]] = {}
        self._known: set[str] = set()

    def is_paused(self, name: str) -> bool:
        """Is it to be left alone?"""
        with self._lock:
            return self._clock() < self._paused.get(name, (0, 0.0))[1]

    def failed(self, name: str) -> float:
        """Note a failure. Seconds for which it is left alone from now on.

        Failures of questions that were asked at the same time count once.
        """
        with self._lock:
            count, until = self._paused.get(name, (0, 0.0))
            now = self._clock()
            if now < until:
                return until - now
            first = SHORT_PAUSE if name in self._known else FIRST_PAUSE
            pause: float = min(first * 2**count, LONGEST_PAUSE)
            self._paused[name] = (min(count + 1, 30), now + pause)
            return pause

    def worked(self, name: str) -> None:
        """Note that it answers."""
        with self._lock:
            self._known.add(name)
            count, until = self._paused.get(name, (0, 0.0))
            if count and self._clock() >= until:
                del self._paused[name]


HEALTH: Final = Health()
"""Of this process."""
