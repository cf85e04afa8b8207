"""A new volume is given what its container's image has at that place: the files, and the folder's owner and mode.

What is copied is whole and on the disk before anything of it is seen. A volume that is there already keeps its folder,
which running containers may have: the copy is made beside it and then moved into it, name by name. Whoever dies
meanwhile has left a note (`rows.Unsettled`), by which the next goes on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import KernelError, named
from layerstore.kernel.files import copy_root_attributes, fsync_folder, open_beneath, remove_tree
from layerstore.kernel.files.descriptors import FOLDER
from layerstore.volumes.volume import DATA

__all__ = ["FRESH", "copy", "is_empty", "move_in", "source"]

FRESH = f"{DATA}.new"
"""In a volume's folder: what it is to be filled with."""

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR)


@contextmanager
def source(root: int, target: str) -> Iterator[int | None]:
    """While inside: the folder that a tree has at `target`, by whatever symbolic links of its own; None if none."""
    try:
        fd = open_beneath(root, target, FOLDER)
    except KernelError as error:
        if error.errno not in _NOTHING_THERE:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def is_empty(folder: Path) -> bool:
    """Is there nothing in a volume yet?"""
    with named("open", folder), os.scandir(folder) as entries:
        return next(entries, None) is None


def copy(fd: int, folder: Path, name: str) -> None:
    """Copy what a descriptor is of into a volume's `folder`, as `name`. Nothing is synced."""
    from layerstore.kernel.copying import copy_tree

    remove_tree(folder / name)  # what a power cut has left
    copy_tree(fd, folder / name)


def move_in(folder: Path) -> None:
    """Move what was copied into its place, and give the folder the attributes. Done again, it goes on.

    What a container has written there meanwhile stays.
    """
    fresh, data = folder / FRESH, folder / DATA
    if fresh.is_dir():
        with named("rename", fresh):
            for name in sorted(os.listdir(fresh)):
                if not os.path.lexists(data / name):
                    os.rename(fresh / name, data / name)
        copy_root_attributes(fresh, data)
        fsync_folder(data)
        remove_tree(fresh)
    fsync_folder(folder)
