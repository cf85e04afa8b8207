"""A build as JSON, a line for each event: for programs that watch.

`event` is `begun`, `output`, `progress`, `ended` or `warned`, and `failed` in the last line of a build that has; the
other names are those of `layerstore.build.events`. Output of programs is text in
`text`, or base64 in `data` where it is no UTF-8.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

from layerstore.build.errors import BuildError, Place
from layerstore.build.events import Begun, Ended, Event, Output, Progress, Vertex
from layerstore.errors import LayerstoreError

__all__ = ["Records", "failure_record"]


class Records:
    """Gives lines to `write`. `now` is seconds since 1970."""

    def __init__(self, write: Callable[[str], object], now: Callable[[], float] = time.time) -> None:
        self._write = write
        self._now = now

    def __call__(self, event: Event) -> None:
        record = {"event": type(event).__name__.lower(), "time": round(self._now(), 6), **_record(event)}
        self._write(json.dumps(record, ensure_ascii=False))


def failure_record(problem: LayerstoreError) -> str:
    """The last line of a build that has failed: the error, its line of the Dockerfile and its program's exit code."""
    record: dict[str, Any] = {"event": "failed", "message": problem.message, "remedy": problem.remedy}
    if isinstance(problem, BuildError):
        record |= {"exit_code": problem.exit_code, "container": problem.container, **_place(problem.place)}
    return json.dumps(record, ensure_ascii=False)


def _record(event: Event) -> dict[str, Any]:
    match event:
        case Begun(vertex):
            return {**_vertex(vertex), "title": vertex.title, **_place(vertex.place)}
        case Output(vertex, stream, data):
            try:
                said = {"text": data.decode()}
            except UnicodeDecodeError:
                said = {"data": base64.b64encode(data).decode()}
            return {**_vertex(vertex), "stream": stream, **said}
        case Progress(vertex, what, done, total):
            return {**_vertex(vertex), "what": what, "done": done, "total": total}
        case Ended(vertex, seconds, cached, error):
            return {**_vertex(vertex), "seconds": round(seconds, 6), "cached": cached, "error": error}
        case _:
            return {"rule": event.rule, "message": event.message, "url": event.url, **_place(event.place)}


def _vertex(vertex: Vertex) -> dict[str, Any]:
    return {"vertex": vertex.number}


def _place(place: Place | None) -> dict[str, Any]:
    return {} if place is None else {"file": place.file, "line": place.line, "end": place.end}
