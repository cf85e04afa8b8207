"""What builds may keep of the cache: policies of daemon.json, carried out one after the other, as BuildKit does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from layerstore import CachePolicy
from layerstore.build.cache.cache import Cache
from layerstore.build.cache.pruning import prune
from layerstore.build.cache.usage import Record

__all__ = ["fits", "retain"]


def retain(cache: Cache, policies: Sequence[CachePolicy]) -> None:
    """Remove what each of them says."""
    for policy in policies:
        may_go = partial(fits, policy=policy, now=time.time_ns())
        prune(cache, all=policy.all, keep=policy.keep, fits=may_go)


def fits(record: Record, policy: CachePolicy, now: int) -> bool:
    """May it go by this policy? `now` is in ns since the epoch."""
    facts = {"inuse": record.in_use, "private": not record.shared, "shared": record.shared}
    texts = policy.texts
    return (
        record.used <= now - policy.unused_for * 1e9
        and all(facts[name] in values for name, values in policy.switches.items())
        and ("id" not in texts or record.id.startswith(texts["id"]))
        and ("type" not in texts or record.kind in texts["type"])
        and ("description" not in texts or any(word in record.description for word in texts["description"]))
    )
