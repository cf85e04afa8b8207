"""User namespaces: which IDs there are in one, how one is made and kept, and how a process goes into it.

A namespace lives as long as a process in it, so a *keeper* stays there and does nothing: what one command mounts, the
next one sees. `keeping` has them, and whoever goes into a namespace imports it. Everything that decides when this is
done is in `layerstore.rootless`.
"""

from __future__ import annotations

from layerstore.kernel.namespaces.maps import IdMap, IdRange, allotted, current, is_within, one_id, open_namespace

__all__ = ["IdMap", "IdRange", "allotted", "current", "is_within", "one_id", "open_namespace"]
