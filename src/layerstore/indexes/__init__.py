"""Indexes: a stack of layers that are kept as tars, as one filesystem that the kernel mounts.

Each layer has a listing (`layerstore.tar.take_listing`). What the listings of a stack say, laid on each other from bottom to
top, is written as an erofs image without data: these lie in the tars, which are its devices. In C per name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from layerstore.errors import CannotRepresent, Damaged, LayerstoreError, named
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import opened
from layerstore.tar.engine import MEND, call_failed, memory_told, no_memory
from layerstore.tar.skeleton import SkeletonReader
from layerstore.values import frozen

__all__ = ["LISTING", "TAR", "Part", "Written", "write_index"]

TAR, LISTING = "layer.tar", "listing"
"""The names of a layer's two files in its folder."""

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


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

    Mounted, with the option `device` for each tar, **the bottom one first**, it shows the stack as one tree. On an error
    there is no file. Raises `Damaged` (a listing is not what it was), `CannotRepresent` (what no erofs can have),
    `KernelError`.
    """
    with memory_told(), ExitStack() as undo:
        job = lib.ls_stack_new()
        if job == ffi.NULL:
            raise no_memory()
        undo.callback(lib.ls_stack_free, job)
        kept = [_add(job, part, undo) for part in reversed(stack)]
        with named("open", target):
            file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if lib.ls_stack_write(job, file):
                raise _failure(job, stack)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise
        finally:
            os.close(file)
        del kept  # until here C has read it
        facts = _facts(job)
        return Written(facts.inodes, bool(facts.escaped))


def _add(job: Any, part: Part, undo: ExitStack) -> Any:
    """Lay one more layer on the stack; what has to be kept until the end."""
    with SkeletonReader(part.listing) as reader:
        index = reader.index()
    tar = undo.enter_context(opened(part.tar, _FILE))
    data = ffi.from_buffer(index)
    if lib.ls_stack_add(job, data, len(index), tar, os.fstat(tar).st_size):
        raise _failure(job, [part])
    return data


def _facts(job: Any) -> Any:
    facts = ffi.new("struct ls_stack_facts *")
    lib.ls_stack_tell(job, facts)
    return facts


def _failure(job: Any, stack: Sequence[Part]) -> LayerstoreError:
    """The error for what failed in the last of these layers, or in all of them."""
    noted = ffi.new("struct ls_failure *")
    lib.ls_stack_failure(job, noted)
    words, path = ffi.string(noted.what).decode(), ffi.string(noted.path)
    shown = "/" + os.fsdecode(path)
    if noted.kind == lib.LS_FAIL_DAMAGED:
        place = stack[0].listing
        return Damaged(f"{place}: {words}{f': {shown}' if path else ''}", remedy=MEND, path=place)
    if noted.kind == lib.LS_FAIL_DIALECT:
        return CannotRepresent(f"{shown}: {words}", remedy="Use a store with another storage driver.", path=shown)
    return call_failed(words, noted.code, shown if path else None)
