"""Indexes: a stack of layers that are kept as tars, as one filesystem that the kernel mounts.

Each layer has a listing (`layerstore.tar.take_listing`). What the listings of a stack say, laid on each other from
bottom to top, is written as an erofs image without data: these lie in the tars, which are its devices. In C per name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from layerstore.errors import CannotRepresent, Damaged, LayerstoreError, named
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import private
from layerstore.tar.engine import MEND, call_failed, memory_told, no_memory
from layerstore.tar.skeleton import SkeletonReader
from layerstore.values import frozen

__all__ = ["LISTING", "TAR", "Part", "Written", "write_index"]

TAR, LISTING = "layer.tar", "listing"
"""The names of a layer's two files in its folder."""


@frozen
class Part:
    """One layer of a stack: its listing, and its tar."""

    listing: Path
    tar: Path


@frozen
class Written:
    """What an index has: `inodes`, and whether it is to be looked at through overlay.

    `escaped`: a layer has xattrs that begin with `trusted.overlay.`. Overlay gives them out by these names, and whoever
    mounts the index by itself sees them by others.
    """

    inodes: int
    escaped: bool


def write_index(stack: Sequence[Part], target: Path) -> Written:
    """Write the index of a stack, the nearest layer first, to the new file `target`. It is not synced.

    Mounted, with the option `device` for each tar, **the bottom one first**, it shows the stack as one tree; that of no
    layer at all is an empty folder. The same stack has the same index, byte for byte. On an error there is no file.
    Raises `Damaged` (a listing is not what it was, or does not fit its tar), `CannotRepresent` (what no erofs can
    have), `KernelError`.
    """
    with memory_told(), ExitStack() as undo:
        job = lib.ls_stack_new()
        if job == ffi.NULL:
            raise no_memory()
        undo.callback(lib.ls_stack_free, job)
        kept = [_add(job, part) for part in reversed(stack)]
        with named("open", target):
            file = undo.enter_context(FileIO(target, "xb", opener=private))
        try:
            if lib.ls_stack_write(job, file.fileno()):
                raise _failure(job, target)
            with named("close", target):
                file.close()
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise
        del kept  # until here C has read it
        facts = ffi.new("struct ls_stack_facts *")
        lib.ls_stack_tell(job, facts)
        return Written(facts.inodes, bool(facts.escaped))


def _add(job: Any, part: Part) -> Any:
    """Lay one more layer on the stack; what has to be kept until the end."""
    with SkeletonReader(part.listing) as reader:
        index = reader.index()
    with named("stat", part.tar):
        size = os.stat(part.tar, follow_symlinks=False).st_size
    data = ffi.from_buffer(index)
    if lib.ls_stack_add(job, data, len(index), os.fsencode(part.tar.absolute()), size):
        raise _failure(job, part.listing)
    return data


def _failure(job: Any, about: Path) -> LayerstoreError:
    """The error for what failed with a listing, or with the index."""
    noted = ffi.new("struct ls_failure *")
    lib.ls_stack_failure(job, noted)
    words, path = ffi.string(noted.what).decode(), os.fsdecode(ffi.string(noted.path))
    if noted.kind == lib.LS_FAIL_DAMAGED:
        where = Path(path) if path.startswith("/") else about
        within = f": /{path}" if path and where is about else ""
        return Damaged(f"{where}: {words}{within}", remedy=MEND, path=where)
    if noted.kind == lib.LS_FAIL_DIALECT:
        shown = f"/{path}"
        return CannotRepresent(f"{shown}: {words}", remedy="Use a store with another storage driver.", path=shown)
    where = Path(path or about)
    return call_failed(words, noted.code, None if words == "malloc" else where)
