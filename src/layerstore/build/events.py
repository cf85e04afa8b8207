"""What a build tells while it goes on: frozen values, given to one callable, one at a time.

A vertex is one thing that is done: a line of the Dockerfile, the context that is read, the image that is written. Each
begins once and ends once; between that it may tell how far it is, and what its program writes. `Begun` of different
vertices come in the order of their numbers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from layerstore import LayerstoreError
from layerstore.build.errors import Place
from layerstore.values import frozen

__all__ = ["Begun", "Ended", "Event", "Output", "Progress", "Teller", "Told", "Vertex", "Warned"]


@frozen
class Vertex:
    """One thing that is done. `title` is as BuildKit has it: `[build 2/4] RUN make`, `exporting to image`."""

    number: int
    title: str
    place: Place | None = None
    """The lines of the Dockerfile that say so, if any do."""

    @property
    def name(self) -> str:
        """What each line about it begins with: `#5`."""
        return f"#{self.number}"


@frozen
class Begun:
    """It is being done."""

    vertex: Vertex


@frozen
class Output:
    """What its program has written: whole lines, but for the last one of a program that ends without one.

    A line of more than 64 KiB comes in pieces.
    """

    vertex: Vertex
    stream: Literal["stdout", "stderr"]
    data: bytes


@frozen
class Progress:
    """How far it is: `done` of `total` bytes (None: nobody knows) of `what`, which is a name of its own in it."""

    vertex: Vertex
    what: str
    done: int
    total: int | None


@frozen
class Ended:
    """It is done, in so many seconds, or was there already (`cached`); or has failed, and `error` says why."""

    vertex: Vertex
    seconds: float
    cached: bool = False
    error: str | None = None


@frozen
class Warned:
    """Something that is allowed, and probably not meant. `rule` is BuildKit's name for it, if it has one."""

    message: str
    place: Place | None = None
    rule: str = ""
    url: str = ""


Event = Begun | Output | Progress | Ended | Warned
Told = Callable[[Event], object]
"""What is given the events, by one thread at a time. An error that it raises ends the build."""


class Teller:
    """Numbers the vertices of one build, and gives its events to whoever listens, one after the other."""

    def __init__(self, told: Told | None) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._count = 0

    def tell(self, event: Event) -> None:
        """Give this event to whoever listens."""
        if self._told is not None:
            with self._lock:
                self._told(event)

    def begin(self, title: str, place: Place | None = None) -> Doing:
        """A vertex that begins now."""
        with self._lock:
            self._count += 1
            vertex = Vertex(self._count, title, place)
            if self._told is not None:
                self._told(Begun(vertex))
        return Doing(self, vertex)

    @contextmanager
    def doing(self, title: str, place: Place | None = None) -> Iterator[Doing]:
        """A vertex that begins now, and ends with the block."""
        doing = self.begin(title, place)
        try:
            yield doing
        except BaseException as error:
            said = error.message if isinstance(error, LayerstoreError) else str(error)
            if not isinstance(error, Exception):  # an interrupt, which has no words of its own
                said = type(error).__name__
            doing.end(error=said or type(error).__name__)
            raise
        doing.end()


class Doing:
    """A vertex that has begun. Until it ends, `cached` may be set, and `made`, when its result was (ns since 1970).

    `altered` is set if its inputs did not stay as they were while it was done: then nobody is to remember its result.
    """

    def __init__(self, teller: Teller, vertex: Vertex) -> None:
        self._teller = teller
        self._began = time.monotonic()
        self._ended = False
        self.vertex = vertex
        self.cached = False
        self.made: int | None = None
        self.altered = False

    def output(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Its program has written whole lines."""
        self._teller.tell(Output(self.vertex, stream, data))

    def progress(self, what: str, done: int, total: int | None) -> None:
        """It is so far."""
        self._teller.tell(Progress(self.vertex, what, done, total))

    def end(self, *, error: str | None = None) -> None:
        """It is done, or has failed. A second time is no error, and tells nothing."""
        if not self._ended:
            self._ended = True
            self._teller.tell(Ended(self.vertex, time.monotonic() - self._began, self.cached, error))
