"""An image or a container as layers under lines: what `why` and `advise` look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerstore import ChainID, Image, LayerEntry, ReadOnlyStore, Store, StoredLayer
from layerstore.looking.lines import Line, bases, lines_of
from layerstore.values import frozen

__all__ = ["StackLines", "stack_of", "times_of"]


@frozen
class StackLines:
    """The lines of an image, and its layers by their place in the stack, the lowest first."""

    lines: tuple[Line, ...]
    layers: tuple[Line, ...]
    """The lines that made a layer, in the order of the layers."""
    _store: Store

    def entries(self, level: int) -> Iterator[LayerEntry]:
        """What a layer says of its names."""
        chain = self.layers[level].chain_id
        assert chain is not None  # it made a layer
        return self._store.layer_entries(chain)


def stack_of(store: Store, image: Image | None, top: ChainID | None = None) -> StackLines:
    """The layers of an image, and what its history says of them. Without one: the layers down from `top`, if any."""
    if image is None:
        lines = tuple(_bare(store, top))
    else:
        from layerstore.build.lines import recall

        below = bases(image, image.beneath)
        written = {one.id: found for one in (*below, image) if (found := recall(store, one.id)) is not None}
        lines = lines_of(image, below, written)
    return StackLines(lines, tuple(line for line in lines if line.level is not None), store)


def _bare(store: Store, top: ChainID | None) -> Iterator[Line]:
    """Layers that no image has, of which nobody knows who made them."""
    found: list[StoredLayer] = []
    while top is not None:
        found.append(store.layer(top))
        top = found[-1].parent
    for level, layer in enumerate(reversed(found)):
        yield Line(level + 1, "", "", layer.chain_id, layer.diff_id, layer.size, level)


def times_of(store: Store, chains: Sequence[ChainID]) -> dict[ChainID, float]:
    """How many seconds the steps took that made these layers, as far as builds of this store remember them."""
    from layerstore.build.cache import rows

    try:
        with store.tables(rows.TABLES).read() as tx:
            found = {row.layer: row.seconds for row in rows.every(tx) if row.layer is not None}
    except ReadOnlyStore:
        return {}  # where nothing was ever built, nothing can be asked either
    return {chain: found[chain] for chain in chains if chain in found}
