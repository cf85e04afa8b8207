"""How much of lazy layers has not come yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from layerstore.layers import rows

if TYPE_CHECKING:
    from layerstore.database import Database
    from layerstore.digest import DiffID
    from layerstore.layers.files import LayerFiles

__all__ = ["lacking"]


class HasFiles(Protocol):
    """What has the files of layers, and makes them when they are asked for."""

    @property
    def files(self) -> LayerFiles: ...


def lacking(database: Database, layers: HasFiles) -> dict[DiffID, int]:
    """The layers that are lazy, and the bytes of their tars that lack."""
    with database.read() as tx:
        lazy = rows.lazy(tx)
    return {one.diff_id: one.size - layers.files.fetched(one) for one in lazy}
