"""What need not be done again: results of steps by their keys, and the folders that steps share.

`keys` says what a step is known by (pure), `rows` has the SQL, `claims` the locks by which one does a step and the
others wait, `mounts` the folders that steps share; `cache` is the front. Caches that lie elsewhere are named by
`specs`, say what they have by `documents` (both pure), are asked by `offers`, and filled by `giving`. `usage` counts
what is kept, `summary` tells it apart from all else that takes room, `pruning` decides what of it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.build.cache.cache import OWNER, Cache, Entry
    from layerstore.build.cache.giving import give, inline
    from layerstore.build.cache.keys import step_key
    from layerstore.build.cache.mounts import CacheMount, CacheMounts, Sharing
    from layerstore.build.cache.pruning import PrunedCache, prune
    from layerstore.build.cache.specs import Spec, parse_spec
    from layerstore.build.cache.usage import Record, records, stacks

__all__ = [
    "OWNER",
    "PREFIX",
    "Cache",
    "CacheMount",
    "CacheMounts",
    "Entry",
    "PrunedCache",
    "Record",
    "Sharing",
    "Spec",
    "give",
    "inline",
    "parse_spec",
    "prune",
    "records",
    "stacks",
    "step_key",
]

PREFIX = "build-cache-"
"""How the names of the containers begin that are folders which steps share."""

__getattr__ = on_demand(
    __name__,
    {
        "cache": ("OWNER", "Cache", "Entry"),
        "giving": ("give", "inline"),
        "keys": ("step_key",),
        "mounts": ("CacheMount", "CacheMounts", "Sharing"),
        "pruning": ("PrunedCache", "prune"),
        "specs": ("Spec", "parse_spec"),
        "usage": ("Record", "records", "stacks"),
    },
)
