"""The programs that run containers: which there are, what they are told, and what their words mean.

`engines` finds an OCI runtime, `verbs` are its commands, `monitor` is conmon, `words` makes errors of logs, `cgroups`
asks the kernel what engines keep there. Nothing here knows a store or its rows.
"""

from layerstore.runtime.engine.cgroups import Hierarchy, hierarchy
from layerstore.runtime.engine.engines import Engine, all_of, find
from layerstore.runtime.engine.verbs import Verbs

__all__ = ["Engine", "Hierarchy", "Verbs", "all_of", "find", "hierarchy"]
