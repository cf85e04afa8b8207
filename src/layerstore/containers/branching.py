"""Containers that branch: checkpoints of one, the way back to them, and others that begin where it is.

All of it is one thing, a segment (`layerstore.segments`): what was written so far is sealed, without reading a file.
With overlay2 the writable layer itself becomes the segment, and the container goes on with a new one on top; with
drivers of whole trees the segment is a snapshot or a copy, and the container goes on as it is. Each deed is one
transaction: before it nothing has changed, after it everything has. The caller holds the container's lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore.containers import rows
from layerstore.driver import Dialect, Layer, LayerKey, State
from layerstore.errors import InUse
from layerstore.kernel.mounts import boot_id
from layerstore.layers import Layers, Storage
from layerstore.layers import rows as layer_rows
from layerstore.segments import CheckpointRow
from layerstore.segments import rows as segment_rows
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.containers.mounting import Mounts, Paused
    from layerstore.containers.rows import Row
    from layerstore.database import Database, Transaction
    from layerstore.segments.merging import Merging
    from layerstore.session import Session

Quiet = AbstractContextManager[object]
"""While inside, nothing that runs in a container writes: its programs are frozen."""


@frozen
class _Sealed:
    """What a container has written, as a segment. `segment`: on which it, or what is forked from it, may stand.

    `fresh`: the new writable layer on top of it, if the old one has become the segment.
    """

    row: Row
    segment: LayerKey | None
    is_new: bool
    fresh: LayerKey | None
    consistent: bool


class Branching:
    """What can be done to one container after the other. See the module's text."""

    def __init__(
        self, database: Database, session: Session, storage: Storage, layers: Layers, mounts: Mounts, merging: Merging
    ) -> None:
        self._database = database
        self._session = session
        self._storage = storage
        self._layers = layers
        self._mounts = mounts
        self._merging = merging

    @property
    def _complete(self) -> bool:
        return self._storage.driver.capabilities.dialect is Dialect.MERGED

    def checkpoint(self, row: Row, label: str | None, quiet: Quiet | None) -> CheckpointRow:
        """See `Container.checkpoint`."""
        self._database.require_writable()
        if label is not None:
            with self._database.read() as tx:
                segment_rows.require_new_label(tx, row.id, label)
        with self._sealed(row, quiet) as sealed, self._database.write() as tx:
            self._record(tx, sealed)
            made = CheckpointRow(
                container=row.id,
                label=label or segment_rows.next_label(tx, row.id),
                segment=sealed.segment,
                image_id=row.image_id,
                image_name=row.image_name,
                chain_id=row.chain_id,
                created=time.time_ns(),
                consistent=sealed.consistent,
            )
            segment_rows.insert_checkpoint(tx, made)
        return made

    def fork(self, row: Row, names: Sequence[str | None], quiet: Quiet | None) -> list[Row]:
        """See `Container.fork`."""
        self._database.require_writable()
        with self._database.read() as tx:
            for name in names:
                rows.require_new(tx, name)
        with self._sealed(row, quiet) as sealed:
            below = self._above(row, sealed)
            origin = evolve(row, segment=sealed.segment)
            return self._add(origin, below, names, sealed)

    def fork_checkpoint(self, row: Row, checkpoint: CheckpointRow, names: Sequence[str | None]) -> list[Row]:
        """See `Checkpoint.fork`."""
        self._database.require_writable()
        with self._database.read() as tx:
            for name in names:
                rows.require_new(tx, name)
            origin = _at(row, checkpoint)
            below = rows.below(tx, origin).layers
        return self._add(origin, below, names, None)

    def rollback(self, row: Row, checkpoint: CheckpointRow) -> None:
        """See `Container.rollback`."""
        self._database.require_writable()
        target = _at(row, checkpoint)
        if self._mounts.is_idle(row) and (row.segment, row.chain_id) == (target.segment, target.chain_id):
            with self._database.write() as tx:
                rows.branch_off(tx, evolve(target, key=row.key))
            return
        with self._database.read() as tx:
            below = rows.below(tx, target).layers
        fresh = evolve(target, key=self._session.new_key(), touched=False)
        paused = self._paused(row)
        gone: list[LayerKey] = []
        try:
            self._storage.driver.create(fresh.layer, below, size=row.size)
            with self._database.write() as tx:
                rows.branch_off(tx, fresh)
                gone = segment_rows.release(tx, row.segment)
                if row.chain_id != fresh.chain_id:
                    gone += layer_rows.release(tx, row.chain_id)[1]
        except BaseException:
            self._layers.drop([fresh.key], quietly=True)
            if paused is not None:
                self._mounts.resume(row.id, paused)
            raise
        keeps_mount = paused is not None and row.key in paused.former
        try:
            if paused is not None:
                self._mounts.resume(row.id, paused)
        finally:
            # In the background, for a driver may take its time: btrfs forgets the files of a subvolume one by one.
            self._merging.later(partial(self._layers.drop, gone if keeps_mount else [row.key, *gone], quietly=True))

    # --- inside ---

    def _add(
        self, origin: Row, below: Sequence[Layer], names: Sequence[str | None], sealed: _Sealed | None
    ) -> list[Row]:
        """Make containers that stand where `origin` does."""
        keys = [self._session.new_key() for _ in names]
        try:
            for key in keys:
                self._storage.driver.create(Layer(key, State.WRITABLE), below, size=origin.size)
            with self._database.write() as tx:
                if sealed is not None:
                    self._record(tx, sealed)
                return [rows.insert(tx, _child(origin, key, name)) for key, name in zip(keys, names, strict=True)]
        except BaseException:
            self._layers.drop(keys, quietly=True)
            raise

    @contextmanager
    def _sealed(self, row: Row, quiet: Quiet | None) -> Iterator[_Sealed]:
        """What was written is sealed when this is entered, and has rows when it is left; else nothing has changed."""
        if self._mounts.is_idle(row):
            yield _Sealed(row, row.segment, is_new=False, fresh=None, consistent=True)
            return
        driver = self._storage.driver
        if row.segment is not None:
            self._merging.require_shallow(row.segment)
        with self._database.read() as tx:
            parents = rows.below(tx, row).layers
        self._mounts.require_files(row, parents)
        snapshots = driver.capabilities.snapshots
        in_use = self._mounts.is_used(row)
        if not in_use:
            self._mounts.require_unmounted(row)
        paused = self._mounts.pause(row) if in_use and not snapshots else None
        in_use = in_use and paused is None
        made: list[LayerKey] = []
        try:
            with (quiet or nullcontext()) if in_use else nullcontext():
                key = self._storage.files.segment(row.layer, parents, in_use=in_use)
            if key is not None and key != row.key:
                made.append(key)
            fresh = self._session.new_key() if key == row.key else None
            if fresh is not None:
                made.append(fresh)
                driver.create(Layer(fresh, State.WRITABLE), (Layer(row.key), *parents), size=row.size)
            consistent = not in_use or snapshots or quiet is not None
            yield _Sealed(row, row.segment if key is None else key, key is not None, fresh, consistent)
        except BaseException:
            self._layers.drop(made, quietly=True)
            if paused is not None:
                self._mounts.resume(row.id, paused)
            raise
        if paused is not None:
            self._mounts.resume(row.id, paused)
        if fresh is not None and key is not None:
            self._merging.look_at(key)

    def _record(self, tx: Transaction, sealed: _Sealed) -> None:
        """Write down what was sealed. Part of the caller's transaction."""
        row, key = sealed.row, sealed.segment
        if sealed.is_new and key is not None:
            segment_rows.insert(tx, key, row.segment, row.chain_id, complete=self._complete)
        if sealed.fresh is not None:
            rows.branch_off(tx, evolve(row, key=sealed.fresh, segment=key))

    def _above(self, row: Row, sealed: _Sealed) -> Sequence[Layer]:
        """What a container on top of what was sealed has for parents."""
        with self._database.read() as tx:
            below = rows.below(tx, row)
        if not sealed.is_new or sealed.segment is None:
            return below.layers
        own = Layer(sealed.segment)
        return (own,) if self._complete else (own, *below.layers)

    def _paused(self, row: Row) -> Paused | None:
        """Unmount it for a moment. Raises `InUse` if somebody is at work in it."""
        self._mounts.residents.require_none(row, is_mounted=self._mounts.is_mounted(row))
        if not self._mounts.is_mounted(row):
            self._mounts.require_unmounted(row)
            return None
        paused = self._mounts.pause(row)
        if paused is None:
            raise InUse(
                f"container {row.name} is in use: what is written in it cannot be taken away now",
                holders=[row.name],
                remedy=f"End what works in it, or unmount it: layerstore umount {row.name}",
            )
        return paused


def _at(row: Row, checkpoint: CheckpointRow) -> Row:
    """A container as it stood when a checkpoint of it was made."""
    return evolve(
        row,
        segment=checkpoint.segment,
        image_id=checkpoint.image_id,
        image_name=checkpoint.image_name,
        chain_id=checkpoint.chain_id,
    )


def _child(origin: Row, key: LayerKey, name: str | None) -> Row:
    return evolve(
        origin,
        id=os.urandom(32).hex(),
        name=name or "",
        key=key,
        created=time.time_ns(),
        boot=boot_id(),
        touched=False,
    )
