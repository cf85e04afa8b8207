"""How many connections read blobs at once: daemon.json's `max-concurrent-downloads`, over all that one client does."""

from __future__ import annotations

import threading

__all__ = ["Lines"]


class Lines:
    """How many connections read blobs, and how many may. Thread-safe."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._used = 0
        self._lock = threading.Lock()

    def take(self) -> None:
        """One more, whether or not there are enough: somebody reads a blob."""
        with self._lock:
            self._used += 1

    def take_idle(self) -> bool:
        """One more if it is idle."""
        with self._lock:
            if self._used >= self.most:
                return False
            self._used += 1
            return True

    def give_back(self) -> None:
        """One less."""
        with self._lock:
            self._used -= 1

    @property
    def is_crowded(self) -> bool:
        """Are there more than there should be?"""
        with self._lock:
            return self._used > self.most
