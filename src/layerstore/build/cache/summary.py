"""What takes the room of a store, kind by kind, with what builds remember told apart from the rest. It is counted only.

What `layerstore system df` shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from attrs import evolve

from layerstore import ChainID, DiffID, DiskUsage, Store, StoredLayer
from layerstore.build.cache.cache import OWNER, Cache
from layerstore.build.cache.usage import Record, records, stacks
from layerstore.values import frozen

__all__ = ["Cached", "Kind", "apart", "blob_kinds", "kinds"]


@frozen
class Kind:
    """One line of the summary. `reclaimable` bytes can be freed; `active` of `total` are in use."""

    name: str
    total: int
    active: int
    size: int
    reclaimable: int


@frozen
class Cached:
    """What builds remember. `size` is what it takes of the room alone: layers that nothing else has, and folders."""

    records: list[Record]
    size: int
    reclaimable: int


def apart(store: Store, usage: DiskUsage) -> tuple[Cached, DiskUsage]:
    """What the cache of builds has alone, and all else that there is."""
    found = records(Cache(store))
    layers = [record.layer for record in found if record.layer is not None]
    used = [record.layer for record in found if record.layer is not None and record.in_use]
    known = stacks(store, layers)
    kept, busy = ({one.diff_id for one in some.values()} for some in (known, stacks(store, used)))
    alone = [one for one in usage.layers if one.diff_id in kept and not one.images and not one.containers]
    gone = frozenset(alone)
    folders = {record.id: record for record in found if record.layer is None and record.kind == "exec.cachemount"}
    cached = Cached(
        found,
        size=sum(one.size for one in alone) + sum(one.size for one in folders.values()),
        reclaimable=sum(one.size for one in alone if one.diff_id not in busy)
        + sum(one.size for one in folders.values() if not one.in_use),
    )
    # `system prune` ends what the cache leases.
    leased = Counter(diff for chain in store.leases(OWNER).values() for diff in _diffs(known, chain))
    rest = evolve(
        usage,
        layers=tuple(
            evolve(one, leases=max(one.leases - leased[one.diff_id], 0)) for one in usage.layers if one not in gone
        ),
        containers=tuple(one for one in usage.containers if one.container.name not in folders),
    )
    return cached, rest


def _diffs(known: Mapping[ChainID, StoredLayer], top: ChainID) -> set[DiffID]:
    """The diffs of a layer and all below it, as far as they are known."""
    found: set[DiffID] = set()
    at: ChainID | None = top
    while at is not None and (layer := known.get(at)) is not None:
        found.add(layer.diff_id)
        at = layer.parent
    return found


def kinds(usage: DiskUsage, cached: Cached) -> Iterator[Kind]:
    """The lines of the summary, of what `apart` has told apart."""
    yield Kind("Images", len(usage.images), usage.images_active, usage.images_size, usage.images_reclaimable)
    yield Kind(
        "Containers",
        len(usage.containers),
        usage.containers_active,
        usage.containers_size,
        usage.containers_reclaimable,
    )
    yield Kind("Local Volumes", len(usage.volumes), usage.volumes_active, usage.volumes_size, usage.volumes_reclaimable)
    active = sum(record.in_use for record in cached.records)
    yield Kind("Build Cache", len(cached.records), active, cached.size, cached.reclaimable)
    yield from blob_kinds(usage)


def blob_kinds(usage: DiskUsage) -> Iterator[Kind]:
    """Nothing of a store that has none: docker's table knows no such kind."""
    found = usage.blobs
    if found.kept:
        yield Kind("Kept blobs", found.kept, found.kept - found.unneeded, found.kept_size, found.unneeded_size)
    if found.partial:
        yield Kind("Partial blobs", found.partial, 0, found.partial_size, found.partial_size)
