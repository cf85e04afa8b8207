"""Layers whose files are in a store of others, as those see them who keep layers. `attached` knows where they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from layerstore.driver import LayerKey
    from layerstore.layers.relay import Write

__all__ = ["Elsewhere"]


class Elsewhere(Protocol):
    """Answers for borrowed layers, by their keys. All raise `Damaged` if one is gone, and what is wrong with it."""

    def folder(self, key: LayerKey) -> Path:
        """Where its files lie, with overlay's marks."""

    def give_out(self, key: LayerKey, write: Write) -> None:
        """Write its tar, bit for bit."""
