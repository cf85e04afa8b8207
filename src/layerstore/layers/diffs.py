"""Diffs as values: one that is kept, and one on its way in. What is done with their files is in `files`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict

from layerstore.driver import Layer, LayerKey, State
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.digest import ChainID, DiffID

__all__ = ["Diff", "Place", "Since", "Staged", "committed", "differences"]

Since = tuple[Sequence[Layer], Sequence[Layer]]
"""A stack to compare with, further down than the parents: the segments above it, the nearest first, and itself."""


@frozen
class Diff:
    """A diff as it is kept: what its row says.

    `implied` are the directories that the tar implies without listing them; they look as in the parents, and
    `implied_digest` says how. `dependent`: unpacked for one stack of parents, of no use on another. `lazy`: not all of
    its tar is there yet.
    """

    key: LayerKey
    diff_id: DiffID
    size: int
    entries: int
    root_opaque: bool = False
    implied: tuple[str, ...] = ()
    implied_digest: str = ""
    dependent: bool = False
    damaged: bool = False
    lazy: bool = False


def differences(row: Diff, record: Diff) -> list[str]:
    """What a layer's record has otherwise than its row, a word for each."""
    said, known = asdict(record), asdict(row)
    return [
        f"{name} is {said[name]} there and {known[name]} in the database"
        for name in known
        if name not in ("damaged", "lazy") and said[name] != known[name]
    ]


@frozen
class Place:
    """The layer that a diff becomes, and the one that this stands on."""

    chain: ChainID
    parent: ChainID | None


@frozen
class Staged:
    """A layer on its way in, which nobody sees yet: a tar that was taken in, or the changes of a container.

    `layer` has its files: a staged one, or the container's own, if it can become the committed layer as it lies.
    `needs_parents`: it has to be laid anew on its parents. `spool`: the tar itself, of a layer that can be unpacked on
    its parents only, and has no files yet. `notices` tell what a tar could not hold. `on`: the only parents on which
    it is of use, where it holds what they hold. `place` is known when it is laid.
    """

    diff: Diff
    layer: Layer
    needs_parents: bool = False
    place: Place | None = None
    notices: tuple[str, ...] = ()
    spool: Path | None = None
    on: tuple[Layer, ...] | None = None

    @property
    def diff_id(self) -> DiffID:
        """The digest of the tar."""
        return self.diff.diff_id

    @property
    def size(self) -> int:
        """The bytes of the tar."""
        return self.diff.size

    @property
    def entries(self) -> int:
        """How many entries the tar has; 0 while it is only spooled."""
        return self.diff.entries

    @property
    def is_container(self) -> bool:
        """Will a container's own layer be the committed one?"""
        return self.layer.state is State.WRITABLE


def committed(keys: Iterable[LayerKey]) -> tuple[Layer, ...]:
    """The layers that have these keys in rows."""
    return tuple(Layer(key) for key in keys)
