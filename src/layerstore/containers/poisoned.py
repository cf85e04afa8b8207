"""What may have read zeros ends: programs and mounts on lazy layers that were watched by nobody for a while.

Erofs keeps what it has read, and programs have what they were given, so neither can go on when the layers are watched
again. No container's lock is taken: whoever calls may have one, and wait for nobody. Rows of what ended are void.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from layerstore.containers import rows
from layerstore.errors import KernelError
from layerstore.kernel.mounts import unmount
from layerstore.kernel.processes.killing import kill
from layerstore.layers import rows as layer_rows

if TYPE_CHECKING:
    from layerstore.database import Database, Transaction
    from layerstore.driver import LayerKey

__all__ = ["end_poisoned"]

_PATIENCE: Final = 10.0
"""Seconds for which the end of a killed program is waited for."""


def end_poisoned(database: Database) -> None:
    """End all programs in containers on lazy layers, and take away the mounts of these; of images, too."""
    with database.read() as tx:
        lazy = {diff.key for diff in layer_rows.lazy(tx)}
        if not lazy:
            return
        residents = [one for container in _standing_on(tx, lazy) for one in rows.residents(tx, container)]
        places = [rows.place_of(tx, container) for container in _standing_on(tx, lazy)]
        looked_at = [Path(os.fsdecode(place)) for place in layer_rows.leased(tx, "mount")]
    for resident in residents:
        if resident.identity.is_seen and resident.identity.is_alive:
            kill(resident.identity, _PATIENCE)
    for place in [*(place.mountpoint for place in places if place is not None), *looked_at]:
        with suppress(KernelError):  # a row without a mount
            unmount(place, lazy=True)


def _standing_on(tx: Transaction, lazy: Collection[LayerKey]) -> Iterator[str]:
    return (row.id for row in rows.every(tx) if any(layer.key in lazy for layer in rows.below(tx, row).layers))
