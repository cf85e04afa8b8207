"""WORKDIR: where what follows begins, and a folder there, if there is none.

It belongs to the user of that moment, as in BuildKit, to whom a number without a group is both; what is there already
stays as it is, and makes no layer.
"""

from __future__ import annotations

import time

from layerstore import ChainID, Store, StoredLayer
from layerstore.build.errors import BuildError, Place
from layerstore.build.steps.places import folders_above, new_folders, owner_of, spot
from layerstore.build.steps.work import Record
from layerstore.gathering import layer_of

__all__ = ["make_folder"]


def make_folder(
    store: Store, top: ChainID | None, path: str, user: str, *, latest: int | None, place: Place, record: Record
) -> StoredLayer | None:
    """A layer with this folder, and those above it; None if it is there.

    Raises `BuildError` if something is in the way.
    """
    with store.open_layers(top) as tree:
        found = spot(tree, path, place)
        if found.is_folder:
            return None
        if found.is_there:
            raise BuildError(
                f"mkdir {path}: not a directory", place=place, remedy="Something that is no folder has that name."
            )
        owner = owner_of(tree, user, place) if user else (0, 0)
        mtime = time.time_ns() if latest is None else latest
        folders = [
            *folders_above(tree, found.names, found.known),
            *new_folders(found.names, found.known, mode=0o755, owner=owner, mtime_ns=mtime),
        ]
        return store.add_layer(layer_of(folders), top, record=record)
