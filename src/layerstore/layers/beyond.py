"""What a driver of tars may have beyond the interface of drivers. Whoever has none of it does without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from layerstore.driver import Layer

if TYPE_CHECKING:
    from layerstore.indexes import LaidTree
    from layerstore.layers.relay import Write

__all__ = ["KeepsContentOnce", "ProvesIndexes", "TakesStacks"]


@runtime_checkable
class TakesStacks(Protocol):
    """A driver that can make the index of a stack of what is in memory of it already, where listings were looked at."""

    def take_stack(self, tars: Sequence[Layer], stack: LaidTree) -> None:
        """Make the index of these tars, the nearest first, if there is none. The stack is of no use afterwards."""


@runtime_checkable
class ProvesIndexes(Protocol):
    """A driver that can tell an index that was altered from one as it was made."""

    def wrong_indexes(self, layer: Layer, write: Write) -> Sequence[Path]:
        """Of the indexes that lie with this layer: those that were altered since. `write` is given what is read."""


@runtime_checkable
class KeepsContentOnce(Protocol):
    """A driver that can have content kept once that several tars have."""

    def notes_content(self) -> Path | None:
        """The file in which is noted where content lies; it may be made, or gone. None: each tar is kept for itself."""
