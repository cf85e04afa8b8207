"""Layers that no image has: made one on the other, kept by leases that last, looked at, and at last made an image.

It is how a program builds images step by step, with steps that it can come back to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.database import Transaction
    from layerstore.digest import ChainID, ImageID
    from layerstore.images import Image
    from layerstore.images.images import Record as ImageRecord
    from layerstore.layers import LayerSource, Progress, Record, StoredLayer
    from layerstore.parts import Parts
    from layerstore.trees import Tree


@in_words("the store in {0.data_root}")
class Stacks:
    """What a `Store` does with layers by themselves."""

    _parts: Parts

    def layer(self, chain_id: ChainID) -> StoredLayer:
        """A layer, whether an image has it or not. Raises `NotFound`."""
        return self._parts.layers.get(chain_id)

    def layers(self) -> list[StoredLayer]:
        """All layers, in the order of their ChainIDs, whether images have them or not."""
        return self._parts.layers.all()

    def add_layer(
        self,
        source: LayerSource,
        parent: ChainID | None = None,
        *,
        record: Record | None = None,
        progress: Progress | None = None,
    ) -> StoredLayer:
        """Add a layer of a tar that one has, on a layer that is there, or (None) on nothing.

        If `source` says its DiffID, and the store has such a layer, nothing is read. `record` is called in the
        transaction in which the layer gets its row, or is found to be there; without a lease that it takes there, the
        layer may be gone as soon as this returns. Raises `NotFound`, `InvalidArchive`, `DigestMismatch`,
        `DepthExceeded`, and leaves the store as it was.
        """
        from layerstore.layers.adding import add

        return add(self._parts.layers, source, parent, record=record, progress=progress)

    def open_layers(self, chain_id: ChainID | None) -> AbstractContextManager[int]:
        """While inside: a directory descriptor of the tree that a layer and all below it make; empty for None.

        To be read, and mounted where nobody else sees it. Meanwhile the layers stay. Raises `NotFound`.
        """
        return self._parts.images.trees.of_layers(chain_id)

    def browse_layers(self, chain_id: ChainID | None) -> AbstractContextManager[Tree]:
        """While inside: the same, read without a mount. See `Store.browse`. Raises `NotFound`, `Damaged`."""
        return self._parts.images.trees.browsed_layers(chain_id)

    def add_image(
        self,
        config: bytes,
        top: ChainID | None,
        names: Sequence[str] = (),
        *,
        parent: ImageID | None = None,
        record: ImageRecord | None = None,
    ) -> Image:
        """Add an image of layers that are in the store: those of `top`, and all below it.

        `config` is the image's (OCI image spec, config.md), to the byte; its DiffIDs must be those of these layers.
        `parent` is the image that it was built on. `record` is called in the transaction in which it appears. Raises
        `NotFound`, `InvalidArchive`.
        """
        return self._parts.images.add_known(config, top, names, parent=parent, record=record)

    # --- leases that last ---

    def lease(self, tx: Transaction | None, chain_id: ChainID, *, owner: str, name: str) -> None:
        """Keep a layer, and all below it, until the lease is ended: whatever processes and boots end meanwhile.

        `owner` says whose it is (a program that stands on this library), `name` which of the owner's. One that is there
        is of this layer from now on; what it kept before goes with the next `prune` at the latest, unless something
        else needs it. `tx` is a transaction of the caller: that of a `record`, or None for one alone. Raises
        `NotFound`.
        """
        self._parts.layers.lease_lastingly(tx, chain_id, owner=owner, name=name)

    def end_leases(self, owner: str, names: Iterable[str]) -> list[ChainID]:
        """End leases of an owner, those of these names that there are. The layers that went with them, as nothing else
        needs them."""
        return self._parts.layers.end_lasting_leases(owner, names)

    def leases(self, owner: str) -> Mapping[str, ChainID]:
        """The leases of an owner, by their names, the oldest first."""
        return self._parts.layers.lasting_leases(owner)
