"""One layer's way into the store without an image: on a layer that is there, or on nothing.

Images come in by a config that names all of their layers; here each step is a layer as soon as it is made, and who
makes it may not know its DiffID yet. What keeps it is written in the transaction in which it gets its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from layerstore.layers import rows
from layerstore.layers.assembly import assembling
from layerstore.layers.sources import LayerSource, Progress, label_of

if TYPE_CHECKING:
    from layerstore.database import Transaction
    from layerstore.digest import ChainID, DiffID
    from layerstore.layers.diffs import Staged
    from layerstore.layers.layers import Layers
    from layerstore.layers.stored import Record, StoredLayer

__all__ = ["add", "recorded"]

_PURPOSE = "a layer is being added"


def add(
    layers: Layers,
    source: LayerSource,
    parent: ChainID | None,
    *,
    record: Record | None = None,
    progress: Progress | None = None,
) -> StoredLayer:
    """See `Store.add_layer`."""
    layers.database.require_writable()
    with layers.held(parent, _PURPOSE) as stack:
        below = [diff.diff_id for diff in reversed(stack.diffs)]
        layers.check_depth(len(below) + 1)
        if source.diff_id is not None:
            return _known(layers, below, source, source.diff_id, record, progress)
        if source.expect is not None:
            source.expect()
        with layers.writeback():
            staged = source.read_by(
                lambda stream: layers.stage(stream, parents=stack.layers, label=label_of(source), progress=progress)
            )
        try:
            return _staged(layers, [*below, staged.diff_id], {staged.diff_id: staged}, record)
        finally:
            layers.discard(staged)


def _known(
    layers: Layers,
    below: Sequence[DiffID],
    source: LayerSource,
    diff_id: DiffID,
    record: Record | None,
    progress: Progress | None,
) -> StoredLayer:
    """One whose DiffID is said: if the store has it, it is not read."""
    with assembling(layers, [*below, diff_id], _PURPOSE, trust=True, new=[diff_id]) as assembly:
        assembly.unpack({diff_id: source}, progress)
        assembly.place()
        if progress is not None and diff_id in assembly.known:
            progress(label_of(source), source.size or 0, source.size or 0)
        with layers.database.write() as tx:
            assembly.record(tx)
            return recorded(tx, assembly.top, record)


def _staged(
    layers: Layers, content: Sequence[DiffID], offered: Mapping[DiffID, Staged], record: Record | None
) -> StoredLayer:
    """One that is staged, and has its name by that."""
    with assembling(layers, content, _PURPOSE, offered=offered, trust=True) as assembly:
        assembly.place()
        with layers.database.write() as tx:
            assembly.record(tx)
            return recorded(tx, assembly.top, record)


def recorded(tx: Transaction, top: ChainID | None, record: Record | None) -> StoredLayer:
    """The layer on top of what was put together, once the caller has noted what it has to. Part of its transaction."""
    assert top is not None  # there is one layer at least
    layer = rows.stored(tx, top)
    if record is not None:
        record(tx, layer)
    return layer
