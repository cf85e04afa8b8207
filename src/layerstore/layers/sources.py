"""Where a layer on its way in can be read, and whom its progress is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from layerstore.digest import DiffID, short
from layerstore.errors import InvalidArchive
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.layers.lazy import Lazy
    from layerstore.tar import Readable

Taken = TypeVar("Taken")

Progress = Callable[[str, int, int | None], None]
"""Called with a label, the bytes of a layer's tar done so far, and the bytes in all if known; from any thread."""


@frozen
class LayerSource:
    """A layer on its way in that can be read when it is wanted.

    `open` gives the uncompressed tar, at most once and in any thread; it is not called for a layer that is there
    already. `diff_id` may be None where only the position in the image's config names it. `size`: the bytes of the
    tar, or of what it is made from, if they are known; `label`: what `Progress` is told, the DiffID's first digits if
    it is empty. `instead` gives the same layer from a surer place, if what `open` gave turns out to be wrong.

    Two more are for what comes from far away. `expect` is called before any source is opened, of those that are going
    to be and in their order: they may begin to fetch. `abandon` is called, from another thread, when what is opened is
    of no use any more: whoever waits for more of it is to be told by an error.
    """

    open: Callable[[], AbstractContextManager[Readable]]
    diff_id: DiffID | None = None
    size: int | None = None
    label: str = ""
    instead: Callable[[], AbstractContextManager[Readable]] | None = None
    expect: Callable[[], object] | None = None
    abandon: Callable[[], object] | None = None
    _lazily: Callable[[], Lazy | None] | None = None
    """Asked first, if it is given: what is enough for a layer whose data come later; or None, and then `open` is."""

    def read_by(self, take: Callable[[Readable], Taken]) -> Taken:
        """What `take` makes of the layer; it is given the one that is read instead, should the first be wrong."""
        try:
            with self.open() as stream:
                return take(stream)
        except InvalidArchive:
            if self.instead is None:
                raise
        with self.instead() as stream:
            return take(stream)


def label_of(source: LayerSource) -> str:
    """What its progress is called."""
    return source.label or ("" if source.diff_id is None else short(source.diff_id))
