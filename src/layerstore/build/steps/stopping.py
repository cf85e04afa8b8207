"""How a build is ended before its end: by an interrupt, or since one of its stages has failed."""

from __future__ import annotations

import os
import threading

__all__ = ["Stop", "Stopped"]


class Stopped(Exception):
    """Somebody else has failed, or the user has had enough: what is being done is given up."""


class Stop:
    """Set once. Who waits for a program watches the descriptor `fileno()`, which can be read from then on."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def set(self) -> None:
        """End it all. A second time is no error."""
        if not self._event.is_set():
            self._event.set()
            os.eventfd_write(self._fd, 1)

    @property
    def is_set(self) -> bool:
        """Is it to end?"""
        return self._event.is_set()

    def check(self) -> None:
        """Raises `Stopped` if it is to end."""
        if self._event.is_set():
            raise Stopped

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)
