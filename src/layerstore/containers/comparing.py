"""What a container or a checkpoint has otherwise than one that it stands on: found by what was written in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from layerstore.changes import Changes
from layerstore.containers import rows
from layerstore.containers.rows import Row
from layerstore.driver import Layer, LayerKey, Usage, look
from layerstore.errors import NotFound
from layerstore.images.trees import EMPTY, browsed, settled
from layerstore.kernel.mounts import detached
from layerstore.layers import Layers, Storage
from layerstore.layers import rows as layer_rows
from layerstore.segments import CheckpointRow
from layerstore.segments import rows as segment_rows
from layerstore.segments.rows import SnapshotRow

if TYPE_CHECKING:
    from layerstore.containers.snapshots import Snapshot
    from layerstore.database import Database, Transaction
    from layerstore.layers.relay import Write
    from layerstore.session import Session
    from layerstore.trees import Tree

Between = tuple[tuple[Layer, ...], tuple[Layer, ...]]
"""The segments that one stack has above another, the nearest first; and that other."""


def between(tx: Transaction, row: Row | SnapshotRow, since: CheckpointRow | SnapshotRow | None) -> Between | None:
    """What a container's own layer lies on, down to a checkpoint or (None) its image; None if it stands on no such."""
    if since is not None and since.segment is not None:
        if not segment_rows.is_on(tx, row.segment, since.segment):
            return None
        number = segment_rows.number_of(tx, since.segment)
        base = segment_rows.below(tx, since.segment, since.chain_id).layers
    elif since is not None and since.chain_id != row.chain_id:
        return None
    else:
        number, base = 0, layer_rows.parents_on(tx, row.chain_id)
    return segment_rows.between(tx, row.segment, number), base


def standing(tx: Transaction, row: Row | SnapshotRow, since: SnapshotRow | None = None) -> Between:
    """`between`, against the image, or a snapshot. Raises `NotFound` if it does not stand on that."""
    found = between(tx, row, since)
    if found is None:
        raise NotFound(f"{row.id[:12]} does not stand on snapshot {'' if since is None else since.id[:12]}")
    return found


class Comparing:
    """Reads the trees of containers and checkpoints."""

    def __init__(self, database: Database, session: Session, storage: Storage, layers: Layers) -> None:
        self._database = database
        self._session = session
        self._storage = storage
        self._layers = layers

    @contextmanager
    def tree_of(self, row: CheckpointRow) -> Iterator[int]:
        """See `Checkpoint.open_tree`."""
        with self._leased(row) as stack, ExitStack() as after:
            tree = look(self._storage.driver, stack[0], stack[1:]) if stack else detached([EMPTY])
            yield settled(after.enter_context(tree))

    @contextmanager
    def browsed(self, row: CheckpointRow) -> Iterator[Tree]:
        """See `Checkpoint.browse`."""
        with self._leased(row) as stack, browsed(self._storage, stack) as tree:
            yield tree

    def of_container(self, row: Row, since: CheckpointRow | None) -> Changes | None:
        """What a container changes, whose lock the caller has; None if it does not stand on that checkpoint."""
        with self._database.read() as tx:
            below, found = rows.below(tx, row), between(tx, row, since)
        return None if found is None else self._storage.driver.changes_since(row.layer, below.layers, *found)

    def of_checkpoint(self, row: CheckpointRow, since: CheckpointRow | None) -> Changes | None:
        """The same of a checkpoint."""
        with self._leased(row), self._database.read() as tx:
            if row.segment is None:
                return Changes(b"", sealable=False) if since is None or since.segment is None else None
            segment = segment_rows.find(tx, row.segment)
            assert segment is not None  # which a checkpoint keeps
            if since is not None and since.segment == segment.key:
                return Changes(b"", sealable=False)
            own = _standing(row, segment.key, segment.parent)
            below, found = rows.below(tx, own), between(tx, own, since)
        return None if found is None else self._storage.driver.changes_since(Layer(own.key), below.layers, *found)

    def write_changes(
        self, container: str, write: Write, on: Snapshot | None, found: Changes | None, *, latest: int | None
    ) -> None:
        """See `Container.write_changes`; for a caller that has the container's lock. `found`: these, if there are."""
        with self._database.read() as tx:
            row = rows.find(tx, container)
            below, since = rows.below(tx, row), standing(tx, row, None if on is None else on._row)
        if found is None:
            self._storage.files.write_changes(row.layer, below.layers, write, since=since, latest=latest)
        else:
            self._storage.files.write_found(found, row.layer, below.layers, write, latest=latest)

    def usage_of(self, container: str) -> Usage:
        """See `Container.usage`; for a caller that has the container's lock."""
        with self._database.read() as tx:
            row = rows.find(tx, container)
            parts = [(row.layer, rows.below(tx, row).layers)]
            for segment in segment_rows.owned_by(tx, container):
                below = segment_rows.below(tx, segment.parent, segment.chain_id).layers
                parts.append((segment.layer, below))
                if segment.span is not None:
                    parts.append((Layer(segment.span), ()))
        found = [self._storage.driver.usage(layer, below) for layer, below in parts]
        return Usage(sum(one.size for one in found), sum(one.inodes for one in found))

    @contextmanager
    def _leased(self, row: CheckpointRow) -> Iterator[Sequence[Layer]]:
        """While inside, nothing of a checkpoint's stack is removed."""
        with self._database.write(durable=False) as tx:
            now = segment_rows.checkpoint(tx, row.container, row.label)
            stack = segment_rows.below(tx, now.segment, now.chain_id).layers
            wanted = [("diff", str(layer.key)) for layer in stack]
            wanted += [] if now.segment is None else [("diff", str(now.segment))]
            leases = layer_rows.add_leases(tx, self._session.name, wanted, "it is being read")
        try:
            yield stack
        finally:
            self._layers.end_leases(leases)


def _standing(row: CheckpointRow, key: LayerKey, parent: LayerKey | None) -> Row:
    """A checkpoint's segment, as if it were the writable layer of a container."""
    return Row(
        id=row.container,
        name="",
        image_id=row.image_id,
        image_name=row.image_name,
        chain_id=row.chain_id,
        key=key,
        size=None,
        created=row.created,
        boot="",
        touched=True,
        segment=parent,
    )
