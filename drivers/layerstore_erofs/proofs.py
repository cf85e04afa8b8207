"""What proves an index: at its begin, of which erofs takes no notice, are a magic number and the sha256 of the rest.

The kernel believes an index as it is, so nothing but this tells that a bit of it is another: a mode, a name, or where
the data of a file lie. One without the magic number was made before there was this, and cannot be asked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from layerstore.errors import named

__all__ = ["is_wrong", "prove"]

_MAGIC: Final = b"LSPROOF1"
_BEGIN: Final = 1024
"""Where erofs' own begins (Linux, `EROFS_SUPER_OFFSET`)."""


def prove(index: Path) -> None:
    """Write into an index that was just made what it is."""
    with named("write", index), open(index, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), _MAGIC + _digest(file.fileno()), 0)


def is_wrong(index: Path, write: Callable[[memoryview], object]) -> bool:
    """Is an index another than it was when it was made? One that has gone with its layer is not.

    `write` is given what is read for that.
    """
    with named("read", index), suppress(FileNotFoundError), open(index, "rb", buffering=0) as file:
        head = os.pread(file.fileno(), len(_MAGIC) + hashlib.sha256().digest_size, 0)
        return head.startswith(_MAGIC) and head[len(_MAGIC) :] != _digest(file.fileno(), write)
    return False


def _digest(file: int, write: Callable[[memoryview], object] | None = None) -> bytes:
    found = hashlib.sha256()
    at = _BEGIN
    while piece := os.pread(file, 1 << 20, at):
        found.update(piece)
        if write is not None:
            write(memoryview(piece))
        at += len(piece)
    return found.digest()
