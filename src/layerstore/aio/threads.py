"""The threads in which a store is worked while the tasks of an event loop wait for it.

One rule for all that is awaited: when the task goes on, its work is over. A task that is cancelled has its work told to
stop, waits for its end, and is cancelled then: so no lock, mount or program is left to a thread that nobody waits for.
What had not begun never does. What has begun stops where the library expects interrupts (`layerstore.patience`), and
where it tells its progress; what does neither takes milliseconds, and goes to its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from layerstore import StoreClosed
from layerstore.patience import Stopped, stoppable

__all__ = ["THREADS", "Threads"]

T = TypeVar("T")

THREADS = 32
"""How much of one store is done at once, unless its opener says otherwise. Waiting for programs does not count."""


class Threads:
    """Those of one open store."""

    def __init__(self, most: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(most, "layerstore-aio")
        self._under_way: set[asyncio.Future[Any]] = set()
        self._is_closed = False
        self.was_stopped = False
        """Has anything that was under way been stopped?"""

    async def do(
        self,
        work: Callable[[], T],
        *,
        undo: Callable[[T], object] | None = None,
        alone: bool = False,
        at_end: bool = False,
        is_stoppable: bool | None = None,
    ) -> T:
        """What `work` returns or raises, in a thread of the pool; `alone`: in one of its own, as it may wait for long.

        `undo` is done with what it returns if nobody wants that any more. `at_end`: it gives something back, so it is
        done even after `close`, and to its end, unless it `is_stoppable`. Raises `StoreClosed`.
        """
        if self._is_closed and not at_end:
            raise StoreClosed("the store is closed", remedy="Open it again.")
        doing = _Doing(work, is_stoppable=not at_end if is_stoppable is None else is_stoppable)
        if alone or at_end:
            threading.Thread(target=doing.run, name="layerstore-aio-alone", daemon=True).start()
        else:
            self._pool.submit(doing.run)
        self._under_way.add(doing.done)
        try:
            cancelled = await _ended(doing)
            if cancelled is None:
                result: T = doing.done.result()
                return result
            self.was_stopped = True
            if undo is not None and not doing.done.cancelled() and doing.done.exception() is None:
                undoing = _Doing(partial(undo, doing.done.result()), is_stoppable=False)
                threading.Thread(target=undoing.run, name="layerstore-aio-undo", daemon=True).start()
                await _ended(undoing)
                undoing.done.exception()  # it is nobody's now
            raise cancelled
        finally:
            self._under_way.discard(doing.done)

    def let_go(self, work: Callable[[], object]) -> None:
        """Do it in a thread, for nobody who waits; `close` does. Without an event loop it is done by whoever asks."""
        try:
            doing = _Doing(work, is_stoppable=False)
        except RuntimeError:
            with suppress(Exception):
                work()
            return
        try:
            threading.Thread(target=doing.run, name="layerstore-aio-alone", daemon=True).start()
        except RuntimeError:  # there are too many, or the program is at its end
            with suppress(Exception):
                work()
            return
        self._under_way.add(doing.done)  # it is settled in this thread, so not before
        doing.done.add_done_callback(self._forget)

    def _forget(self, done: asyncio.Future[Any]) -> None:
        self._under_way.discard(done)
        done.exception()  # it is nobody's

    async def close(self) -> asyncio.CancelledError | None:
        """Begin nothing more, and wait for what is under way; with what the task was cancelled meanwhile, if it was."""
        self._is_closed = True
        cancelled = None
        while under_way := [done for done in self._under_way if not done.done()]:
            try:
                await asyncio.wait(under_way)
            except asyncio.CancelledError as error:
                cancelled = error
        self._pool.shutdown(wait=False)  # its threads have nothing to do
        return cancelled


class _Doing:
    """One piece of work. `done` is settled in the event loop when its thread is through with it."""

    def __init__(self, work: Callable[[], Any], *, is_stoppable: bool) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._is_stoppable = is_stoppable
        self._has_begun = False
        self._lock = threading.Lock()
        self.is_over = False
        self.done: asyncio.Future[Any] = self._loop.create_future()

    def stop(self) -> None:
        """It is not wanted any more. In the event loop."""
        with self._lock:
            self.is_over = True
            never = not self._has_begun and self._is_stoppable
        if never:
            self.done.cancel()

    def run(self) -> None:
        """In its thread."""
        with self._lock:
            if self.is_over and self._is_stoppable:
                return
            self._has_begun = True
        result, error = None, None
        try:
            result = self._context.run(self._worked)
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._settle, result, error)

    def _worked(self) -> Any:
        if not self._is_stoppable:
            return self._work()
        with stoppable(lambda: self.is_over):
            return self._work()

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.done.cancelled():
            return
        if error is None:
            self.done.set_result(result)
        elif isinstance(error, Stopped):
            self.done.cancel()
        elif isinstance(error, StopIteration):  # which cannot go through a task (PEP 479)
            wrapped = RuntimeError("StopIteration was raised")
            wrapped.__cause__ = error
            self.done.set_exception(wrapped)
        else:
            self.done.set_exception(error)


async def _ended(doing: _Doing) -> asyncio.CancelledError | None:
    """Wait until it is done; with what the task was cancelled meanwhile, if it was."""
    cancelled = None
    while not doing.done.done():
        try:
            await asyncio.wait([doing.done])
        except asyncio.CancelledError as error:
            cancelled = error
            doing.stop()
    return cancelled
