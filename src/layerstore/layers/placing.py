"""Taking in what is missing of a stack, and laying it on its parents: two strategies.

`Apart`: the layers can be taken in without their parents, several at once, and equal diffs are shared; then each is
laid on its parents. `InTurn`: a layer holds what its parents hold, so each is taken in on the one before. Both keep all
that is new at the end, with one sync.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore.driver import Layer, LayerKey
from layerstore.errors import Damaged, LayerstoreError
from layerstore.kernel.files import Writeback
from layerstore.layers.diffs import Place
from layerstore.layers.rows import visible
from layerstore.layers.sources import LayerSource, Progress, label_of
from layerstore.limits import Limits

if TYPE_CHECKING:
    from layerstore.digest import ChainID, DiffID
    from layerstore.layers.diffs import Diff, Staged
    from layerstore.layers.files import LayerFiles
    from layerstore.layers.plan import Plan
    from layerstore.tar import Readable

WORKERS = min(4, (os.cpu_count() or 1) + 1)
"""Layers unpacked at once. Each has threads of its own writing files; more only wait for the disk."""


class Placing(ABC):
    """One strategy at work on one plan."""

    def __init__(self, files: LayerFiles, plan: Plan, staged: Mapping[DiffID, Staged], limits: Limits) -> None:
        self._files = files
        self._plan = plan
        self._limits = limits
        self._placed: list[tuple[Staged, tuple[Layer, ...]]] = []
        self._sources: Mapping[DiffID, LayerSource] = {}
        self._progress: Progress | None = None
        self.staged = dict(staged)
        """What was taken in, by its content."""
        self.made = [one.diff.key for one in staged.values()]
        """The keys of all that was made here, or given: what of it gets no row has to go."""
        self.fresh: Sequence[Diff] = ()
        """The diffs that are new, once they are kept."""
        self.damaged: list[LayerKey] = []
        """The keys of diffs of the store whose tars could not be read."""

    @abstractmethod
    def take_in(self, sources: Mapping[DiffID, LayerSource], progress: Progress | None) -> None:
        """Take in what can be without its parents. There is a source for all that is missing."""

    def place(self) -> tuple[Diff, ...]:
        """Lay each level on those below it, and keep what is new; the diffs of all levels, bottom to top."""
        below: list[Diff] = []  # nearest first
        known: dict[LayerKey, Layer] = {}  # of what is below: staged, or there before
        parent: ChainID | None = None
        for level in self._plan.levels:
            diff = level.diff
            if diff is None:
                before = len(self._placed)
                diff = self._laid(level.diff_id, tuple(known[key] for key in visible(below)))
                if len(self._placed) > before:
                    newest, on = self._placed[-1]
                    self._placed[-1] = evolve(newest, place=Place(level.chain, parent)), on
                    known[newest.layer.key] = newest.layer
            parent = level.chain
            known.setdefault(diff.key, Layer(diff.key))
            below.insert(0, diff)
        sealed = self._kept()
        return tuple(sealed.get(diff.key, diff) for diff in reversed(below))

    @abstractmethod
    def _laid(self, diff_id: DiffID, parents: tuple[Layer, ...]) -> Diff:
        """The diff that this content is on these parents."""

    def _kept(self) -> dict[LayerKey, Diff]:
        """Keep what is new; what it is by now, by the keys that it had."""
        kept = self._files.keep(self._placed)
        self.made += [diff.key for diff in kept]
        self.fresh = kept
        return {staged.diff.key: diff for (staged, _), diff in zip(self._placed, kept, strict=True)}

    def _from_store(self, stored: Diff, parents: tuple[Layer, ...]) -> Staged:
        """Take in what the store has, once more."""
        try:
            return self._files.rebuild(stored, parents, staged=False)
        except Damaged:
            self.damaged.append(stored.key)
            raise

    def _note(self, staged: Staged) -> None:
        self.made.append(staged.diff.key)

    def _expect(self, sources: Sequence[LayerSource]) -> None:
        """Tell those that are going to be opened, in the order in which they are."""
        for source in sources:
            if source.expect is not None:
                source.expect()

    # --- progress ---

    def _teller(self, source: LayerSource | None) -> Callable[[int], None] | None:
        if self._progress is None or source is None:
            return None
        progress, label, size = self._progress, label_of(source), source.size
        return lambda done: progress(label, done, size)

    def _tell_done(self, source: LayerSource | None, size: int) -> None:
        if self._progress is not None and source is not None:
            self._progress(label_of(source), size, size)


class Apart(Placing):
    """For layers that are independent of their parents."""

    def __init__(self, files: LayerFiles, plan: Plan, staged: Mapping[DiffID, Staged], limits: Limits) -> None:
        super().__init__(files, plan, staged, limits)
        self._stop = threading.Event()

    def take_in(self, sources: Mapping[DiffID, LayerSource], progress: Progress | None) -> None:
        self._progress = progress
        if not sources:
            return
        # The largest first: the last one to end decides when all are done.
        order = sorted(sources.values(), key=lambda source: -(source.size or 0))
        self._expect(order)
        with Writeback(self._files.driver.home):
            if len(order) == 1:
                self._take_in(order[0])
            else:
                self._take_in_parallel(order)

    def _take_in(self, source: LayerSource) -> None:
        told = self._teller(source)
        lazy = None if source._lazily is None else source._lazily()
        if lazy is not None and source.diff_id is not None:
            staged = self._files.take_lazily(lazy, expected=source.diff_id, limits=self._limits)
        else:
            staged = source.read_by(
                lambda stream: self._files.take_in(
                    _Stoppable(stream, self._stop), expected=source.diff_id, progress=told, limits=self._limits
                )
            )
        self._note(staged)
        self.staged[staged.diff_id] = staged
        self._tell_done(source, staged.size)

    def _take_in_parallel(self, order: Sequence[LayerSource]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        from layerstore.patience import until_done_or_one_fails

        pool = ThreadPoolExecutor(min(WORKERS, len(order)), thread_name_prefix="layerstore-unpack")
        try:
            futures = [pool.submit(self._take_in, source) for source in order]
            until_done_or_one_fails(futures)
            failed = [error for future in futures if future.done() and (error := future.exception()) is not None]
            if failed:
                raise failed[0]
        except BaseException:  # an interrupt, too, from the first thread on
            self._abandon(order)
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _abandon(self, sources: Sequence[LayerSource]) -> None:
        """What is being read is of no use any more."""
        self._stop.set()
        for source in sources:
            if source.abandon is not None:
                source.abandon()

    def _laid(self, diff_id: DiffID, parents: tuple[Layer, ...]) -> Diff:
        """One that is there and looks the same on these parents, or a new one."""
        files = self._files
        fresh = [staged.diff for staged, _ in self._placed if staged.diff_id == diff_id]
        stored = self._plan.shared.get(diff_id, ())
        for diff in (*fresh, *stored):
            if files.fits(diff, parents):
                return diff
        staged = self.staged.pop(diff_id, None)
        if staged is None:
            staged = files.rebuild(fresh[0], parents, staged=True) if fresh else self._from_store(stored[0], parents)
            self._note(staged)
        settled = files.settle(staged, parents)
        self._note(settled)
        self._placed.append((settled, parents))
        return settled.diff


class InTurn(Placing):
    """For layers that hold what their parents hold."""

    def take_in(self, sources: Mapping[DiffID, LayerSource], progress: Progress | None) -> None:
        self._sources, self._progress = sources, progress  # each is read when its parents are there
        self._expect(list(sources.values()))

    def place(self) -> tuple[Diff, ...]:
        with Writeback(self._files.driver.home):
            return super().place()

    def _laid(self, diff_id: DiffID, parents: tuple[Layer, ...]) -> Diff:
        staged = self.staged.get(diff_id)
        if staged is not None and (staged.is_container or staged.on == parents):
            self._placed.append((staged, parents))
            return staged.diff
        source = self._sources.get(diff_id)
        told = self._teller(source)
        twin = next((placed for placed, _ in self._placed if placed.diff_id == diff_id), None)
        if staged is not None and staged.spool is not None:
            with FileIO(staged.spool) as spooled:
                taken = self._files.take_in(
                    spooled, parents=parents, expected=diff_id, progress=told, limits=self._limits
                )
        elif staged is not None:  # on other parents than it was meant for
            taken = self._files.rebuild(staged.diff, parents, staged=True)
        elif stored := self._plan.shared.get(diff_id):
            taken = self._from_store(stored[0], parents)
        elif twin is not None:  # an image that has the same layer twice: a source can be read once
            taken = self._files.rebuild(twin.diff, parents, staged=True)
        elif source is None:
            taken = self._from_store(self._plan.copied[diff_id], parents)
        else:
            taken = source.read_by(
                lambda stream: self._files.take_in(
                    stream, parents=parents, expected=diff_id, progress=told, limits=self._limits
                )
            )
        self._note(taken)
        self._placed.append((taken, parents))
        self._tell_done(source, taken.size)
        return taken.diff


class _Stoppable:
    """A stream that can be told to end before its end, by an error in the thread that reads it."""

    def __init__(self, stream: Readable, stop: threading.Event) -> None:
        self._stream = stream
        self._stop = stop

    def readinto(self, buffer: memoryview, /) -> int | None:
        if self._stop.is_set():
            raise LayerstoreError("stopped, for another layer could not be unpacked")
        return self._stream.readinto(buffer)


def placing_for(files: LayerFiles, plan: Plan, staged: Mapping[DiffID, Staged], limits: Limits) -> Placing:
    """The strategy for this way of keeping layers."""
    return (Apart if files.independent else InTurn)(files, plan, staged, limits)
