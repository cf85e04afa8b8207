"""A file of a layer that cannot be read where it lies: put where it can be read in any order."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from layerstore.errors import named

__all__ = ["spooled"]


def spooled(fill: Callable[[Any], object]) -> io.BufferedReader:
    """What `fill` writes into a file without a name, from its front on. Whoever reads it closes it."""
    with ExitStack() as undo:
        with named("write"):
            spool = undo.enter_context(tempfile.TemporaryFile())
        fill(spool)
        with named("write"):
            spool.seek(0)
        undo.pop_all()
        return io.BufferedReader(spool.detach())
