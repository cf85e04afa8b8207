"""Containers: a writable layer on an image, or on nothing, with a name.

`containers` is the front, `container` one of them, `mounted` a mount of it; `mounting` keeps their mounts, `residents`
the processes that have their trees, `starting` and `launching` start these, and `process` is one; `commit` makes images
of them, `names` names those without a name. `branching` has checkpoints, the way back and forks, `comparing` what is
between two of them. `running` is the way to what runs programs in them. `snapshots` has what they were when they ended,
for programs above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.containers.checkpoint import Checkpoint
    from layerstore.containers.container import Container, ContainerState
    from layerstore.containers.containers import Containers
    from layerstore.containers.mounted import Mounted
    from layerstore.containers.process import Process
    from layerstore.containers.running import Args, Running
    from layerstore.containers.snapshots import Snapshot, Snapshots

__all__ = [
    "Args",
    "Checkpoint",
    "Container",
    "ContainerState",
    "Containers",
    "Mounted",
    "Process",
    "Running",
    "Snapshot",
    "Snapshots",
]

__getattr__ = on_demand(
    __name__,
    {
        "checkpoint": ("Checkpoint",),
        "container": ("Container", "ContainerState"),
        "containers": ("Containers",),
        "mounted": ("Mounted",),
        "process": ("Process",),
        "running": ("Args", "Running"),
        "snapshots": ("Snapshot", "Snapshots"),
    },
)
