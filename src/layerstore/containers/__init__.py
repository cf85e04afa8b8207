"""Containers: a writable layer on an image, or on nothing, with a name.

`containers` is the front, `container` one of them; `mounting` keeps their mounts, `residents` the processes that have
their trees, `starting` and `launching` start these, and `process` is one; `commit` makes images of them, `names` names
those without a name. `branching` has checkpoints, the way back and forks, `comparing` what is between two of them.
`running` is the way to what runs programs in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.containers.checkpoint import Checkpoint
    from layerstore.containers.container import Container, ContainerState, Mounted
    from layerstore.containers.containers import Containers
    from layerstore.containers.process import Process
    from layerstore.containers.running import Args, Running

__all__ = ["Args", "Checkpoint", "Container", "ContainerState", "Containers", "Mounted", "Process", "Running"]

__getattr__ = on_demand(
    __name__,
    {
        "checkpoint": ("Checkpoint",),
        "container": ("Container", "ContainerState", "Mounted"),
        "containers": ("Containers",),
        "process": ("Process",),
        "running": ("Args", "Running"),
    },
)
