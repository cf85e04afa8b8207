"""What of the cache goes when room is wanted: what was used longest ago, first what stands on it.

A step that is removed before the one on top of it would free nothing, for a layer keeps those below; so a step counts
as used when the last one on top of it was. What a build that goes on has used or made stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from layerstore import ChainID, DiffID, NotFound
from layerstore.build.cache import rows
from layerstore.build.cache.cache import OWNER, Cache
from layerstore.build.cache.usage import Record, records, running, stacks
from layerstore.values import frozen

__all__ = ["PrunedCache", "prune"]


@frozen
class PrunedCache:
    """What was removed, and the bytes that this freed: of tars of layers that nothing has any more, and of folders."""

    records: tuple[Record, ...]
    reclaimed: int


def prune(
    cache: Cache,
    *,
    all: bool = False,
    keep: int | None = None,
    fits: Callable[[Record], bool] | None = None,
) -> PrunedCache:
    """Remove what is kept and no build uses, but what images have, too, which takes no room; `all`: that as well.

    `keep`: only as much as is needed for the rest to take no more than so many bytes. `fits`: only what it is true of.
    """
    tidy(cache)
    kept = records(cache)
    free = [one for one in kept if not one.in_use and (all or not one.shared) and (fits is None or fits(one))]
    chosen = free if keep is None else _enough(free, kept, keep)
    before = stacks(cache.store, (one.layer for one in kept if one.layer is not None))
    gone = set(_remove(cache, chosen))
    removed = tuple(one for one in chosen if one.id in gone)
    after = {layer.diff_id for layer in before.values() if _is_there(cache, layer.chain_id)}
    sizes = {layer.diff_id: layer.size for layer in before.values() if layer.diff_id not in after}
    freed = sum(sizes.values()) + sum(one.size for one in removed if one.layer is None)
    return PrunedCache(removed, freed)


def tidy(cache: Cache) -> None:
    """Remove what processes left that died: of no use to anybody."""
    cache.mounts.tidy()
    leases = cache.store.leases(OWNER)  # before the rows: a step has both, or neither
    with cache.database.write(durable=False) as tx:
        rows.delete_groundless(tx)
        known = {row.lease for row in rows.every(tx)}
    if leases.keys() - known:
        cache.store.end_leases(OWNER, leases.keys() - known)


def _enough(free: Sequence[Record], kept: Sequence[Record], keep: int) -> list[Record]:
    """As many of those that are free as it takes, in the order in which they go."""
    holders: Counter[DiffID] = Counter(one.layer.diff_id for one in kept if one.layer is not None)
    total = sum({_room(one): one.size for one in kept if not one.shared}.values())
    chosen = []
    for one in in_order(free, kept):
        if total <= keep:
            break
        chosen.append(one)
        if one.layer is None:
            total -= one.size
        else:
            holders[one.layer.diff_id] -= 1
            if not holders[one.layer.diff_id] and not one.shared:
                total -= one.size
    return chosen


def _room(record: Record) -> str:
    return record.id if record.layer is None else str(record.layer.diff_id)


def in_order(free: Sequence[Record], kept: Sequence[Record]) -> list[Record]:
    """These in the order in which they go. Pure."""
    layers = {one.layer.chain_id: one.layer for one in kept if one.layer is not None}
    used: dict[ChainID, tuple[int, int]] = {}
    """When a layer, or the last one on top of it, was used; and how many layers that one is above it."""
    for one in kept:
        at, height = None if one.layer is None else one.layer.chain_id, 0
        while at is not None and (layer := layers.get(at)) is not None:
            used[at] = max(used.get(at, (0, 0)), (one.used, height))
            at, height = layer.parent, height + 1
    return sorted(free, key=lambda one: ((one.used, 0) if one.layer is None else used[one.layer.chain_id], one.id))


def _remove(cache: Cache, chosen: Sequence[Record]) -> list[str]:
    """Remove these, but what a build has begun to use meanwhile; the IDs of those that went."""
    oldest = min(running(cache).values(), default=None)
    with cache.database.write() as tx:
        gone = rows.delete(tx, [one.id for one in chosen if one.kind == "regular"], unused_since=oldest)
    if gone:
        cache.store.end_leases(OWNER, [row.lease for row in gone])
    return [row.key for row in gone] + [one.id for one in chosen if one.kind != "regular" and cache.mounts.drop(one.id)]


def _is_there(cache: Cache, chain: ChainID) -> bool:
    try:
        cache.store.layer(chain)
    except NotFound:
        return False
    return True
