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
from typing import Any, Self

from layerstore.errors import CannotRepresent, Damaged, KernelError, LayerstoreError, named
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import private
from layerstore.tar.engine import MEND, call_failed, memory_told, no_memory
from layerstore.tar.skeleton import SkeletonReader
from layerstore.values import frozen

__all__ = ["LAZY", "LISTING", "TAR", "LaidTree", "Part", "Written", "write_index"]

TAR, LISTING = "layer.tar", "listing"
"""The names of a layer's two files in its folder."""

LAZY = "lazy"
"""And of a folder that is there for as long as not all of the tar is: it may be read only while it is watched."""


_OTHERS = "Files keep it with another storage driver: use a store with overlay2, btrfs or vfs, on xfs or btrfs."
_REFUSED = "Linux takes this extended attribute on no filesystem, so no storage driver does: make the image without it."


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


class LaidTree:
    """Layers as one tree, in memory: laid on each other from bottom to top, asked, and written as an index.

    A context manager. What is wrong with a listing, or with what erofs can have, is raised where it is met:
    `Damaged` (a listing is not what it was, or does not fit its tar), `CannotRepresent`, `KernelError`; after that
    the object is of no use.
    """

    def __init__(self) -> None:
        with memory_told():
            self._job = lib.ls_stack_new()
        if self._job == ffi.NULL:
            raise no_memory()
        self._kept: list[Any] = []  # listings: C reads them to the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back."""
        lib.ls_stack_free(self._job)
        self._job = ffi.NULL
        self._kept.clear()

    def add(self, part: Part) -> None:
        """Lay one more layer on those that are there."""
        with memory_told():
            with SkeletonReader(part.listing) as reader:
                index = reader.index()
            with named("stat", part.tar):
                size = os.stat(part.tar, follow_symlinks=False).st_size
            data = ffi.from_buffer(index)
            self._kept.append(data)
            if lib.ls_stack_add(self._job, data, len(index), os.fsencode(part.tar.absolute()), size):
                raise self._failure(part.listing)

    def is_symlink(self, path: str) -> bool:
        """Is this name, without a slash before it, a symbolic link? One in a folder that is none is not followed."""
        return bool(lib.ls_stack_is_symlink(self._job, os.fsencode(path)))

    def write(self, target: Path) -> Written:
        """Write the index to the new file `target`; on an error there is no file. It is not synced. Once for a stack.

        Mounted, with the option `device` for each tar, **the bottom one first**, it shows the layers as one tree; that
        of no layer at all is an empty folder. The same stack has the same index, byte for byte.
        """
        with memory_told(), ExitStack() as undo:
            with named("open", target):
                file = undo.enter_context(FileIO(target, "xb", opener=private))
            try:
                if lib.ls_stack_write(self._job, file.fileno()):
                    raise self._failure(target)
                with named("close", target):
                    file.close()
            except BaseException:
                with suppress(OSError):
                    target.unlink()
                raise
            facts = ffi.new("struct ls_stack_facts *")
            lib.ls_stack_tell(self._job, facts)
            return Written(facts.inodes, bool(facts.escaped))

    def _failure(self, about: Path) -> LayerstoreError:
        """The error for what failed with a listing, or with the index."""
        noted = ffi.new("struct ls_failure *")
        lib.ls_stack_failure(self._job, noted)
        words, path = ffi.string(noted.what).decode(), os.fsdecode(ffi.string(noted.path))
        if noted.kind == lib.LS_FAIL_DAMAGED:
            where = Path(path) if path.startswith("/") else about
            within = f": /{path}" if path and where is about else ""
            return Damaged(f"{where}: {words}{within}", remedy=MEND, path=where)
        if noted.kind == lib.LS_FAIL_DIALECT:
            shown = f"/{path}"
            return CannotRepresent(f"{shown}: {words}", remedy=_OTHERS, path=shown)
        place = path if path.startswith("/") else f"/{path}" if path else about  # a tar, within the tree, or the index
        if words == "setxattr":  # which nobody calls: it is what the kernel would say to it
            return KernelError(words, noted.code, remedy=_REFUSED, path=place)
        return call_failed(words, noted.code, None if words == "malloc" else place)


def write_index(stack: Sequence[Part], target: Path) -> Written:
    """Write the index of a stack, the nearest layer first, to a new file. See `LaidTree`, which raises the same."""
    with LaidTree() as whole:
        for part in reversed(stack):
            whole.add(part)
        return whole.write(target)
