"""A build as lines, in BuildKit's plain form: `#5 [2/4] RUN make`, `#5 0.312 gcc -c …`, `#5 DONE 1.2s`.

Steps that go on at the same time are told in turn, each under its title, and never within a line.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from layerstore.build.events import Begun, Ended, Event, Output, Progress, Vertex, Warned
from layerstore.cli import units

__all__ = ["GIVEN_UP", "Plain"]

GIVEN_UP = ("Stopped", "KeyboardInterrupt", "SystemExit")
"""What a step ends with that did not fail itself: another one has, or the user has had enough."""

_OFTEN = 1.0
"""Seconds between two lines about how far one thing is."""


class Plain:
    """Gives lines to `write`, a few at a time. `now` is a clock in seconds."""

    def __init__(self, write: Callable[[str], object], now: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._now = now
        self._shown: Vertex | None = None
        self._began: dict[int, float] = {}
        self._told: dict[tuple[int, str], float] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Begun(vertex):
                self._began[vertex.number] = self._now()
                self._about(vertex)
            case Output(vertex, _, data):
                self._about(vertex)
                passed = self._now() - self._began.get(vertex.number, self._now())
                for line in data.decode("utf-8", "replace").removesuffix("\n").split("\n"):
                    # What a carriage return would hide on a terminal is history: only what is left counts.
                    self._write(f"{vertex.name} {passed:.3f} {line.rstrip(chr(13)).rpartition(chr(13))[2]}")
            case Progress(vertex, what, done, total):
                self._progress(vertex, what, done, total)
            case Ended(vertex):
                self._about(vertex)
                self._write(f"{vertex.name} {_end(event)}")
                self._began.pop(vertex.number, None)
            case Warned(message, place, rule):
                where = "" if place is None else f" ({place})"
                self._shown = None
                self._write(f"\nWARNING: {f'{rule}: ' if rule else ''}{message}{where}")

    def _about(self, vertex: Vertex) -> None:
        """What follows is about this one."""
        if self._shown is None or self._shown.number != vertex.number:
            if self._shown is not None:
                self._write("")
            self._shown = vertex
            self._write(f"{vertex.name} {vertex.title}")

    def _progress(self, vertex: Vertex, what: str, done: int, total: int | None) -> None:
        now, is_done = self._now(), total is not None and done >= total
        key = (vertex.number, what)
        last = self._told.get(key)
        if last == float("inf") or (last is not None and not is_done and now - last < _OFTEN):
            return
        self._told[key] = float("inf") if is_done else now
        self._about(vertex)
        amount = units.size(done) if total is None or is_done else f"{units.size(done)} / {units.size(total)}"
        label = "" if what == vertex.name else f"{what} "
        self._write(f"{vertex.name} {label}{amount}{' done' if is_done else ''}")


def _end(event: Ended) -> str:
    if event.error in GIVEN_UP:
        return "CANCELED"
    if event.error is not None:
        return f"ERROR: {units.one_line(event.error)}"
    return "CACHED" if event.cached else f"DONE {event.seconds:.1f}s"
