"""What a command waits for before it begins: lazy layers, of which it needs all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from layerstore.cli import output

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.digest import DiffID

__all__ = ["tell_waits"]


def tell_waits(store: Store, layers: Callable[[], Iterable[DiffID]]) -> None:
    """Say which of these layers are waited for until all of them is there. They are asked for if any is lazy."""
    lacking = store.lacking()
    if lacking:
        from layerstore.digest import short

        lazy = [layer for layer in dict.fromkeys(layers()) if layer in lacking]
        output.warn(*(f"{short(layer)}: is lazy, and is waited for until all of it is there" for layer in lazy))
