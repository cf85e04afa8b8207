"""Diffs of snapshots of the store, for containerd's `Diff`: what one changed, as a layer in containerd's content.

containerd asks with mounts: of what a snapshot stands on, and of it. Both are looked for among what the snapshotter
gave out. The tar is then made from what the driver knows of the snapshot, not by a walk through both trees, and is the
one that a commit of the store would keep. What is not found, or is not one snapshot on its own parent, is
UNIMPLEMENTED: containerd then walks both trees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from layerstore.compression.streams import compressing
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError, NotFound
from layerstore.faces.containerd import recipes, rows
from layerstore.faces.containerd.content import UNCOMPRESSED, Caller, Content
from layerstore.faces.containerd.differ import left
from layerstore.faces.containerd.errors import Refused
from layerstore.manifests.media_types import DOCKER_LAYER_TYPE, LAYER_TYPE
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore import ChainID, Container, Snapshot, Store, Write
    from layerstore.faces.containerd.differ import Differ
    from layerstore.faces.containerd.recipes import Plain
    from layerstore.faces.containerd.rows import Row

__all__ = ["ADDRESS", "Blob", "Comparer"]

ADDRESS: Final = Path("/run/containerd/containerd.sock")
"""Where containerd listens, if its config.toml does not say another place."""
_COMPRESSIONS: Final = {
    LAYER_TYPE: "none",
    f"{LAYER_TYPE}+gzip": "gzip",
    f"{LAYER_TYPE}+zstd": "zstd",
    DOCKER_LAYER_TYPE: "none",
    f"{DOCKER_LAYER_TYPE}.gzip": "gzip",
    f"{DOCKER_LAYER_TYPE}.zstd": "zstd",
}


@frozen
class Blob:
    """What was written into containerd's content."""

    media_type: str
    digest: Digest
    size: int


_Writing = Callable[["Write"], object]
"""Writes the tar of a diff."""


