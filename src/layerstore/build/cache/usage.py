"""What the cache of builds takes of the room: results of steps and shared folders, in one list. It is counted only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from layerstore import ChainID, DiffID, NotFound, Store, StoredLayer
from layerstore.build.cache import claims, rows
from layerstore.build.cache.cache import Cache
from layerstore.values import frozen

__all__ = ["Kind", "Record", "records", "running", "stacks"]

Kind = Literal["regular", "exec.cachemount"]
"""BuildKit's words for results of steps, and for folders that steps share."""


@frozen
class Record:
    """One thing that is kept. `id` is the key of a step, or the name of a folder's container."""

    id: str
    kind: Kind
    description: str
    size: int
    """Bytes of the layer's tar; of a folder, what it occupies on the disk."""
    made: int
    """In ns since the epoch, as `used`."""
    used: int
    uses: int
    in_use: bool
    """By a build that goes on."""
    shared: bool
    """An image has the layer, too: it takes no room of its own."""
    layer: StoredLayer | None = None

    @property
    def short_id(self) -> str:
        """As much of the ID as people need: 12 digits of a key."""
        return self.id[:12] if self.kind == "regular" else self.id


def records(cache: Cache) -> list[Record]:
    """All that is kept, what was used last first."""
    with cache.database.read() as tx:
        found = rows.every(tx)
    oldest = min(running(cache).values(), default=None)
    imaged = {diff for image in cache.store.images() for diff in image.layers}
    steps = [_step(cache.store, row, imaged, oldest) for row in found]
    folders = [
        Record(
            mount.name,
            "exec.cachemount",
            f"cache {mount.id}" + (f" ({mount.number})" if mount.number else ""),
            mount.size,
            mount.made,
            mount.used,
            mount.uses,
            mount.in_use,
            shared=False,
        )
        for mount in cache.mounts.all()
    ]
    return sorted((*(step for step in steps if step is not None), *folders), key=_used, reverse=True)


def _step(store: Store, row: rows.Row, imaged: set[DiffID], oldest: int | None) -> Record | None:
    try:
        layer = None if row.layer is None else store.layer(row.layer)
    except NotFound:
        return None  # removed meanwhile
    return Record(
        row.key,
        "regular",
        row.description,
        0 if layer is None else layer.size,
        row.made,
        row.used,
        row.uses,
        in_use=oldest is not None and row.used >= oldest,
        shared=layer is not None and layer.diff_id in imaged,
        layer=layer,
    )


def _used(record: Record) -> tuple[int, str]:
    return record.used, record.id


def running(cache: Cache) -> dict[str, int]:
    """When the builds began that go on; those whose process died are forgotten."""
    with cache.database.read() as tx:
        known = rows.builds(tx)
    dead = [name for name in known if claims.is_free(cache.store, claims.of_build(name))]
    if dead:
        with cache.database.write(durable=False) as tx:
            rows.end(tx, dead)
    return {name: began for name, began in known.items() if name not in dead}


def stacks(store: Store, layers: Iterable[StoredLayer]) -> dict[ChainID, StoredLayer]:
    """These layers and all below them, by their ChainIDs."""
    found: dict[ChainID, StoredLayer] = {}
    for layer in layers:
        for one in _downwards(store, layer):
            if one.chain_id in found:
                break
            found[one.chain_id] = one
    return found


def _downwards(store: Store, layer: StoredLayer) -> Iterator[StoredLayer]:
    try:
        yield layer
        while layer.parent is not None:
            layer = store.layer(layer.parent)
            yield layer
    except NotFound:
        pass  # removed meanwhile
