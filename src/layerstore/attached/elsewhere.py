"""Where borrowed layers lie: answers whoever keeps and stacks layers (`layers.elsewhere`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore.errors import Damaged

if TYPE_CHECKING:
    from layerstore.attached.rows import Lying
    from layerstore.attached.values import AttachedLayer, AttachedStore
    from layerstore.database import Database
    from layerstore.driver import LayerKey
    from layerstore.layers.relay import Write

__all__ = ["Elsewhere", "gone", "unfit"]


class Elsewhere:
    """See the module's text. A store that is not attached any more is read all the same: something stands on it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._folders: dict[LayerKey, Path] = {}
        self._peers: dict[str, AttachedStore] = {}

    def folder(self, key: LayerKey) -> Path:
        """Where its files lie. It is looked up anew when they are gone: whoever pulls again has them elsewhere."""
        known = self._folders.get(key)
        if known is not None and os.path.isdir(known):
            return known
        lying, layer = self._found(key)
        if layer.unfit is not None or layer.folder is None:
            raise unfit(lying.store, layer)
        self._folders[key] = layer.folder
        return layer.folder

    def give_out(self, key: LayerKey, write: Write) -> None:
        """Write its tar. Raises `Damaged`."""
        lying, layer = self._found(key)
        if layer.write is None:
            raise gone(lying, what="which has nothing any more that says what its tar was")
        layer.write(write)

    def _found(self, key: LayerKey) -> tuple[Lying, AttachedLayer]:
        from layerstore.attached import rows
        from layerstore.attached.kinds import peer

        self._database.provide(rows.TABLES)
        with self._database.read() as tx:
            lying = rows.find(tx, key)
        if lying is None:
            raise Damaged(f"nothing says in which attached store layer {key} lies")
        store = self._peers.setdefault(lying.store, peer(lying.store))
        layer = store.layer(lying.chain, lying.diff_id)
        if layer is None:
            raise gone(lying)
        return lying, layer


def gone(lying: Lying, what: str = "which has removed it meanwhile") -> Damaged:
    """The error about a layer that its owner has removed."""
    return Damaged(
        f"layer {lying.diff_id} lies in the attached store {lying.store}, {what}",
        remedy="Have its image pulled or loaded there again; or here, and this store has it by itself.",
        layer=lying.diff_id,
        path=lying.store.partition(":")[2],
    )


def unfit(store: str, layer: AttachedLayer) -> Damaged:
    """The error about a layer whose folder cannot be read as it lies."""
    adoptable = layer.folder is not None or layer.write is not None
    return Damaged(
        f"layer {layer.diff_id} in the attached store {store} cannot be used where it lies: {layer.unfit}",
        remedy="`layerstore adopt IMAGE` makes it this store's own."
        if adoptable
        else "Neither is there a blob of it: have its image pulled or loaded here.",
        layer=layer.diff_id,
        path=layer.folder or store.partition(":")[2],
    )
