"""Mounts, as data and as deeds.

A driver says what to mount with `Mount` values (`recipe`) and never mounts; the core does (`mounting`). What is mounted
where is asked of the kernel (`table`); why it refused something is found out afterwards (`refusals`). What takes more
than a mount call has a file of its own: `fuse`, `aufs`. `loose` are trees for programs alone, `trial` has folders to
try things out in.
"""

from layerstore.kernel.mounts.loose import open_bind, open_memory, open_mount
from layerstore.kernel.mounts.mounting import attach, attach_clone, clone_of, detached, new_tree, unmount
from layerstore.kernel.mounts.recipe import AUFS, EROFS, FUSE_OVERLAYFS, Mount
from layerstore.kernel.mounts.table import (
    boot_id,
    mount_id,
    mount_namespace,
    mounts_below,
    namespace_holds,
    processes_with,
)

__all__ = [
    "AUFS",
    "EROFS",
    "FUSE_OVERLAYFS",
    "Mount",
    "attach",
    "attach_clone",
    "boot_id",
    "clone_of",
    "detached",
    "mount_id",
    "mount_namespace",
    "mounts_below",
    "namespace_holds",
    "new_tree",
    "open_bind",
    "open_memory",
    "open_mount",
    "processes_with",
    "unmount",
]
