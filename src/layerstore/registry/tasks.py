"""Several transfers at once, as many as are wanted. When one fails the others are stopped, and not waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from types import TracebackType
from typing import Self, TypeVar

from layerstore.patience import until_done_or_one_fails

T = TypeVar("T")


class Stopped(Exception):
    """Something else has failed, so that nobody waits for this any more."""


class Tasks:
    """Threads for transfers. A context manager. `stop` is set when what runs should end."""

    def __init__(self, most: int, *, abort: Callable[[], object]) -> None:
        """`most`: how many run at once. `abort` is called on the way out of an error, to end what waits."""
        self.stop = Event()
        self._pool = ThreadPoolExecutor(most, "layerstore-transfer")
        self._abort = abort

    def check(self) -> None:
        """Raise `Stopped` if what runs should end."""
        if self.stop.is_set():
            raise Stopped

    def run(self, tasks: Sequence[Callable[[], T]], *, last: type[Exception] = Stopped) -> list[T]:
        """The results of all, in order.

        Raises the error of the first that failed; one of the kind `last` only if nothing else has failed.
        """
        self.stop.clear()
        running = [self._pool.submit(task) for task in tasks]
        try:
            until_done_or_one_fails(running)
        finally:
            if not all(future.done() and future.exception() is None for future in running):
                self.stop.set()
                for future in running:
                    future.cancel()
        wait(running)
        failures = [error for future in running if not future.cancelled() and (error := future.exception())]
        for error in sorted(failures, key=lambda error: (isinstance(error, Stopped), isinstance(error, last))):
            raise error
        return [future.result() for future in running]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.stop.set()
            self._abort()
        self._pool.shutdown(cancel_futures=True)
