"""A layer as programs that stand on this library know it, and how they remember theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from layerstore.database import Transaction
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.digest import ChainID, DiffID

__all__ = ["Record", "StoredLayer"]


@frozen
class StoredLayer:
    """A layer of the store, whether an image has it or not. `size` are the bytes of its tar."""

    chain_id: ChainID
    parent: ChainID | None
    diff_id: DiffID
    size: int
    damaged: bool = False
    """`check` has found so: whoever adds it again mends it."""


Record = Callable[[Transaction, StoredLayer], object]
"""Writes what a caller has to remember of a layer, in the transaction in which that appears, or is found to be there.

What it raises goes through to the caller, and there is no layer then. A lasting lease belongs here: nothing else keeps
a layer on which no image and no container stands.
"""
