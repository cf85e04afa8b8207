"""Layers: chains, the diffs they share, who needs them, and how they come in and go out.

`layers` is the front and `rows` has the SQL. `assembly` is an image's way into the store, by what `plan` decides and
`placing` does; `adding` is the way of one layer without an image. `diffs` are what is kept, as values; `files` says how
it can be kept, `folders` is how most drivers do, `storage` holds the driver. `garbage` is what nobody owns. A layer has
a row only while its files are whole and on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.layers.diffs import Diff, Staged
    from layerstore.layers.layers import Layers
    from layerstore.layers.rows import Stack
    from layerstore.layers.sources import LayerSource, Progress
    from layerstore.layers.storage import Storage
    from layerstore.layers.stored import Record, StoredLayer

__all__ = ["Diff", "LayerSource", "Layers", "Progress", "Record", "Stack", "Staged", "Storage", "StoredLayer"]

__getattr__ = on_demand(
    __name__,
    {
        "diffs": ("Diff", "Staged"),
        "layers": ("Layers",),
        "rows": ("Stack",),
        "sources": ("LayerSource", "Progress"),
        "storage": ("Storage",),
        "stored": ("Record", "StoredLayer"),
    },
)
