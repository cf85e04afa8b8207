"""What is not simply awaited: what is iterated, and what is entered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from layerstore.aio.threads import Threads

__all__ = ["Context", "Iteration", "Lock", "Opening"]

T = TypeVar("T")
V = TypeVar("V", covariant=True)

_END: Any = object()

_LEAST, _MOST = 0.001, 0.05
"""Seconds between two looks whether a lock is free."""


class Iteration(Generic[T]):
    """An iterator whose each step is made in a thread, when it is asked for. An asynchronous iterator.

    If it is left before its end, what it holds is given back at once, by a thread that nobody waits for but the store's
    `close`. `contextlib.aclosing` waits for it.
    """

    def __init__(
        self, threads: Threads, begin: Callable[[], Iterator[T]], faced: Callable[[Any], T], *, alone: bool
    ) -> None:
        self._threads = threads
        self._faced = faced
        self._alone = alone
        self._steps = _Steps(begin)

    def __del__(self) -> None:
        if self._steps.holds:
            self._threads.let_go(self._steps.close)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            found = await self._threads.do(self._steps.step, alone=self._alone)
        except BaseException:
            await self.aclose()
            raise
        if found is _END:
            raise StopAsyncIteration
        return self._faced(found)

    async def rest(self) -> list[T]:
        """All that is left, in one piece of work: quicker than one by one, where nobody waits for the first."""
        try:
            return [self._faced(one) for one in await self._threads.do(self._steps.rest, alone=self._alone)]
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Iterate no further: what it holds is given back."""
        if self._steps.holds:
            await self._threads.do(self._steps.close, at_end=True)


class _Steps(Generic[T]):
    """The iterator itself, apart: threads have this, and whoever iterates the other, so that it is seen who leaves."""

    def __init__(self, begin: Callable[[], Iterator[T]]) -> None:
        self._begin = begin
        self._steps: Iterator[T] | None = None
        self.holds = False
        """Has it begun, and is not over?"""

    def step(self) -> T:
        """The next one, or `_END`."""
        found: T = next(self._opened(), _END)
        if found is _END:
            self.holds = False
        return found

    def rest(self) -> list[T]:
        """All that is left."""
        found = list(self._opened())
        self.holds = False
        return found

    def close(self) -> None:
        """Give back what it holds."""
        self.holds = False
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()

    def _opened(self) -> Iterator[T]:
        if self._steps is None:
            self._steps = iter(self._begin())
            self.holds = True
        return self._steps


class Context(Generic[V]):
    """A context manager that is entered and left in a thread. An asynchronous one."""

    def __init__(
        self, threads: Threads, make: Callable[[], AbstractContextManager[Any]], faced: Callable[[Any], V]
    ) -> None:
        self._threads = threads
        self._make = make
        self._faced = faced
        self._inner: AbstractContextManager[Any] | None = None

    async def __aenter__(self) -> V:
        def enter() -> Any:
            inner = self._make()
            return inner, inner.__enter__()

        self._inner, entered = await self._threads.do(enter, undo=lambda made: made[0].__exit__(None, None, None))
        return self._faced(entered)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        inner, self._inner = self._inner, None
        if inner is None:
            return None
        return await self._threads.do(partial(inner.__exit__, kind, error, trace), at_end=True)


class Opening(Generic[T, V]):
    """What is awaited to have it, or entered to have it for a while: `await store.create_container()`, `async with`."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._start = start
        self._opened: Any = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._start().__await__()

    async def __aenter__(self) -> V:
        self._opened = await self._start()
        try:
            entered: V = await self._opened.__aenter__()
        except BaseException as error:
            await self._opened.__aexit__(type(error), error, error.__traceback__)
            raise
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        is_done: bool | None = await self._opened.__aexit__(kind, error, trace)
        return is_done


class Lock:
    """A lock of a store, waited for without a thread. An asynchronous context manager."""

    def __init__(self, threads: Threads, ask: Callable[[], AbstractContextManager[bool]], *, wait: bool) -> None:
        """`ask` gives a lock that is not waited for."""
        self._threads = threads
        self._ask = ask
        self._wait = wait
        self._held: AbstractContextManager[bool] | None = None

    async def __aenter__(self) -> bool:
        pause = _LEAST
        while True:
            held = self._ask()
            release = partial(held.__exit__, None, None, None)
            is_held: bool = await self._threads.do(held.__enter__, undo=partial(_ignoring, release))
            if is_held or not self._wait:
                self._held = held
                return is_held
            await self._threads.do(release, at_end=True)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MOST)

    async def __aexit__(self, *raised: object) -> None:
        held, self._held = self._held, None
        if held is not None:
            await self._threads.do(partial(held.__exit__, None, None, None), at_end=True)


def _ignoring(deed: Callable[[], object], _: object) -> None:
    deed()
