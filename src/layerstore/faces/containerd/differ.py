"""What containerd's diffs mean to the store: what is to be unpacked into a snapshot becomes a layer of the store.

containerd asks with the mounts of an active snapshot, and commits that when it has the answer. So nothing is written
through the mounts: the layer is taken in beside them, with its tar, and noted for the snapshot, which is this layer
from then on. What is not so plain is refused with UNIMPLEMENTED; containerd then asks its next differ, and that writes
into the snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from layerstore import LayerSource, open_own, open_stream
from layerstore.digest import Digest, hex_of, parse, short
from layerstore.errors import Damaged, DepthExceeded, InvalidDigest, KernelError, LayerstoreError, named
from layerstore.faces.containerd import recipes, rows
from layerstore.faces.containerd.errors import Code, Refused
from layerstore.faces.containerd.rows import Unpacked
from layerstore.faces.containerd.snapshotter import OWNER
from layerstore.kernel.files.descriptors import file_of
from layerstore.manifests.media_types import LAYERS

if TYPE_CHECKING:
    from io import FileIO

    from layerstore import ChainID, Container, Store, StoredLayer, Transaction
    from layerstore.faces.containerd.recipes import Plain
    from layerstore.faces.containerd.rows import Row

__all__ = ["ROOT", "Differ", "left"]

ROOT: Final = Path("/var/lib/containerd")
"""Where containerd keeps its things, if its config.toml does not say another place."""
_CONTENT: Final = "io.containerd.content.v1.content/blobs/sha256"
"""Where in that its content lies, each blob by its digest (containerd, plugins/content/local/store.go)."""


class Differ:
    """Unpacks layers into the snapshots of a store. Threads may share it."""

    def __init__(self, store: Store, root: Path = ROOT) -> None:
        """`root`: containerd's, of which nothing but content is read. It need not be there yet."""
        self._store = store
        self._database = store.tables(rows.TABLES)
        self._content = root / _CONTENT

    def end_leases(self) -> None:
        """End leases of snapshots that are gone: whoever ends both may be killed between them."""
        held = list(self._store.leases(OWNER))  # first: a lease comes in the transaction of its row
        with self._database.read() as tx:
            needed = rows.leased(tx)
        self._store.end_leases(OWNER, [name for name in held if name not in needed])

    def apply(self, media_type: str, digest: str, mounts: Sequence[Plain]) -> StoredLayer:
        """Unpack a blob of containerd's content into the active snapshot whose mounts these are: the layer that it is.

        The same blob can be asked for again. Raises `Refused`: UNIMPLEMENTED where containerd has to do it. Raises
        `InvalidArchive`, `DigestMismatch`, `LimitExceeded`, `KernelError`; then nothing has happened.
        """
        if media_type not in LAYERS:
            raise left(f"{media_type!r} is no layer that is known here")
        try:
            blob = parse(digest)
        except InvalidDigest as error:
            raise left(str(error)) from None
        row, container = self.find(mounts)
        with self._database.read() as tx:
            before = rows.unpacked(tx, row)
        if before is not None:
            return self._again(row, before, blob)
        below = self._below(row, container)
        with self._opened(blob) as raw:
            source = LayerSource(
                lambda: open_stream(raw, expect=blob, limits=self._store.config.limits),
                size=os.fstat(raw.fileno()).st_size,
                label=short(blob),
            )
            try:
                return self._store.add_layer(source, below, record=lambda tx, layer: self._note(tx, layer, row, blob))
            except DepthExceeded as error:
                raise left(str(error)) from None

    def _again(self, row: Row, before: Unpacked, blob: Digest) -> StoredLayer:
        if before.blob != blob:
            raise Refused(
                Code.FAILED_PRECONDITION,
                f"{before.blob} was unpacked for snapshot {row.key}: ask for its mounts again, to put another on it",
            )
        return self._store.layer(before.chain_id)

    def _note(self, tx: Transaction, layer: StoredLayer, row: Row, blob: Digest) -> None:
        """Keep the layer for the snapshot. Part of the transaction in which it comes."""
        lease = os.urandom(16).hex()
        rows.note_unpacked(tx, row, Unpacked(blob, layer.chain_id, lease))
        self._store.lease(tx, layer.chain_id, owner=OWNER, name=lease)

    # --- into what ---

    def find(self, mounts: Sequence[Plain]) -> tuple[Row, Container]:
        """The active snapshot that has these mounts: nearly always the one that was made last. Raises `Refused`."""
        wanted = None if len(mounts) != 1 else _written_at(mounts[0])
        if wanted is None:
            raise left("these are no mounts of a snapshot of layerstore's that can be written to")
        with self._database.read() as tx:
            active = rows.active(tx)
        for row in active:
            assert row.container is not None  # of those there are no others
            try:
                container = self._store.container(row.container)
                if self._given_at(container) == wanted:
                    return row, container
            except LayerstoreError:
                continue  # it is gone by now, or damaged; if it is the one that is meant, nobody can unpack into it
        raise left(f"no active snapshot of layerstore's is written to at {wanted}")

    def _given_at(self, container: Container) -> str | None:
        """Where what is written through the mounts of a container's snapshot lands (`Snapshotter._given`)."""
        place = container.mountpoint
        found = recipes.plain(container.recipe()) if place is None else recipes.bind(place, read_only=False)
        return None if found is None else _written_at(found)

    def _below(self, row: Row, container: Container) -> ChainID | None:
        """The layer that the new one comes to lie on. Raises `Refused` if it would not be that layer alone."""
        below: ChainID | None = None
        if row.parent:
            with self._database.read() as tx:
                parent = rows.find(tx, row.snapshotter, row.parent)
            assert parent.snapshot is not None  # it is committed
            on = self._store.snapshots.get(parent.snapshot)
            if not on.is_layer:
                raise left(f"snapshot {row.parent} was not unpacked by layerstore, so what lies on it is no layer")
            below = on.chain_id
        if container.chain_id != below:
            raise left(f"snapshot {row.key} has a layer of its own already")
        if len(container.changes()):
            raise left(f"something else was written in snapshot {row.key}")
        return below

    # --- of what ---

    def _opened(self, blob: Digest) -> FileIO:
        """A blob of containerd's content: a file has its name there when it is whole."""
        path = self._content / hex_of(blob)
        try:
            with named("open", path):
                return file_of(open_own(path, os.O_RDONLY | os.O_NOFOLLOW))
        except (KernelError, Damaged) as error:
            raise left(f"{blob} cannot be had of containerd's content: {error}") from None


def _written_at(mount: Plain) -> str | None:
    """The folder in which what is written through a mount lands; None if there is none."""
    if "ro" in mount.options:
        return None
    if mount.type == "bind":
        return mount.source
    uppers = [option.removeprefix("upperdir=") for option in mount.options if option.startswith("upperdir=")]
    return uppers[0] if mount.type == "overlay" and len(uppers) == 1 else None


def left(why: str) -> Refused:
    """What is left to containerd's own differ: the answer, to be raised."""
    return Refused(Code.UNIMPLEMENTED, why)
