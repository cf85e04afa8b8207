"""Segments of a store that is converted to another driver: each is made anew by what it changes, on its new parents.

A program could have made the same changes in a container of the new driver: through its mount they are repeated, and
the digest of its diff proves them. What is there of an earlier try, whole and still wanted, is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from layerstore import facts
from layerstore.driver import Dialect, Layer, LayerKey, State
from layerstore.segments import rows
from layerstore.segments.merging import Merging
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Database
    from layerstore.layers import Layers, Storage
    from layerstore.segments.rows import Segment
    from layerstore.session import Session

__all__ = ["Side", "convert"]

_FACT = "segment "

Repeat = Callable[[Layer, Sequence[Layer], Layer, Sequence[Layer]], str]
"""Make the changes of an old layer on its parents in a new one on its own; the digest of both diffs."""


@frozen
class Side:
    """The old store, or the one that grows beside it."""

    database: Database
    storage: Storage
    layers: Layers
    session: Session


def _known(database: Database) -> dict[LayerKey, LayerKey | None]:
    """The segments that were converted, by their old keys; None for one that says nothing, to the new driver."""
    with database.read() as tx:
        found = facts.all_of(tx)
    return {LayerKey(name.removeprefix(_FACT)): json.loads(value) for name, value in found.items() if _is(name)}


def _forget(database: Database) -> None:
    """Give up all that were converted; what they are in is garbage from then on."""
    with database.write() as tx:
        rows.delete_all(tx)
        facts.clear(tx, [name for name in facts.all_of(tx) if _is(name)])


def convert(old: Side, new: Side, repeat: Repeat) -> dict[LayerKey, LayerKey | None]:
    """Make every segment of the old store anew, parents first; the new keys by the old ones.

    The containers of the new store are those that an earlier try has made: they go, if their segments do.
    """
    merging = Merging(new.database, new.session, new.storage, new.layers)
    with old.database.read() as tx:
        segments = rows.every(tx)
    made = _known(new.database)
    wanted = {segment.key for segment in segments}
    with new.database.read() as tx:
        there = {key for key in rows.keys(tx) if new.storage.files.has(Layer(key))}
    if not made.keys() <= wanted or not there >= {key for key in made.values() if key is not None}:
        _forget(new.database)
        made = {}
    for segment in segments:
        if segment.key not in made:
            key = made[segment.key] = _convert(old, new, segment, made, repeat)
            if key is not None:
                merging.merge(key)
    return made


def _convert(
    old: Side, new: Side, segment: Segment, made: Mapping[LayerKey, LayerKey | None], repeat: Repeat
) -> LayerKey | None:
    parent = None if segment.parent is None else made[segment.parent]
    with old.database.read() as tx:
        old_below = rows.below(tx, segment.parent, segment.chain_id).layers
    with new.database.read() as tx:
        below = rows.below(tx, parent, segment.chain_id).layers
    driver, files = new.storage.driver, new.storage.files
    layer = Layer(new.session.new_key(), State.WRITABLE)
    keys = [layer.key]
    try:
        driver.create(layer, below)
        repeat(segment.layer, old_below, layer, below)
        key = files.segment(layer, below, in_use=False)
        if key is not None:
            keys.append(key)
        with new.database.write() as tx:
            if key is not None:
                complete = driver.capabilities.dialect is Dialect.MERGED
                rows.insert(tx, key, parent, segment.chain_id, complete=complete)
            now = parent if key is None else key
            facts.put(tx, {f"{_FACT}{segment.key}": json.dumps(now)})
    finally:
        new.layers.drop(keys, quietly=True)  # those that have no row
    return now


def _is(name: str) -> bool:
    return name.startswith(_FACT)
