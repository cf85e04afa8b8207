"""One image's layers on their way into the store: what is there already, what is new, and how both become one stack.

Nothing is kept twice: a layer that is there is not read at all, a diff that is there under other parents is shared if
it looks the same on these, and two loads of the same diff wait for each other. What is found damaged is treated as
missing, and the new takes its place. Everything new is whole and on disk when the caller writes the rows, in one
transaction with whatever refers to them; what has no row at the end is removed again, whatever the reason.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO

from attrs import define

from layerstore.database import Transaction
from layerstore.digest import ChainID, DiffID, chain_ids
from layerstore.driver import LayerKey
from layerstore.errors import InvalidArchive, LayerstoreError
from layerstore.layers import rows
from layerstore.layers.folders import Diff, Staged
from layerstore.layers.layers import Layers, LayerSource, Progress
from layerstore.layers.relay import relay
from layerstore.locks import of_diff
from layerstore.tar import Level, Readable

WORKERS = min(4, (os.cpu_count() or 1) + 1)
"""Layers unpacked at once. Each has threads of its own writing files; more only wait for the disk."""


@contextmanager
def assembling(layers: Layers, diff_ids: Sequence[DiffID], purpose: str, *, trust: bool = False) -> Iterator[Assembly]:
    """Begin to put a stack together, bottom to top: then `unpack` or `adopt`, `place`, and `record` in a transaction.

    `trust`: do not look whether what is there is whole, for it is in use anyway.
    """
    layers.database.require_writable()
    layers.check_depth(len(diff_ids))
    with layers.locks.several(of_diff(diff_id) for diff_id in diff_ids):
        assembly = Assembly(layers, diff_ids)
        try:
            assembly.look(purpose, trust=trust)
            yield assembly
        finally:
            assembly.finish()


@define
class _Level:
    """One layer of the stack. `diff` is None until it is known what the layer is made of."""

    chain: ChainID
    diff_id: DiffID
    diff: Diff | None = None
    has_row: bool = False


class Assembly:
    """See `assembling`."""

    def __init__(self, layers: Layers, diff_ids: Sequence[DiffID]) -> None:
        self._layers = layers
        self._folders = layers.folders
        self._levels = [_Level(chain, name) for chain, name in zip(chain_ids(diff_ids), diff_ids, strict=True)]
        self._sources: Mapping[DiffID, LayerSource] = {}
        self._progress: Progress | None = None
        self._asked: set[DiffID] = set()
        self._stored: dict[DiffID, list[Diff]] = {}
        self._staged: dict[DiffID, Staged] = {}
        self._fresh: list[tuple[Diff, tuple[LayerKey, ...]]] = []
        self._mine: set[LayerKey] = set()
        self._orphans: list[LayerKey] = []
        self._leases: list[int] = []
        self._stop = threading.Event()

    @property
    def top(self) -> ChainID | None:
        """The layer on top; None if there is no layer."""
        return self._levels[-1].chain if self._levels else None

    @property
    def missing(self) -> list[DiffID]:
        """The content that is not in the store yet, bottom to top, each once."""
        wanted = [level.diff_id for level in self._levels if level.diff is None]
        there = self._stored.keys() | self._staged.keys()
        return [diff_id for diff_id in dict.fromkeys(wanted) if diff_id not in there]

    @property
    def known(self) -> list[DiffID]:
        """The content that was in the store before, bottom to top, each once."""
        return [name for name in dict.fromkeys(level.diff_id for level in self._levels) if name not in self._asked]

    def look(self, purpose: str, *, trust: bool) -> None:
        """See what is there, keep others from removing it, and look whether it is whole."""
        layers = self._layers
        with layers.database.write(durable=False) as tx:
            found = rows.find(tx, [level.chain for level in self._levels])
            for level in self._levels:
                if level.chain not in found:
                    self._stored[level.diff_id] = rows.find_diffs(tx, level.diff_id)
            wanted = [("layer", str(chain)) for chain in found]
            wanted += [("diff", str(diff.key)) for diffs in self._stored.values() for diff in diffs]
            self._leases = rows.add_leases(tx, layers.session.name, wanted, purpose)
        candidates = [*found.values(), *(diff for diffs in self._stored.values() for diff in diffs)]
        whole = {diff.key for diff in candidates} if trust else self._whole(candidates)
        for level in self._levels:
            level.has_row = level.chain in found
        for level in self._levels:
            if level.has_row and found[level.chain].key in whole:
                level.diff = found[level.chain]
            elif not self._folders.independent:
                break  # what stands on a damaged tree was copied from it: all of it is made anew
        self._stored = {
            diff_id: kept
            for diff_id, diffs in self._stored.items()
            if (kept := [diff for diff in diffs if diff.key in whole])
        }

    def unpack(self, sources: Mapping[DiffID, LayerSource], progress: Progress | None) -> None:
        """Take in what is missing, in parallel where the driver can. Raises what the first failure raises."""
        self._sources, self._progress = sources, progress
        self._asked = set(self.missing)
        missing = [sources[diff_id] for diff_id in self.missing]
        if not missing or not self._folders.independent:
            return  # the latter are unpacked by `place`, each on its parents
        with self._layers.writeback():
            if len(missing) == 1:
                self._take_in(missing[0])
            else:
                self._take_in_parallel(missing)

    def adopt(self, staged: Mapping[DiffID, Staged]) -> None:
        """Use layers that were staged before. `InvalidArchive`: one is neither among them nor in the store."""
        for diff_id in self.missing:
            candidate = staged.get(diff_id)
            if candidate is None or not self._layers.consume(candidate):
                raise InvalidArchive(f"layer {diff_id} is neither in the archive nor in the store", layer=diff_id)
            self._mine.add(candidate.diff.key)
            self._staged[diff_id] = candidate

    def place(self) -> None:
        """Put every layer on its parents, and what is new on the disk for good."""
        below: list[Diff] = []  # nearest first
        for level in self._levels:
            if level.diff is None:
                parents = rows.visible(below)
                if self._folders.independent:
                    level.diff = self._settled(level.diff_id, parents)
                else:
                    level.diff = self._unpacked_on(level.diff_id, parents)
            below.insert(0, level.diff)
        if self._folders.independent:
            self._keep()

    def record(self, tx: Transaction) -> None:
        """Write the rows of what is new. Part of the caller's transaction."""
        fresh = {diff.key: diff for diff, _ in self._fresh}
        replaced = False
        parent: ChainID | None = None
        for level in self._levels:
            there = rows.find(tx, [level.chain]).get(level.chain)
            if level.diff is not None and (there is None or (there.key != level.diff.key and level.has_row)):
                if (new := fresh.pop(level.diff.key, None)) is not None:
                    rows.insert_diff(tx, new)
                if there is None:
                    rows.insert_layer(tx, level.chain, parent, level.diff.key)
                else:
                    self._replace(tx, level.chain, there, level.diff)
                    replaced = True
            parent = level.chain
        rows.end_leases(tx, self._leases)
        if replaced:
            self._orphans = rows.forget_orphans(tx)

    def finish(self) -> None:
        """Give back the leases, and remove what has no row."""
        try:
            self._layers.drop([*self._mine, *self._orphans], quietly=True)
        finally:
            self._layers.end_leases(self._leases)

    # --- what is there ---

    def _whole(self, candidates: Sequence[Diff]) -> set[LayerKey]:
        """Those that have all their files, as far as sizes and attributes tell."""
        whole = set()
        for diff in {diff.key: diff for diff in candidates}.values():
            if diff.damaged:
                continue
            if next(iter(self._folders.damages(diff, Level.SIZES)), None) is None:
                whole.add(diff.key)
            else:
                self._layers.mark_damaged(diff.key)
        return whole

    # --- what is new ---

    def _take_in(self, source: LayerSource) -> None:
        with source.open() as stream:
            watched = _Stoppable(stream, self._stop)
            staged = self._folders.take_in(watched, expected=source.diff_id, progress=self._teller(source))
        self._mine.add(staged.diff.key)
        self._staged[staged.diff_id] = staged
        self._tell_done(source, staged.size)

    def _take_in_parallel(self, sources: Sequence[LayerSource]) -> None:
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        # The largest first: the last one to end decides when all are done.
        order = sorted(sources, key=lambda source: -(source.size or 0))
        with ThreadPoolExecutor(min(WORKERS, len(order)), thread_name_prefix="layerstore-unpack") as pool:
            futures = [pool.submit(self._take_in, source) for source in order]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
            failed = [error for future in done if (error := future.exception()) is not None]
            if failed:
                self._stop.set()  # what the others read is of no use any more
                pool.shutdown(cancel_futures=True)
                raise failed[0]

    def _settled(self, diff_id: DiffID, parents: tuple[LayerKey, ...]) -> Diff:
        """The diff that this content is on these parents: one that is there and looks the same, or a new one."""
        folders = self._folders
        fresh = [diff for diff, _ in self._fresh if diff.diff_id == diff_id]
        stored = self._stored.get(diff_id, [])
        for diff in (*fresh, *stored):
            if folders.fits(diff, parents):
                return diff
        staged = self._staged.pop(diff_id, None)
        if staged is None:
            origin, in_staging = (fresh[0], True) if fresh else (stored[0], False)
            staged = folders.rebuild(origin, parents, dependent=origin.dependent, staged=in_staging)
            self._mine.add(staged.diff.key)
        settled = folders.settle(staged, parents)
        self._mine.add(settled.diff.key)
        self._fresh.append((settled.diff, parents))
        return settled.diff

    def _unpacked_on(self, diff_id: DiffID, parents: tuple[LayerKey, ...]) -> Diff:
        """The content unpacked on top of its parents, whole and on disk: the next layer starts from it."""
        with self._tar(diff_id) as stream:
            staged = self._folders.take_in(
                stream, parents=parents, expected=diff_id, progress=self._teller(self._sources.get(diff_id))
            )
        self._mine.add(staged.diff.key)
        [kept] = self._folders.keep([(staged.diff, parents)])
        self._mine.add(kept.key)
        self._fresh.append((kept, parents))
        self._tell_done(self._sources.get(diff_id), kept.size)
        return kept

    @contextmanager
    def _tar(self, diff_id: DiffID) -> Iterator[Readable]:
        """The tar of a layer that the driver can only unpack on its parents."""
        with ExitStack() as stack:
            if (staged := self._staged.get(diff_id)) is not None and staged.spool is not None:
                yield stack.enter_context(FileIO(staged.spool))
            elif stored := self._stored.get(diff_id):
                yield stack.enter_context(relay(lambda write: self._folders.give_out(stored[0], write)))
            else:
                yield stack.enter_context(self._sources[diff_id].open())

    def _keep(self) -> None:
        """Seal all that is new, and follow the keys that change by it."""
        kept = self._folders.keep(self._fresh)
        sealed = {old.key: new for (old, _), new in zip(self._fresh, kept, strict=True)}
        self._mine |= {diff.key for diff in kept}
        for level in self._levels:
            if level.diff is not None:
                level.diff = sealed.get(level.diff.key, level.diff)
        self._fresh = [(sealed[old.key], parents) for old, parents in self._fresh]

    def _replace(self, tx: Transaction, chain: ChainID, old: Diff, new: Diff) -> None:
        """Let the layer have the files of `new`, and every other layer that shares the damaged ones, if it can."""
        tx.execute("UPDATE layers SET key = ? WHERE chain_id = ?", (new.key, chain))
        if new.implied_digest == old.implied_digest and not new.dependent and not old.dependent:
            tx.execute("UPDATE layers SET key = ? WHERE key = ?", (new.key, old.key))

    # --- progress ---

    def _teller(self, source: LayerSource | None) -> Callable[[int], None] | None:
        if self._progress is None or source is None:
            return None
        progress, label, size = self._progress, _label(source), source.size
        return lambda done: progress(label, done, size)

    def _tell_done(self, source: LayerSource | None, size: int) -> None:
        if self._progress is not None and source is not None:
            self._progress(_label(source), size, size)


class _Stoppable:
    """A stream that can be told to end before its end, by an error in the thread that reads it."""

    def __init__(self, stream: Readable, stop: threading.Event) -> None:
        self._stream = stream
        self._stop = stop

    def readinto(self, buffer: memoryview, /) -> int | None:
        if self._stop.is_set():
            raise LayerstoreError("stopped, for another layer could not be unpacked")
        return self._stream.readinto(buffer)


def _label(source: LayerSource) -> str:
    return source.label or (source.diff_id or "").partition(":")[2][:12]
