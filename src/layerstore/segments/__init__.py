"""Segments: sealed pieces of what a container has written, each of which means something on its own parent alone.

A checkpoint names one; containers and other segments stand on them. They are no layers of images: nobody has hashed
them, they have no DiffID and no skeleton, and making one reads no file. `rows` has all SQL about them; `merging` keeps
stacks of them shallow, in the background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.segments.rows import Below, CheckpointRow

__all__ = ["Below", "CheckpointRow"]

__getattr__ = on_demand(
    __name__,
    {
        "rows": ("Below", "CheckpointRow"),
    },
)
