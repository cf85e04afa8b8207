"""Files of the host, or of other trees, become a layer: what is there is listed, and what is chosen becomes a tar.

Which files, under which names, is for others to decide. Nothing here copies: a layer is read from where its files lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from layerstore.gathering.listing import Block, Found, Listing
from layerstore.gathering.rules import Element, Rule, Rules, Sort
from layerstore.gathering.walking import walk
from layerstore.layers.sources import LayerSource
from layerstore.tar import Folder, Piece, Readable, gathered

__all__ = [
    "Block",
    "Element",
    "Folder",
    "Found",
    "Listing",
    "Piece",
    "Readable",
    "Rule",
    "Rules",
    "Sort",
    "layer_of",
    "walk",
]


def layer_of(pieces: Sequence[Piece | Folder], *, label: str = "") -> LayerSource:
    """A layer that holds `pieces`, to be given to whoever takes layers in; its tar is made as it is read.

    Equal files under equal names with equal attributes are equal bytes, wherever they come from. The descriptors of the
    pieces stay the caller's, who keeps them open until the layer is there. A parent of what is in the layer that is not
    in it itself keeps the attributes that it has in the layers below, or is root's with mode 0755. `label` is what
    progress is told. What reading raises, `layerstore.tar.gathered` says.
    """

    def opened() -> AbstractContextManager[Readable]:
        return gathered(pieces)

    return LayerSource(open=opened, label=label)
