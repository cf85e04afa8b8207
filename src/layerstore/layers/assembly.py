"""One image's layers on their way into the store: what is there already, what is new, and how both become one stack.

Nothing is kept twice: a layer that is there is not read at all, a diff that is there under other parents is shared if
it looks the same on these, and two loads of the same diff wait for each other. What is found damaged is treated as
missing, and the new takes its place. `plan` decides what is missing, `placing` takes it in and lays it on its parents.
Everything new is whole and on disk when the caller writes the rows, in one transaction with whatever refers to them;
what has no row at the end is removed again, whatever the reason. This is the one way by which a layer gets its row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerstore.digest import ChainID, DiffID, chain_ids
from layerstore.driver import Layer
from layerstore.errors import InvalidArchive
from layerstore.layers import rows
from layerstore.layers.diffs import Diff, Staged, committed
from layerstore.layers.placing import Placing, placing_for
from layerstore.layers.plan import Plan, Wanted, plan
from layerstore.locks import of_diff
from layerstore.tar import Level

if TYPE_CHECKING:
    from layerstore.database import Transaction
    from layerstore.driver import LayerKey
    from layerstore.layers.layers import Layers
    from layerstore.layers.sources import LayerSource, Progress


@contextmanager
def assembling(
    layers: Layers,
    diff_ids: Sequence[DiffID],
    purpose: str,
    *,
    offered: Mapping[DiffID, Staged] | None = None,
    trust: bool = False,
    new: Collection[DiffID] = (),
    own: Collection[DiffID] = (),
) -> Iterator[Assembly]:
    """Begin to put a stack together, bottom to top: then `unpack`, `place`, and `record` in a transaction.

    `offered` are layers that were staged before; those that are needed are used, the others stay staged. `trust`: of
    what is there, look only whether that is whole for which an offered layer would be given up, or one of `new`, for
    which there is a source; nothing else is made. `own`: content that is made anew where it is
    borrowed of an attached store.
    """
    layers.database.require_writable()
    layers.check_depth(len(diff_ids))
    offered = offered or {}
    made = [diff_id for diff_id in diff_ids if diff_id in offered or diff_id in new] if trust else diff_ids
    with layers.locks.several(of_diff(diff_id) for diff_id in made):
        assembly = Assembly(layers, diff_ids, offered, own)
        try:
            assembly.look(purpose, made)
            yield assembly
        finally:
            assembly.finish()


class Assembly:
    """See `assembling`."""

    def __init__(
        self, layers: Layers, diff_ids: Sequence[DiffID], offered: Mapping[DiffID, Staged], own: Collection[DiffID]
    ) -> None:
        self._layers = layers
        self._own = own
        self._files = layers.files
        self._offered = offered
        self._plan = Plan(
            tuple(Wanted(chain, name) for chain, name in zip(chain_ids(diff_ids), diff_ids, strict=True)), {}
        )
        self._asked: set[DiffID] = set()
        self._placing: Placing | None = None
        self._stack: tuple[Diff, ...] = ()
        self._orphans: list[LayerKey] = []
        self._leases: list[int] = []

    @property
    def top(self) -> ChainID | None:
        """The layer on top; None if there is no layer."""
        return self._plan.top

    @property
    def known(self) -> list[DiffID]:
        """The content that was not asked of a source, bottom to top, each once."""
        names = dict.fromkeys(level.diff_id for level in self._plan.levels)
        return [name for name in names if name not in self._asked]

    @property
    def stack(self) -> tuple[Layer, ...]:
        """What a layer on top of these has for parents, once they are placed."""
        return committed(rows.visible(reversed(self._stack)))

    def look(self, purpose: str, made: Collection[DiffID]) -> None:
        """See what is there, keep others from removing it, and look whether what may be made anew is whole."""
        layers, levels = self._layers, self._plan.levels
        stored: dict[DiffID, list[Diff]] = {}
        with layers.database.write(durable=False) as tx:
            found = rows.find(tx, [level.chain for level in levels])
            for level in levels:
                if level.chain not in found or found[level.chain].damaged or self._is_foreign(found[level.chain]):
                    stored[level.diff_id] = rows.find_diffs(tx, level.diff_id)
            wanted = [("layer", str(chain)) for chain in found]
            wanted += [("diff", str(diff.key)) for diffs in stored.values() for diff in diffs]
            # A container's key is not just the container's from here on: no sweep may take what is made for it.
            wanted += [("diff", str(one.diff.key)) for one in self._offered.values() if one.is_container]
            self._leases = rows.add_leases(tx, layers.session.name, wanted, purpose)
        candidates = [*found.values(), *(diff for diffs in stored.values() for diff in diffs)]
        trusted = [diff for diff in candidates if diff.diff_id not in made]
        whole = {diff.key for diff in trusted}
        whole |= self._whole([diff for diff in candidates if diff.key not in whole])
        self._plan = plan(levels, found, stored, whole, independent=self._files.independent)
        self._placing = placing_for(self._files, self._plan, self._consumed(), layers.limits)

    def unpack(self, sources: Mapping[DiffID, LayerSource], progress: Progress | None) -> None:
        """Say where what is missing can be read, and begin with it. Raises what the first failure raises."""
        placing = self._at_work()
        asked = [diff_id for diff_id in self._plan.missing if diff_id not in placing.staged]
        self._asked = set(asked)
        placing.take_in({diff_id: sources[diff_id] for diff_id in asked}, progress)

    def place(self) -> None:
        """Put every layer on its parents, and what is new on the disk for good.

        `InvalidArchive`: one is neither offered nor in the store, and there is no source for it.
        """
        placing = self._at_work()
        for diff_id in self._plan.missing:
            if diff_id not in placing.staged and diff_id not in self._asked and diff_id not in self._plan.copied:
                raise InvalidArchive(f"layer {diff_id} is neither in the archive nor in the store", layer=diff_id)
        try:
            self._stack = placing.place()
        finally:
            for key in placing.damaged:  # so the next load takes it in anew
                self._layers.mark_damaged(key)

    def record(self, tx: Transaction) -> None:
        """Write the rows of what is new. Part of the caller's transaction."""
        fresh = {diff.key: diff for diff in self._at_work().fresh}
        replaced: list[LayerKey] = []
        parent: ChainID | None = None
        for level, diff in zip(self._plan.levels, self._stack, strict=True):
            there = rows.find(tx, [level.chain]).get(level.chain)
            # What was there already may have been mended meanwhile by somebody else: theirs stays.
            if there is None or (there.key != diff.key and level.has_row and level.diff is None):
                if (new := fresh.pop(diff.key, None)) is not None:
                    rows.insert_diff(tx, new)
                if there is None:
                    rows.insert_layer(tx, level.chain, parent, diff.key)
                else:
                    rows.replace_diff(tx, level.chain, there, diff)
                    replaced.append(there.key)
            parent = level.chain
        rows.end_leases(tx, self._leases)
        if replaced:
            self._orphans = rows.forget_orphans(tx, replaced)

    def finish(self) -> None:
        """Give back the leases, and remove what has no row."""
        try:
            made = () if self._placing is None else self._placing.made
            self._layers.drop(made, staged=True, quietly=True)
            self._layers.drop(self._orphans, quietly=True)
        finally:
            self._layers.end_leases(self._leases)

    def _at_work(self) -> Placing:
        assert self._placing is not None, "`look` comes first"
        return self._placing

    def _consumed(self) -> dict[DiffID, Staged]:
        """Those of the offered layers that a level may need: they belong to this assembly from here on."""
        wanted = {level.diff_id for level in self._plan.levels if level.diff is None}
        return {
            diff_id: staged
            for diff_id, staged in self._offered.items()
            if diff_id in wanted and self._layers.consume(staged)
        }

    def _is_foreign(self, diff: Diff) -> bool:
        """Is it borrowed, where the store is to have its own?"""
        return Layer(diff.key).is_borrowed and diff.diff_id in self._own

    def _whole(self, candidates: Sequence[Diff]) -> set[LayerKey]:
        """Those that have all their files, as far as sizes and attributes tell."""
        whole = set()
        for diff in {diff.key: diff for diff in candidates}.values():
            if diff.damaged or self._is_foreign(diff):
                continue
            if next(iter(self._files.damages(diff, Level.SIZES)), None) is None:
                whole.add(diff.key)
            else:
                self._layers.mark_damaged(diff.key)
        return whole
