"""Things that are done side by side, each in a thread of its own. The first failure ends the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from layerstore.build.steps.stopping import Stop, Stopped
from layerstore.patience import look_up

__all__ = ["Once", "together"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def together(deeds: Sequence[Callable[[], object]], stop: Stop, *, name: str) -> None:
    """Do all of them. Raises what the first that failed has raised, or an interrupt, when all others have ended.

    A single one is done in this thread. So are those for which the system gives no thread, in their order, when all
    others have been begun: nobody may wait for one that comes after it.
    """
    doing = _Doing(stop)
    if len(deeds) == 1:
        deeds[0]()
        return
    threads: list[threading.Thread] = []
    left: list[Callable[[], object]] = []
    try:
        for number, deed in enumerate(deeds):
            thread = threading.Thread(target=doing.do, args=(deed,), name=f"{name}-{number}")
            threads.append(thread)  # before an interrupt can come that finds it at work
            try:
                thread.start()
            except RuntimeError:  # "can't start new thread": EAGAIN
                threads.pop()
                left.append(deed)
        for deed in left:
            doing.do(deed)
        for thread in threads:
            while thread.is_alive():
                thread.join(look_up())
    except BaseException:  # an interrupt
        stop.set()
        for thread in threads:
            with suppress(RuntimeError):  # it has not begun, and will find that there is nothing to do any more
                thread.join()
        raise
    if doing.first is not None:
        raise doing.first


class _Doing:
    """What several threads do, and what went wrong first."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self.first: BaseException | None = None

    def do(self, deed: Callable[[], object]) -> None:
        try:
            self._stop.check()
            deed()
        except BaseException as error:
            with self._lock:
                if self.first is None and not isinstance(error, Stopped):
                    self.first = error
            self._stop.set()
            if threading.current_thread() is threading.main_thread() and not isinstance(error, Exception):
                raise


class Once(Generic[K, V]):
    """What is found out once for each key, and kept. Whoever asks for another key waits for nobody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[K, threading.Lock] = {}
        self._found: dict[K, V] = {}

    def get(self, key: K, find: Callable[[], V]) -> V:
        """What `find` gives; it is asked again for as long as it fails."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._found:
                self._found[key] = find()
            return self._found[key]
