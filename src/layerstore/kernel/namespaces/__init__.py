"""User namespaces: which IDs there are in one, how one is made and kept, and how a process goes into it.

A namespace lives as long as a process in it, so a *keeper* stays there and does nothing: what one command mounts, the
next one sees. Everything that decides when this is done is in `layerstore.rootless`.
"""

from __future__ import annotations

from layerstore.kernel.namespaces.keeping import Keeper, enter, find, start
from layerstore.kernel.namespaces.maps import IdMap, IdRange, allotted, current, is_within, one_id

__all__ = ["IdMap", "IdRange", "Keeper", "allotted", "current", "enter", "find", "is_within", "one_id", "start"]
