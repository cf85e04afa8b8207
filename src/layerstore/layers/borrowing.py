"""Layers kept as folders, some of which are in stores of others: `attached` has borrowed them, and nothing is copied.

A borrowed layer has rows as any other, and a key that says what it is. It has no skeleton: the store that it is in
knows what its tar was. It is of no use on other parents, so whoever needs its content there takes it in anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import tar
from layerstore.digest import DiffID
from layerstore.driver import Layer, LayerKey, Usage
from layerstore.errors import Damaged, LayerstoreError
from layerstore.layers.files import name_layer
from layerstore.layers.folders import Folders
from layerstore.layers.relay import Write, relay
from layerstore.tar import Damage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerstore.layers.diffs import Diff
    from layerstore.layers.elsewhere import Elsewhere
    from layerstore.tar import LayerEntry, Level

__all__ = ["Borrowing"]


class Borrowing(Folders):
    """The way of a driver that can stack what lies elsewhere (`Capabilities.borrows`)."""

    # --- out ---

    def identify(self, key: LayerKey) -> DiffID:
        if not Layer(key).is_borrowed:
            return super().identify(key)
        raise Damaged(f"layer {key} lies in an attached store, which alone knows what it is")

    def damages(self, stored: Diff, level: Level, write: Write | None = None) -> Iterator[Damage]:
        """Whether it is there; that its content is right, its digest says to whoever reads it."""
        if not Layer(stored.key).is_borrowed:
            yield from super().damages(stored, level, write)
            return
        try:
            self._attached.folder(stored.key)
        except Damaged as error:
            yield Damage("", error.message)

    def salvage(self, stored: Diff, others: Iterable[Diff], trees: Iterable[Layer], write: Write) -> None:
        if Layer(stored.key).is_borrowed:
            self.give_out(stored, write)
        else:
            super().salvage(stored, others, trees, write)

    def entries(self, stored: Diff) -> Iterator[LayerEntry]:
        if not Layer(stored.key).is_borrowed:
            return super().entries(stored)
        listing = self.session.folder / f"{self.session.new_key()}.listing"
        try:
            with relay(lambda write: self._export(stored, write, staged=False)) as stream:
                tar.take_listing(stream, listing, expected=stored.diff_id)
            return tar.entries(listing)
        finally:
            listing.unlink(missing_ok=True)

    def place_of(self, layer: Layer) -> Path:
        try:
            return super().place_of(layer)
        except Damaged as error:
            if layer.is_borrowed and error.path is not None:
                return Path(error.path)
            raise

    def has(self, layer: Layer) -> bool:
        if not layer.is_borrowed:
            return super().has(layer)
        try:
            self._attached.folder(layer.key)
        except Damaged:
            return False
        return True

    def require(self, layers: Iterable[Layer]) -> None:
        ours = []
        for layer in layers:
            if layer.is_borrowed:
                self._attached.folder(layer.key)
            else:
                ours.append(layer)
        super().require(ours)

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        return Usage(0, 0) if layer.is_borrowed else super().usage(layer, parents)

    # --- inside ---

    @property
    def _attached(self) -> Elsewhere:
        if self.elsewhere is None:
            raise Damaged("nothing says in which attached store a borrowed layer lies")
        return self.elsewhere()

    def _export(self, stored: Diff, write: Write, *, staged: bool) -> None:
        if staged or not Layer(stored.key).is_borrowed:
            super()._export(stored, write, staged=staged)
            return
        try:
            self._attached.give_out(stored.key, write)
        except LayerstoreError as error:
            name_layer(error, stored.diff_id)
            raise
