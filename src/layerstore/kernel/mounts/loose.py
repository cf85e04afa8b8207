"""Trees that are attached nowhere, for programs that are launched with them: gone with the last who has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.mounts.mounting import clone_of, new_tree
from layerstore.kernel.mounts.recipe import Mount

__all__ = ["open_bind", "open_memory", "open_mount"]


@contextmanager
def open_mount(place: str | os.PathLike[str]) -> Iterator[int]:
    """While inside: what is mounted at a path, once more, as a descriptor for `Container.launch`.

    That program sees it though mounts of containers are hidden from it, and keeps it only for as long as it lives.
    """
    tree = clone_of(Path(place))
    try:
        yield tree
    finally:
        os.close(tree)


@contextmanager
def open_bind(descriptor: int) -> Iterator[int]:
    """While inside: the file or folder that a descriptor is of, with what is mounted below it, as a mount of its own.

    For `Container.launch`. No path is looked up again, so whoever may rename what is there alters nothing of it.
    """
    tree = lib.ls_clone_tree(b"/proc/self/fd/%d" % descriptor, 0)
    if tree < 0:
        raise KernelError("open_tree", -tree)
    try:
        yield tree
    finally:
        os.close(tree)


@contextmanager
def open_memory() -> Iterator[int]:
    """While inside: an empty folder in memory that nobody else can reach, as a descriptor for `Container.launch`.

    For what must be on no disk. Files are made in it by `openat`: the descriptor itself is not for reading.
    """
    options = (("mode", "0700"), ("nosuid", None), ("nodev", None))
    tree = new_tree([Mount("tmpfs", "layerstore", options)])
    try:
        yield tree
    finally:
        os.close(tree)
