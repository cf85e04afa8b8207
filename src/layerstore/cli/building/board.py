"""What a terminal shows of a build while it goes on: a line for each step, with the last lines of those that run. Pure.

The form is BuildKit's: steps that ended stand above those that go on, and a board that is too high for the terminal
shows its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field

from layerstore.build.events import Begun, Ended, Event, Output, Progress, Vertex, Warned
from layerstore.cli import units
from layerstore.cli.building.plain import GIVEN_UP
from layerstore.values import define

__all__ = ["Board"]

_TAIL = 6
"""How many lines of a step's output are shown while it runs."""


@define
class _Step:
    vertex: Vertex
    began: float
    tail: list[str] = field(factory=list)
    progress: dict[str, tuple[int, int | None]] = field(factory=dict)
    seconds: float | None = None
    cached: bool = False
    error: str | None = None


class Board:
    """Takes events, and says what is to be seen. Times are of any clock in seconds."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._steps: dict[int, _Step] = {}
        self._warnings = 0

    def take(self, event: Event, now: float) -> None:
        """Something has happened."""
        if isinstance(event, Warned):
            self._warnings += 1
            return
        if isinstance(event, Begun):
            self._steps[event.vertex.number] = _Step(event.vertex, now)
            return
        step = self._steps.setdefault(event.vertex.number, _Step(event.vertex, now))
        match event:
            case Output(_, _, data):
                lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
                step.tail = [*step.tail, *(line.rstrip("\r").rpartition("\r")[2] for line in lines)][-_TAIL:]
            case Progress(_, what, done, total):
                step.progress[what] = (done, total)
            case Ended(_, seconds, cached, error):
                step.seconds, step.cached, step.error = seconds, cached, error

    def lines(self, width: int, height: int, now: float) -> list[str]:
        """What is to be seen on a terminal of that size."""
        ended = [step for step in self._steps.values() if step.seconds is not None]
        running = [step for step in self._steps.values() if step.seconds is None]
        warned = f", {self._warnings} warning{'s' * (self._warnings > 1)}" if self._warnings else ""
        failed = any(step.error is not None for step in ended)
        state = "FAILED" if failed else "Building" if running or not ended else "Built"
        head = f"[+] {state} {now - self._began:.1f}s ({len(ended)}/{len(self._steps)}){warned}"
        below = [line for step in ended for line in _ended(step, width)]
        below += [line for step in running for line in _running(step, width, now)]
        room = max(1, height - 1)
        return [head[:width], *below[-room:]]


def _row(left: str, seconds: float, width: int) -> str:
    """Text at the left, a time at the right; the text gives way."""
    right = f"{seconds:.1f}s"
    room = max(0, width - len(right) - 1)
    if len(left) > room:
        left = f"{left[: max(0, room - 1)]}…" if room else ""
    return f"{left:<{room}} {right}"[:width]


def _ended(step: _Step, width: int) -> Sequence[str]:
    mark = "CANCELED " if step.error in GIVEN_UP else "ERROR " if step.error else "CACHED " if step.cached else ""
    return [_row(f" => {mark}{_line(step.vertex.title)}", step.seconds or 0.0, width)]


def _running(step: _Step, width: int, now: float) -> Sequence[str]:
    rows = [_row(f" => {_line(step.vertex.title)}", now - step.began, width)]
    for what, (done, total) in step.progress.items():
        amount = units.size(done) if total is None else f"{units.size(done)} / {units.size(total)}"
        label = "" if what == step.vertex.name else f"{_line(what)} "
        rows.append(f" => => {label}{amount}"[:width])
    return [*rows, *(f" => => # {_line(line)}"[:width] for line in step.tail)]


def _line(text: str) -> str:
    """One line, without what would move the cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in units.one_line(text.expandtabs(4)))
