"""Compressed layers of which pieces can be had by themselves: what has to be known for that, and how it is used.

A `LayerIndex` is made once, by who has the blob and the tar (`making`), and says where inflating can begin, what the
tar's pieces hash to, and all of the tar that is not file data. Who has it reads any piece of the tar from pieces of the
blob (`reading`). What it says is believed no further than each piece is proved, and the tar by its DiffID in the end.
"""

from __future__ import annotations

from layerstore.seekable.index import ARTIFACT, INDEX_TYPE, WINDOWS_TYPE, LayerIndex, Point
from layerstore.seekable.order import ORDER_TYPE, Order, Read
from layerstore.seekable.reading import Hollow, Ranges, Span

__all__ = [
    "ARTIFACT",
    "INDEX_TYPE",
    "ORDER_TYPE",
    "WINDOWS_TYPE",
    "Hollow",
    "LayerIndex",
    "Order",
    "Point",
    "Ranges",
    "Read",
    "Span",
]
