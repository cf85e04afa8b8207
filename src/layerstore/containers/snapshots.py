"""Snapshots: what containers were when they ended, kept for an owner above who knows what each is for.

A container becomes one without a copy, and nothing is hashed for it: it is a segment, on those of other snapshots, and
they on layers; or, of a layer that is there, no segment at all. Containers stand on a snapshot as on an image. What the
owner remembers of each is written in the transaction in which that comes or goes (`Record`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore.containers import rows
from layerstore.containers.comparing import standing
from layerstore.database import Transaction
from layerstore.digest import DiffID, of_bytes
from layerstore.driver import Dialect, Layer, LayerKey, Usage, look
from layerstore.errors import Damaged, NotFound
from layerstore.images.trees import EMPTY, settled
from layerstore.kernel.files import syncfs
from layerstore.kernel.mounts import detached
from layerstore.layers import rows as layer_rows
from layerstore.segments import rows as segment_rows
from layerstore.segments.rows import SnapshotRow
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.containers.mounting import Mounts
    from layerstore.containers.rows import Row
    from layerstore.database import Database
    from layerstore.digest import ChainID
    from layerstore.driver import Mount
    from layerstore.layers import Layers, Storage
    from layerstore.layers.relay import Write
    from layerstore.segments.merging import Merging
    from layerstore.session import Session

__all__ = ["Record", "Snapshot", "Snapshots", "require", "standing_of"]

Record = Callable[[Transaction, str], object]
"""Writes what a caller has to remember of a container or snapshot, given its ID, in the transaction in which it comes
or goes. What it raises goes through to the caller, and nothing has happened then."""


@in_words("snapshot {0.id}")
class Snapshot:
    """One snapshot. It stays until its owner removes it; what stands on it keeps its files even then."""

    def __init__(self, snapshots: Snapshots, row: SnapshotRow) -> None:
        self._snapshots = snapshots
        self._row = row

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self._row.id

    @property
    def chain_id(self) -> ChainID | None:
        """The layer that it stands on, with all below it; None if it stands on nothing."""
        return self._row.chain_id

    @property
    def is_layer(self) -> bool:
        """Is it that layer itself, with nothing on top?"""
        return self._row.holds == "layer"

    @property
    def created(self) -> int:
        """When it was made, in ns since the epoch."""
        return self._row.created

    def open_tree(self) -> AbstractContextManager[int]:
        """While inside: a directory descriptor of its tree, to be read."""
        return self._snapshots.tree_of(self.id)

    def recipe(self) -> Sequence[Mount]:
        """What has to be mounted to see its tree, read-only, as data, and made ready for it; empty if it is of nothing.

        It is not known here who mounts it: the owner removes it after that has ended. Raises `Damaged`, `KernelError`.
        """
        return self._snapshots.recipe(self.id)

    def write_changes(
        self, write: Write, *, since: Snapshot | None = None, whole: bool = False, latest: int | None = None
    ) -> DiffID:
        """Write what it has changed as a layer's tar, and return the DiffID of that.

        Against what its container stood on when it ended: what it began on, or its last checkpoint, whose segment lies
        below this one as if it were somebody else's. `since`: against a snapshot below it instead, be there checkpoints
        or not; `whole`: against the layers of `chain_id`. A layer that is one itself is written as it is. `latest`, in
        ns since the epoch: no time in it is later, but of a layer's.

        What `write` is given is valid until it returns. Raises `CannotRepresent`, `Damaged`; `NotFound` if it does not
        stand on that.
        """
        return self._snapshots.write_changes(self.id, write, since, whole=whole, latest=latest)

    def diff_id(self) -> DiffID:
        """The DiffID of the tar that `write_changes` makes without an option: of what is in its own segment alone.

        So it does not count what a checkpoint of its container has. It is made when it is asked for, by reading what
        was written, and remembered.
        """
        return self._snapshots.diff_id(self.id)

    def usage(self) -> Usage:
        """What it occupies by itself. Looked at once, and remembered."""
        return self._snapshots.usage(self.id)

    def remove(self, *, record: Record | None = None) -> None:
        """Remove it. What stands on it stays. Raises `NotFound`."""
        self._snapshots.remove(self.id, record)

    def __repr__(self) -> str:
        return f"<Snapshot {self.id[:12]}>"


_NOTHING = bytes(1024)
"""A tar with no entries."""


def require(tx: Transaction, on: ChainID | Snapshot | None) -> None:
    """Raise `NotFound` if a container cannot stand on this any more."""
    standing_of(tx, on)


def standing_of(tx: Transaction, on: ChainID | Snapshot | None) -> tuple[LayerKey | None, ChainID | None]:
    """The segment and the layer that a container on this stands on. Raises `NotFound`."""
    if isinstance(on, Snapshot):
        row = segment_rows.snapshot(tx, on.id)
        return row.segment, row.chain_id
    if on is not None:
        layer_rows.stored(tx, on)
    return None, on


def _require_on(row: SnapshotRow, chain_id: ChainID | None, since: Snapshot | None) -> None:
    """Raise `NotFound` unless what a snapshot holds without a segment of its own lies on `since`, if that is asked."""
    if since is not None and (since._row.segment, since.chain_id) != (row.segment, chain_id):
        raise NotFound(f"snapshot {row.id[:12]} does not stand on snapshot {since.id[:12]}")


def _stack(tx: Transaction, row: SnapshotRow) -> tuple[Layer, ...]:
    """All of what a snapshot consists, the nearest first."""
    return segment_rows.below(tx, row.segment, row.chain_id).layers


@in_words("snapshots")
class Snapshots:
    """The snapshots of a store."""

    def __init__(
        self, database: Database, session: Session, storage: Storage, layers: Layers, mounts: Mounts, merging: Merging
    ) -> None:
        self._database = database
        self._session = session
        self._storage = storage
        self._layers = layers
        self._mounts = mounts
        self._merging = merging

    def get(self, name: str) -> Snapshot:
        """The snapshot with this ID. Raises `NotFound`."""
        with self._database.read() as tx:
            return Snapshot(self, segment_rows.snapshot(tx, name))

    def all(self) -> list[Snapshot]:
        """All of them, whosever they are, the oldest first."""
        with self._database.read() as tx:
            return [Snapshot(self, row) for row in segment_rows.every_snapshot(tx)]

    def of_layer(self, chain_id: ChainID, record: Record) -> Snapshot:
        """Make one that is a layer of the store, with all below it: nothing is written but the row.

        Raises `NotFound`; `Damaged` if the layer is known to be so.
        """
        with self._database.write() as tx:
            if layer_rows.stored(tx, chain_id).damaged:
                raise Damaged(
                    f"layer {chain_id} is damaged", remedy="Load or pull an image that has it: that mends it."
                )
            row = SnapshotRow(_new_id(), None, chain_id, "layer", time.time_ns())
            segment_rows.insert_snapshot(tx, row)
            record(tx, row.id)
        return Snapshot(self, row)

    def _end(self, row: Row, record: Record) -> Snapshot:
        """`Container.end`, for a caller that has the container's lock."""
        self._database.require_writable()
        with self._database.read() as tx:
            parents = rows.below(tx, row).layers
        self._mounts.require_files(row, parents)
        self._mounts.require_unmounted(row, goes=True)
        key = self._seal(row, parents)
        gone: list[LayerKey] = []
        try:
            with self._database.write() as tx:
                made = self._record(tx, row, key)
                record(tx, made.id)
                gone = segment_rows.delete_checkpoints(tx, segment_rows.checkpoints(tx, row.id))
                rows.delete(tx, row.id)
        except BaseException:
            if key not in (None, row.key):
                self._layers.drop([LayerKey(str(key))], quietly=True)
            raise
        gone += [] if key == row.key else [row.key]
        self._merging.later(partial(self._drop, gone))
        return Snapshot(self, made)

    def _seal(self, row: Row, parents: Sequence[Layer]) -> LayerKey | None:
        """What was written as a segment, durably: the writable layer itself, wherever that can be.

        Others have mounted it, and need not have synced it.
        """
        driver, files = self._storage.driver, self._storage.files
        self._session.begin()
        if not driver.capabilities.snapshots:
            syncfs(driver.home)
        if driver.capabilities.dialect is Dialect.MERGED:
            return driver.seal(row.layer, parents)
        return files.segment(row.layer, parents, in_use=False)

    def _record(self, tx: Transaction, row: Row, key: LayerKey | None) -> SnapshotRow:
        """Write the rows of a container's segment and of the snapshot. Part of the caller's transaction."""
        if key is not None:
            complete = self._storage.driver.capabilities.dialect is Dialect.MERGED
            segment_rows.insert(tx, key, row.segment, row.chain_id, complete=complete)
        made = SnapshotRow(
            id=_new_id(),
            segment=row.segment if key is None else key,
            chain_id=row.chain_id,
            holds="nothing" if key is None else "segment",
            created=time.time_ns(),
        )
        segment_rows.insert_snapshot(tx, made)
        return made

    def _drop(self, keys: Sequence[LayerKey]) -> None:
        """Remove the files of what has no row any more, a container's folder among it."""
        self._layers.drop(keys, quietly=True)

    def remove(self, name: str, record: Record | None) -> None:
        """`Snapshot.remove`. @private"""
        self._session.begin()  # so that whoever finds it dead looks for what it left
        with self._database.write() as tx:
            if record is not None:
                record(tx, name)
            gone = segment_rows.delete_snapshot(tx, name)
        self._merging.later(partial(self._drop, gone))

    # --- what is in one ---

    def recipe(self, name: str) -> Sequence[Mount]:
        """`Snapshot.recipe`. @private"""
        driver = self._storage.driver
        with self._leased(name) as (_, stack):
            if not stack:
                return ()
            self._storage.files.require(stack)
            driver.prepare(stack[0], stack[1:], read_only=True)
            return driver.mounts(stack[0], stack[1:], read_only=True)

    @contextmanager
    def tree_of(self, name: str) -> Iterator[int]:
        """`Snapshot.open_tree`. @private"""
        with (
            self._leased(name) as (_, stack),
            look(self._storage.driver, stack[0], stack[1:]) if stack else detached([EMPTY]) as tree,
        ):
            yield settled(tree)

    def write_changes(
        self,
        name: str,
        write: Write | None,
        since: Snapshot | None = None,
        *,
        whole: bool = False,
        latest: int | None = None,
    ) -> DiffID:
        """`Snapshot.write_changes`; without `write`, only its DiffID. @private"""
        base = None if since is None else since._row.segment
        with self._leased(name) as (row, _):
            # Of one that holds nothing: what it stands on.
            if row.holds == "segment" or ((whole or since is not None) and row.segment not in (None, base)):
                made = self._written(row, write, since, whole=whole, latest=latest)
            elif row.holds == "layer" and row.chain_id is not None:
                layer = self._layers.get(row.chain_id)
                _require_on(row, layer.parent, since)
                made = layer.diff_id
                if write is not None:
                    self._layers.give_out(row.chain_id, write)
            else:
                _require_on(row, row.chain_id, since)
                made = DiffID(of_bytes(_NOTHING))
                if write is not None:
                    write(memoryview(_NOTHING))
        if row.diff_id != made and since is None and latest is None and not whole:
            with self._database.write() as tx:
                segment_rows.set_diff_id(tx, name, made)
        return made

    def _written(
        self, row: SnapshotRow, write: Write | None, on: Snapshot | None, *, whole: bool, latest: int | None
    ) -> DiffID:
        """What is in its own segment, and in those down to `on` or its layers, as a tar."""
        with self._database.read() as tx:
            found = None if row.segment is None else segment_rows.find(tx, row.segment)
            assert found is not None  # which the snapshot keeps
            below = segment_rows.below(tx, found.parent, found.chain_id).layers
            since = None
            if on is not None or whole:
                since = standing(tx, evolve(row, segment=found.parent), None if on is None else on._row)
        return self._storage.files.write_changes(Layer(found.key), below, write, since=since, latest=latest).diff_id

    def diff_id(self, name: str) -> DiffID:
        """`Snapshot.diff_id`. @private"""
        with self._database.read() as tx:
            known = segment_rows.snapshot(tx, name).diff_id
        return known or self.write_changes(name, None)

    def usage(self, name: str) -> Usage:
        """`Snapshot.usage`. @private"""
        with self._leased(name) as (row, stack):
            if row.usage is not None:
                return row.usage
            own = stack and row.holds != "nothing"
            found = self._storage.files.usage(stack[0], stack[1:]) if own else Usage(0, 0)
        with self._database.write(durable=False) as tx:
            segment_rows.set_usage(tx, name, found)
        return found

    @contextmanager
    def _leased(self, name: str) -> Iterator[tuple[SnapshotRow, tuple[Layer, ...]]]:
        """While inside, nothing of a snapshot's stack is removed."""
        with self._database.write(durable=False) as tx:
            row = segment_rows.snapshot(tx, name)
            stack = _stack(tx, row)
            wanted = [("diff", str(layer.key)) for layer in stack]
            leases = layer_rows.add_leases(tx, self._session.name, wanted, "it is being read")
        try:
            yield row, stack
        finally:
            self._layers.end_leases(leases)


def _new_id() -> str:
    return os.urandom(32).hex()
