"""The tree that layers in aufs's form make together, without a mount and without copying: of hard links (linked.c).

It is for reading only: its files are the layers' own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import FOLDER, HANDLE, MORE_DESCRIPTORS, NO_DESCRIPTORS, open_path

__all__ = ["link_stack"]


def link_stack(layers: Sequence[Path], target: Path) -> None:
    """Make the tree that `layers` show, the topmost first, in the empty folder `target`, on the same filesystem.

    Names are right, and so is everything of each file but its number of links. Nothing is synced. On an error the
    caller removes what there is of `target`.
    """
    with ExitStack() as after:
        fds = []
        for layer in layers:
            fds.append(open_path(layer, HANDLE))
            after.callback(os.close, fds[-1])
        root = open_path(target, FOLDER)
        after.callback(os.close, root)
        call = ffi.new("const char **")
        place = ffi.new("char[]", 4096)
        answer = lib.ls_link_stack(fds, len(fds), root, call, place, len(place))
    if answer < 0:
        remedy = MORE_DESCRIPTORS if -answer in NO_DESCRIPTORS else None
        where = os.fsencode(target) + b"/" + ffi.string(place)
        raise KernelError(ffi.string(call[0]).decode(), -answer, path=where, remedy=remedy)
