"""Layers: chains, the diffs they share, who needs them, and how they come in and go out.

`layers` is the front; `rows` has the SQL, `folders` the files, `assembly` the way of an image's layers into the store,
`garbage` what nobody owns. A layer has a row only while its files are whole and on disk.
"""

from layerstore.layers.folders import Diff, Staged
from layerstore.layers.layers import Layers, LayerSource, Progress
from layerstore.layers.rows import Stack

__all__ = ["Diff", "LayerSource", "Layers", "Progress", "Stack", "Staged"]
