"""Trees of layers attached to the host's: containers that are mounted, and images that are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerstore.driver import Layer
from layerstore.errors import DriverFailed, KernelError
from layerstore.kernel.mounts import attach
from layerstore.layers.storage import Storage

__all__ = ["attach_tree"]


def attach_tree(storage: Storage, layer: Layer, parents: Sequence[Layer], place: Path, *, read_only: bool) -> int:
    """Show a layer on its parents at `place`; the ID of the mount there, which is the only one to be unmounted.

    Raises `KernelError`; `Damaged` if it fails since a layer is gone.
    """
    driver = storage.driver
    try:
        driver.prepare(layer, parents, read_only=read_only)
        return attach(driver.mounts(layer, parents, read_only=read_only), place)
    except (KernelError, DriverFailed):
        storage.files.require((layer, *parents))
        raise