class Comparer:
    """Makes diffs of the snapshots of a store. Threads may share it."""

    def __init__(self, store: Store, differ: Differ, address: Path, owner: str) -> None:
        """`address`: the socket of containerd, which need not be there yet; `owner`: see `Content`."""
        self._store = store
        self._differ = differ
        self._address = address
        self._owner = owner
        self._database = store.tables(rows.TABLES)

    def compare(
        self,
        lower: Sequence[Plain],
        upper: Sequence[Plain],
        media_type: str,
        ref: str,
        labels: Mapping[str, str],
        caller: Caller,
        latest: int | None = None,
    ) -> Blob:
        """Write what `upper` has otherwise than `lower` into the caller's content, with these labels.

        `media_type`: that of the layer; empty for gzip. `ref`: under which containerd shows what has come; empty for
        any. `latest`, in ns since the epoch: no time in the layer is later. Raises `Refused`: UNIMPLEMENTED where
        containerd has to do it; `CannotRepresent`, `Damaged`, `KernelError`. Then the content has no new blob.
        """
        kind = media_type or f"{LAYER_TYPE}+gzip"
        compression = _COMPRESSIONS.get(kind)
        if compression is None:
            raise left(f"{kind!r} is no layer that is made here")
        if not self._address.is_socket():
            raise left(f"there is no containerd at {self._address}: --containerd-address says where")
        write_tar = self._found(lower, upper, latest)
        plain = hashlib.sha256()
        with Content(self._address, caller, self._owner) as content:
            content.abort_left()
            with content.upload(ref) as upload:
                with compressing(upload.write, compression) as feed:

                    def both(data: memoryview) -> None:
                        plain.update(data)
                        feed(data)

                    write_tar(both)
                told = dict(labels)
                if compression != "none":
                    told[UNCOMPRESSED] = f"sha256:{plain.hexdigest()}"
                return Blob(kind, upload.commit(told), upload.size)

    # --- what is compared ---

    def _found(self, lower: Sequence[Plain], upper: Sequence[Plain], latest: int | None) -> _Writing:
        """What writes the diff of these mounts. Raises `Refused`."""
        below = {(row.snapshotter, row.parent) for row in self._shown(lower)}
        if len(upper) == 1 and "ro" not in upper[0].options:
            row, container = self._differ.find(upper)
            if _stands(row, below, lower):
                return self._of_active(row, container, latest)
        for view in self._shown(upper):
            if view.parent:
                row = self._below(view)
                if _stands(row, below, lower):
                    return self._of_committed(row, latest)
        raise left("these are no mounts of a snapshot of layerstore's, and of what it stands on")

    def _shown(self, mounts: Sequence[Plain]) -> Iterator[Row]:
        """The views that were given these mounts, the newest first; there may be several of the same."""
        if len(mounts) != 1:
            return
        with self._database.read() as tx:
            views = rows.views(tx)
        for view in views:
            try:
                if self._given(view) == mounts[0]:
                    yield view
            except (LayerstoreError, Refused):
                continue  # it or its parent is gone by now, or damaged: what it would show cannot be read

    def _given(self, view: Row) -> Plain | None:
        """How a view is mounted (`Snapshotter.view`)."""
        if view.container is not None:
            place = self._store.container(view.container).mountpoint
            return None if place is None else recipes.bind(place, read_only=True)
        return recipes.plain(self._snapshot(self._below(view)).recipe())

    # --- how it is written ---

    def _of_active(self, row: Row, container: Container, latest: int | None) -> _Writing:
        with self._database.read() as tx:
            unpacked = rows.unpacked(tx, row)
        parent = self._parent(row)
        if unpacked is not None:
            raise left(f"a layer was unpacked for snapshot {row.key}, and these are mounts from before")
        if container.chain_id == (None if parent is None else parent.chain_id):
            return lambda write: _written(partial(container.write_changes, since=parent, latest=latest), write)
        if len(container.changes()) or container.chain_id is None:
            raise left(f"snapshot {row.key} has a layer of its own, and what was written on that")
        return self._of_layer(row, container.chain_id, parent, latest)

    def _of_committed(self, row: Row, latest: int | None) -> _Writing:
        snapshot, parent = self._snapshot(row), self._parent(row)
        if snapshot.is_layer and snapshot.chain_id is not None:
            return self._of_layer(row, snapshot.chain_id, parent, latest)
        if parent is None and snapshot.chain_id is not None:
            raise left(f"snapshot {row.key} is a layer, and what was written on that")
        # Its container was lent: what a checkpoint of that keeps is a copy, and none of it lies below.
        return lambda write: _written(partial(snapshot.write_changes, since=parent, latest=latest), write)

    def _of_layer(self, row: Row, chain: ChainID, parent: Snapshot | None, latest: int | None) -> _Writing:
        """The tar of a layer of the store, to the bit, if it lies on that parent alone."""
        if latest is not None:
            raise left(f"snapshot {row.key} is a layer with times of its own")
        layer = self._store.layer(chain)
        below = None if parent is None else parent.chain_id
        if layer.parent != below or not (parent is None or parent.is_layer):
            raise left(f"snapshot {row.key} is a layer that does not lie on {row.parent!r}")
        return lambda write: self._store.write_layer(layer.chain_id, write)

    def _parent(self, row: Row) -> Snapshot | None:
        return self._snapshot(self._below(row)) if row.parent else None

    def _below(self, row: Row) -> Row:
        """What a snapshot or a view stands on. It is removed after that alone: if it is gone, so is what was meant."""
        with self._database.read() as tx:
            try:
                return rows.find(tx, row.snapshotter, row.parent)
            except Refused as error:
                raise left(error.message) from None

    def _snapshot(self, row: Row) -> Snapshot:
        assert row.snapshot is not None  # it is committed
        try:
            return self._store.snapshots.get(row.snapshot)
        except NotFound as error:
            raise left(str(error)) from None


def _stands(row: Row, below: set[tuple[str, str]], lower: Sequence[Plain]) -> bool:
    """Does a snapshot stand on what `lower` shows: one of these snapshots, or nothing?"""
    return (row.snapshotter, row.parent) in below or not (lower or row.parent)


def _written(way: _Writing, write: Write) -> None:
    try:
        way(write)
    except NotFound as error:
        raise left(str(error)) from None
