"""Layers: chains, the diffs they share, who needs them, and how they come in and go out.

`layers` is the front and `rows` has the SQL. `assembly` is an image's way into the store, by what `plan` decides and
`placing` does. `files` says how layers can be kept, `folders` is how most drivers do, `storage` holds the driver.
`adding` is the way of one layer
without an image. `garbage` is what nobody owns. A layer has a row only while its files are whole and on disk.
"""

from layerstore.layers.files import Diff, Staged
from layerstore.layers.layers import Layers
from layerstore.layers.rows import Stack
from layerstore.layers.sources import LayerSource, Progress
from layerstore.layers.storage import Storage
from layerstore.layers.stored import Record, StoredLayer

__all__ = ["Diff", "LayerSource", "Layers", "Progress", "Record", "Stack", "Staged", "Storage", "StoredLayer"]
