"""`Container.arun`: a program run in a container while other tasks of an event loop go on.

Each has a thread of its own, not one of the loop's few: two hundred that sleep do not wait for each other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.containers.running import Args, Running, Runs

__all__ = ["arun"]


async def arun(box: Runs, args: Args, how: Mapping[str, Any]) -> CompletedProcess[Any]:
    """`Container.arun`."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[CompletedProcess[Any]] = loop.create_future()
    ending = _Ending()

    def settle(result: CompletedProcess[Any] | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if result is not None:
            done.set_result(result)
        elif error is not None:
            done.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = box.run(args, started=ending.started, **how)
        except BaseException as raised:
            error = raised
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="arun", daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        ending.end()
        await asyncio.wait([done])  # until nothing of it lives any more
        done.exception()  # it is nobody's now
        raise


class _Ending:
    """Ends a program, whether it has been started by then or is about to be."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._is_over = False

    def started(self, running: Running) -> None:
        with self._lock:
            self._running = running
            if self._is_over:
                running.kill()

    def end(self) -> None:
        with self._lock:
            self._is_over = True
            if self._running is not None:
                self._running.kill()
