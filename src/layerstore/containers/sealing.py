"""What a container has written becomes a layer: how `commit` does it, and `seal`, which makes no image.

Unmounted, the writable layer itself becomes the layer, if layers are folders: it is read once, to hash it, and nothing
is copied. The container goes on with a fresh one on top, and stands on the new one. Mounted or running, programs may
write to it at any time, so its changes are copied, and what was hashed is what is kept; the container stays as it is.
All rows are written in one transaction: before it nothing has changed, after it everything has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore.containers import rows
from layerstore.containers.comparing import standing
from layerstore.containers.rows import Row
from layerstore.database import Database, Transaction
from layerstore.digest import ChainID, DiffID
from layerstore.driver import Layer, LayerKey, State
from layerstore.layers.adding import recorded
from layerstore.layers.assembly import assembling
from layerstore.segments import rows as segment_rows
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.containers.mounting import Mounts
    from layerstore.layers import Layers, Record, Staged, Storage, StoredLayer
    from layerstore.session import Session

Conclude = Callable[[Transaction, ChainID | None], Row]
"""Writes what the new layer is for, in the transaction in which it gets its row. Given the layer on top, it returns the
container with the image that it stands on from then on."""


@frozen
class Written:
    """What a container stands on, bottom to top, and what it has written, if that is anything.

    `in_use`: it is mounted or programs run in it, so that what was staged is a copy.
    """

    below: tuple[DiffID, ...]
    staged: Staged | None
    in_use: bool

    @property
    def content(self) -> list[DiffID]:
        """All layers of its tree, bottom to top."""
        return [*self.below, *([] if self.staged is None else [self.staged.diff_id])]


class Sealing:
    """One container, whose lock the caller holds, and the parts of the store that it takes to seal it."""

    def __init__(
        self, database: Database, session: Session, storage: Storage, layers: Layers, mounts: Mounts, row: Row
    ) -> None:
        self.row = row
        self._database = database
        self._session = session
        self._storage = storage
        self._layers = layers
        self._mounts = mounts

    @contextmanager
    def written(self, *, latest: int | None = None) -> Iterator[Written]:
        """While inside, what was written is staged. `latest` is as for `Container.seal`."""
        self._database.require_writable()
        row = self.row
        stack = self._layers.stack(row.chain_id)
        with self._database.read() as tx:
            below, since = rows.below(tx, row), standing(tx, row)
        self._mounts.require_files(row, below.layers)
        in_use = self._mounts.is_used(row)
        if not in_use:
            self._mounts.require_unmounted(row)
        staged = self._layers.stage_changes(
            row.layer, below.layers, in_use=in_use, since=since if below.segments else None, latest=latest
        )
        try:
            yield Written(tuple(diff.diff_id for diff in reversed(stack.diffs)), staged, in_use)
        finally:
            if staged is not None:
                self._layers.discard(staged)

    def keep(self, written: Written, purpose: str, conclude: Conclude) -> None:
        """Make a layer of what is staged, if anything is, and let the container go on on top of it."""
        row, staged = self.row, written.staged
        goes_on = staged is not None and not written.in_use
        fresh = Layer(self._session.new_key(), State.WRITABLE) if goes_on else None
        unneeded: list[LayerKey] = []
        offered = {} if staged is None else {staged.diff_id: staged}
        try:
            with assembling(self._layers, written.content, purpose, offered=offered, trust=True) as assembly:
                assembly.place()
                if fresh is not None:
                    self._storage.driver.create(fresh, assembly.stack, size=row.size)
                with self._database.write() as tx:
                    assembly.record(tx)
                    now = conclude(tx, assembly.top)
                    if fresh is not None:
                        rows.branch_off(tx, evolve(now, key=fresh.key, chain_id=assembly.top, segment=None))
                        unneeded = segment_rows.release(tx, row.segment)
        finally:
            if fresh is not None:
                # One of the two belongs to the container now, and the other, unless it is the new layer, to nobody.
                self._layers.drop([row.key, fresh.key, *unneeded], quietly=True)


def seal(sealing: Sealing, *, latest: int | None, record: Record | None) -> StoredLayer | None:
    """See `Container.seal`."""
    made: list[StoredLayer] = []

    def conclude(tx: Transaction, top: ChainID | None) -> Row:
        made.append(recorded(tx, top, record))
        return sealing.row

    with sealing.written(latest=latest) as written:
        if written.staged is None:
            return None
        sealing.keep(written, "it is being sealed", conclude)
    return made[0]
