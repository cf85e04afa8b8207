"""What has to be done for a stack of layers to be in the store, decided from what is there. Nothing is done here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, field

from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.digest import ChainID, DiffID
    from layerstore.driver import LayerKey
    from layerstore.layers.diffs import Diff

__all__ = ["Plan", "Wanted", "plan"]


@frozen
class Wanted:
    """One layer of the stack. `diff`: what it is made of, if that is there and whole; `has_row`: it has a row."""

    chain: ChainID
    diff_id: DiffID
    diff: Diff | None = None
    has_row: bool = False


@frozen
class Plan:
    """The levels, bottom to top, and where content that a level lacks can be had.

    `shared` are whole diffs of it, kept under other parents. `copied` are those that stand on a damaged layer, which
    they hold a copy of: of no use as they are, but their tars can be read.
    """

    levels: tuple[Wanted, ...]
    shared: Mapping[DiffID, tuple[Diff, ...]]
    copied: Mapping[DiffID, Diff] = field(factory=dict)

    @property
    def missing(self) -> list[DiffID]:
        """The content that is nowhere in the store, or only `copied`, bottom to top, each once."""
        wanted = [level.diff_id for level in self.levels if level.diff is None]
        return [diff_id for diff_id in dict.fromkeys(wanted) if not self.shared.get(diff_id)]

    @property
    def top(self) -> ChainID | None:
        """The layer on top; None if there is no layer."""
        return self.levels[-1].chain if self.levels else None


def plan(
    levels: Sequence[Wanted],
    found: Mapping[ChainID, Diff],
    stored: Mapping[DiffID, Sequence[Diff]],
    whole: Collection[LayerKey],
    *,
    independent: bool,
) -> Plan:
    """Decide for each level if it is there.

    `found` are the diffs of the layers that have rows, `stored` those that are kept of the same content under other
    parents, and `whole` the keys of those among both that have all their files. Without `independent`, what stands on
    a damaged tree was copied from it: all above it is made anew.
    """
    decided: list[Wanted] = []
    copied: dict[DiffID, Diff] = {}
    is_sound = True
    for level in levels:
        diff = found.get(level.chain)
        is_whole = diff is not None and diff.key in whole
        is_sound = is_sound and (is_whole or independent)
        if diff is not None and is_whole and not is_sound:
            copied[level.diff_id] = diff
        decided.append(evolve(level, diff=diff if is_whole and is_sound else None, has_row=diff is not None))
    shared = {
        diff_id: kept
        for diff_id, diffs in stored.items()
        if (kept := tuple(diff for diff in diffs if diff.key in whole))
    }
    return Plan(tuple(decided), shared, copied)
