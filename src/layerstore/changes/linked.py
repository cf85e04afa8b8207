"""The tree that layers in aufs's form make together, without a mount and without copying: of hard links (linked.c).

It is for reading only: its files are the layers' own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from layerstore.kernel._shim import lib
from layerstore.kernel.files.descriptors import FOLDER, HANDLE, open_path
from layerstore.kernel.files.failure import kernel_error, new_failure

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
        failure = new_failure()
        answer = lib.ls_link_stack(fds, len(fds), root, failure)
    if answer < 0:
        raise kernel_error(failure, target)
