"""A tree, listed by several threads. Per tree in Python, per file in C (walk.c)."""

from __future__ import annotations

import os
import time

from layerstore.gathering.listing import Listing
from layerstore.gathering.rules import Rules
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.failure import kernel_error, new_failure
from layerstore.tar.engine import taken

_MOST_THREADS = 4


def walk(root: int, top: bytes = b"", *, rules: Rules | None = None) -> Listing:
    """List what is at the path `top` below the directory descriptor `root`, and all that is below it.

    Symlinks are listed and not followed, on the way to `top` neither. What `rules` leave out is not listed, and a
    folder that is left out is entered only if a rule could take back something in it; it is listed if one does. Sockets
    are no part of a tree. What vanishes meanwhile is not there, and if `top` is not there, the listing is empty. Raises
    `KernelError` when a folder cannot be read.
    """
    began = time.time_ns()
    job = lib.ls_walk_new()
    if job == ffi.NULL:
        raise MemoryError
    try:
        failure = new_failure()
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        if lib.ls_walk_run(job, root, top, ffi.NULL if rules is None else rules.pointer, threads, failure):
            raise kernel_error(failure, b"/" + top if top else b"")
        size, files = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        lib.ls_walk_sums(job, size, files)
        return Listing(
            taken(lib.ls_walk_records, job),
            taken(lib.ls_walk_strings, job),
            began=began,
            size=size[0],
            files=files[0],
        )
    finally:
        lib.ls_walk_free(job)
