"""A tar of a layer of which nothing says what its tar was: made of its files, in this library's own form.

So it has another digest than it had. It is the same for ever, and says the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import tar
from layerstore.changes import compare_trees, overlay_changes
from layerstore.errors import DriverNotSupported
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.kernel.mounts import Mount, detached
from layerstore.kernel.namespaces import is_within

if TYPE_CHECKING:
    from layerstore.attached.values import AttachedLayer, Write

__all__ = ["pack"]


def pack(stack: Sequence[AttachedLayer], store: str, empty: Path, write: Write | None = None) -> tar.Packed:
    """Write the tar of the uppermost of `stack`, the layers from the bottom on. `empty` is an empty folder.

    Raises `DriverNotSupported` if a folder cannot be read as it lies, `CannotRepresent`, `KernelError`.
    """
    folders: list[tuple[AttachedLayer, Path]] = []
    for layer in stack:
        if layer.unfit is not None or layer.folder is None:
            raise DriverNotSupported(
                f"layer {layer.diff_id} in the attached store {store} cannot be read: {layer.unfit}",
                remedy="Save the image by the program that keeps the store, and load that.",
            )
        folders.append((layer, layer.folder))
    *below, (own, folder) = folders
    with ExitStack() as opening:
        merged = opening.enter_context(_tree(folders, empty))
        lower = opening.enter_context(_tree(below, empty)) if below else None
        if own.whole:
            changes = compare_trees(merged, lower, content=True)
        else:
            changes = overlay_changes(opening.enter_context(opened(folder, FOLDER)), merged, lower)
        return tar.pack(changes, merged, write=write)


def _tree(stack: Sequence[tuple[AttachedLayer, Path]], empty: Path) -> AbstractContextManager[int]:
    """What a stack shows, as a directory descriptor."""
    folders: list[Path] = []
    for layer, folder in reversed(stack):
        folders.append(folder)
        if layer.whole:
            break
    lowers = [*folders, empty][: max(len(folders), 2)]
    options: list[tuple[str, str | None]] = [("lowerdir+", os.fspath(folder)) for folder in lowers]
    options += [("userxattr", None)] if is_within() else []
    options += [("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow" if is_within() else "follow")]
    return detached([Mount("overlay", "overlay", tuple(options), read_only=True)])
