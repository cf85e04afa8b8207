"""How a build is shown: chosen by `--progress`, or by where standard error leads to."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from layerstore.build.events import Event, Warned
from layerstore.cli import output
from layerstore.cli.building.board import Board
from layerstore.cli.building.plain import Plain
from layerstore.cli.building.records import Records

__all__ = ["VIEWS", "view"]

VIEWS: Final = ("auto", "plain", "tty", "json", "quiet")

_A_SECOND: Final = 10
"""How often a board is drawn anew."""


@contextmanager
def view(kind: str) -> Iterator[Callable[[Event], object]]:
    """Gives what the events of a build are told to. All of it is on standard error.

    `auto` is a board (`tty`) on a terminal, and lines (`plain`) elsewhere. A board is left as it is at the end.
    """
    if kind == "quiet":
        yield _silent
    elif kind == "json":
        yield Records(_raw)
    elif kind == "tty" or (kind == "auto" and _can_redraw()):
        with _board() as told:
            yield told
    else:
        yield Plain(output.warn)


def _can_redraw() -> bool:
    """Whether standard error is a terminal whose cursor can go back."""
    return not output.is_quiet() and os.environ.get("TERM") not in ("dumb", "unknown")


def _silent(event: Event) -> None:
    pass


def _raw(line: str) -> None:
    output.warn(line)


@contextmanager
def _board() -> Iterator[Callable[[Event], object]]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, highlight=False, markup=False)
    board, lock = Board(time.monotonic()), threading.Lock()
    warnings: list[Warned] = []

    def drawn() -> Text:
        with lock:
            lines = board.lines(console.width, console.height, time.monotonic())
        return Text("\n".join(lines), style="default", no_wrap=True, overflow="crop")

    def told(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event)
        with lock:
            board.take(event, time.monotonic())

    above = sys.stdout is not None and sys.stdout.isatty()
    with Live(get_renderable=drawn, console=console, refresh_per_second=_A_SECOND, redirect_stdout=above):
        yield told
    for warning in warnings:
        Plain(output.warn)(warning)
