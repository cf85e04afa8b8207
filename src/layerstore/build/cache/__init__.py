"""What need not be done again: results of steps by their keys, and the folders that steps share.

`keys` says what a step is known by (pure), `rows` has the SQL, `claims` the locks by which one does a step and the
others wait, `mounts` the folders that steps share; `cache` is the front. `usage` counts what is kept, `pruning` decides
what of it goes.
"""

from layerstore.build.cache.cache import OWNER, Cache, Entry
from layerstore.build.cache.keys import step_key
from layerstore.build.cache.mounts import CacheMount, Mounts, Sharing
from layerstore.build.cache.pruning import PrunedCache, prune
from layerstore.build.cache.usage import Record, records, stacks

__all__ = [
    "OWNER",
    "Cache",
    "CacheMount",
    "Entry",
    "Mounts",
    "PrunedCache",
    "Record",
    "Sharing",
    "prune",
    "records",
    "stacks",
    "step_key",
]
