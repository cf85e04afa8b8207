"""What a push can be told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from layerstore import reference
from layerstore.digest import Digest
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.layers import Progress
    from layerstore.seekable import Order

__all__ = ["Done", "PushOptions", "Pushed"]

Done: TypeAlias = Callable[[str, str], object]
"""Is told what became of a layer: its short DiffID, and docker's words. From any thread."""


@frozen
class Pushed:
    """An image as it is in a registry now. `name` has its tag, in the short form; `size` is the manifest's."""

    name: str
    digest: Digest
    size: int

    @property
    def tag(self) -> str:
        """The tag alone."""
        return reference.split(self.name)[1]


class PushOptions(TypedDict, total=False):
    """What `Store.push` can be told; see there."""

    compression: str | None
    progress: Progress | None
    done: Done | None
    told: Callable[[str], None] | None
    annotations: Mapping[str, str] | None
    with_index: bool
    order: Order | None
