"""Bars on standard error for what takes long: one a layer. Nothing where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeAlias

from layerstore.cli import output

Report: TypeAlias = Callable[[str, int, int | None], None]


@contextmanager
def bars(verb: str, *, quiet: bool = False) -> Iterator[Report | None]:
    """Gives the function to which a load or save reports `(layer, bytes done, bytes in all)`, from any thread.

    None when there is nothing to show it on: then nobody needs to count.
    """
    if quiet or output.is_quiet():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}
    lock = Lock()
    # The bars vanish at the end, so that what is left is what docker prints. On a terminal it appears above them; what
    # goes elsewhere goes past them.
    above = sys.stdout is not None and sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=above) as shown:

        def report(label: str, done: int, total: int | None) -> None:
            with lock:
                if label not in tasks:
                    tasks[label] = shown.add_task(f"{verb} {output.printable(label)}", total=total)
            shown.update(tasks[label], completed=done, total=total)

        yield report
