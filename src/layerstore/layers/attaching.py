"""Trees of layers attached to the host's: containers that are mounted, and images that are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore.errors import DriverFailed, DriverNotSupported, KernelError
from layerstore.kernel.mounts import EROFS, attach, new_tree

if TYPE_CHECKING:
    from layerstore.driver import Layer, Mount
    from layerstore.kernel.namespaces import IdMap
    from layerstore.layers.storage import Storage

__all__ = ["attach_tree", "detached_tree"]


def attach_tree(
    storage: Storage, layer: Layer, parents: Sequence[Layer], place: Path, *, read_only: bool, ids: IdMap | None = None
) -> int:
    """Show a layer on its parents at `place`; the ID of the mount there, which is the only one to be unmounted.

    `ids`: with the owners that a user namespace has outside, see `Mount`. Raises `DriverNotSupported` where that cannot
    be; `KernelError`; `Damaged` if it fails since a layer is gone.
    """
    return _made(storage, layer, parents, lambda mounts: attach(_with(mounts, ids), place), read_only=read_only)


def detached_tree(storage: Storage, layer: Layer, parents: Sequence[Layer], ids: IdMap | None) -> int:
    """A writable layer on its parents as a mount that is attached nowhere: its descriptor. Raises as `attach_tree`."""
    return _made(storage, layer, parents, lambda mounts: new_tree(_with(mounts, ids)), read_only=False)


def _with(mounts: Sequence[Mount], ids: IdMap | None) -> Sequence[Mount]:
    if ids is None:
        return mounts
    *below, top = mounts
    if top.type not in ("overlay", "bind") or any(mount.type != EROFS for mount in below):
        raise DriverNotSupported(
            f"a container for other IDs cannot be mounted as {top.type}",
            remedy="Use the driver overlay2, btrfs, vfs or erofs.",
        )
    return [*below, evolve(top, ids=ids)]


def _made(
    storage: Storage, layer: Layer, parents: Sequence[Layer], make: Callable[[Sequence[Mount]], int], *, read_only: bool
) -> int:
    driver = storage.driver
    try:
        driver.prepare(layer, parents, read_only=read_only)
        return make(driver.mounts(layer, parents, read_only=read_only))
    except (KernelError, DriverFailed):
        storage.files.require((layer, *parents))
        raise
