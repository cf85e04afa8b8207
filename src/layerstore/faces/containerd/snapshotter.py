"""What containerd's calls mean to the store. Each is one transaction: before it nothing has happened, after it all has.

Errors are `Refused`, with the API's codes, or the store's own. What a call has made and a row does not name is garbage
that the next `open` removes, so this process may be killed anywhere; containerd then asks again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import evolve

from layerstore.digest import ChainID
from layerstore.driver import Usage
from layerstore.errors import Damaged, NotFound
from layerstore.faces.containerd import filters, recipes, rows
from layerstore.faces.containerd.errors import Code, Refused
from layerstore.faces.containerd.rows import Kind, Row

if TYPE_CHECKING:
    from layerstore import Container, Snapshot, Store, Transaction
    from layerstore.faces.containerd.recipes import Plain
    from layerstore.faces.containerd.rows import Unpacked

__all__ = ["OWNER", "REFERENCE", "Snapshotter"]

OWNER: Final = rows.TABLES.name
"""Whose the leases are that keep layers for snapshots that are not committed yet."""

REFERENCE: Final = "containerd.io/snapshot.ref"
"""The label by which a client says which layer, by its ChainID, it is going to unpack in what it asks for."""

_LABEL: Final = 4096
"""The most bytes of a label's name and value together."""


class Snapshotter:
    """The snapshots of one name, as containerd's config.toml calls this snapshotter. Threads may share it."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store
        self._database = store.tables(rows.TABLES)

    # --- made ---

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Plain:
        """Make an active snapshot on a committed one, or on nothing; what is to be mounted to write in it.

        If the store has the layer that is to be unpacked in it (`REFERENCE`), a committed snapshot of that is made
        instead, and the answer is `Refused` with ALREADY_EXISTS: nothing has to be fetched.
        """
        row = self._new(key, parent, Kind.ACTIVE, labels)
        below = self._parent(row)
        reference = labels.get(REFERENCE)
        if reference:
            self._have(row, below, reference)
        return self._given(self._begin(row, below))

    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Plain:
        """Make a view of a committed snapshot, or of nothing; what is to be mounted to read in it."""
        row = self._new(key, parent, Kind.VIEW, labels)
        below = self._parent(row)
        found = None if below is None else recipes.plain(below.recipe())
        if found is None:
            return self._given(self._begin(row, below), read_only=True)
        with self._database.write() as tx:
            rows.insert(tx, row)
        return found

    def _new(self, key: str, parent: str, kind: Kind, labels: Mapping[str, str]) -> Row:
        _require_name(key)
        _require_labels(labels)
        return rows.new(self.name, key, parent, kind, labels)

    def _parent(self, row: Row) -> Snapshot | None:
        """What a new snapshot stands on. Raises `Refused`, before anything is made for it."""
        with self._database.read() as tx:
            below = rows.find(tx, self.name, row.parent) if row.parent else None
            if below is not None and below.kind is not Kind.COMMITTED:
                raise Refused(Code.INVALID_ARGUMENT, f"parent {row.parent} is not a committed snapshot")
            rows.require_free(tx, self.name, row.key)
        return None if below is None else self._snapshot(below)

    def _begin(self, row: Row, below: Snapshot | None) -> Container:
        """A container for a new snapshot."""
        return self._store.create_container(
            name=_name_of(row),
            on=below,
            record=lambda tx, container: rows.insert(tx, evolve(row, container=container)),
        )

    def _have(self, row: Row, below: Snapshot | None, reference: str) -> None:
        """Answer with ALREADY_EXISTS if the store has this layer, on what `below` is; else with nothing."""
        try:
            layer = self._store.layer(ChainID(reference))  # whatever it is, it is looked up
        except NotFound:
            return
        lower = None if below is None else below.chain_id
        if layer.damaged or layer.parent != lower or not (below is None or below.is_layer):
            return
        try:
            self._store.snapshots.of_layer(layer.chain_id, partial(self._record_layer, row, reference))
        except (NotFound, Damaged):  # so it is by now
            return
        raise Refused(Code.ALREADY_EXISTS, f"the store has layer {reference}: it is snapshot {reference}")

    def _record_layer(self, row: Row, reference: str, tx: Transaction, snapshot: str) -> None:
        """Name the snapshot of a layer by that, as clients look for it; by the key, if the name is another's.

        Whoever was faster has made the same: then there is nothing to do.
        """
        key = reference
        if rows.exists(tx, self.name, reference):
            there = rows.find(tx, self.name, reference)
            if there.kind is Kind.COMMITTED and there.parent == row.parent and there.labels.get(REFERENCE) == reference:
                raise Refused(Code.ALREADY_EXISTS, f"snapshot {reference} already exists")
            key = row.key
        rows.insert(tx, evolve(row, key=key, kind=Kind.COMMITTED, snapshot=snapshot))

    # --- mounted ---

    def mounts(self, key: str) -> Plain:
        """What is to be mounted for an active snapshot or a view. What has to be mounted here is.

        If a layer was unpacked for it, it is a container on that from here on.
        """
        row, layer = self._look(key)
        if row.kind is Kind.COMMITTED:
            raise Refused(Code.FAILED_PRECONDITION, f"snapshot {key} is neither active nor a view")
        if layer is not None:
            return self._given(self._stand(row, layer))
        if row.container is not None:
            return self._given(self._store.container(row.container), read_only=row.kind is Kind.VIEW)
        found = recipes.plain(self._snapshot(self._find(row.parent)).recipe())
        if found is None:
            raise Refused(
                Code.FAILED_PRECONDITION,
                f"snapshot {key} was made when containerd could mount it, and by the driver's options now it cannot: "
                "remove it and view the parent again",
            )
        return found

    def _given(self, container: Container, *, read_only: bool = False) -> Plain:
        """How containerd comes by a container's tree: it mounts that itself, if it can; else it is mounted here."""
        # `Differ` finds a container by what this has given.
        if not read_only and recipes.plain(container.recipe()) is not None:
            found = recipes.plain(container.lend())
            assert found is not None  # it is the same recipe
            return found
        place = container.mountpoint or container.mount(persistent=True).path
        return recipes.bind(place, read_only=read_only)

    # --- committed, and away ---

    def commit(self, name: str, key: str, labels: Mapping[str, str], parent: str = "") -> None:
        """Let an active snapshot be the committed one `name`, with these labels alone.

        If a layer was unpacked for it, it is that layer of the store.
        """
        _require_name(name)
        _require_labels(labels)
        with self._database.read() as tx:
            rows.require_free(tx, self.name, name)
        row, layer = self._look(key)
        rows.require_active(row)
        if parent not in ("", row.parent):
            raise Refused(Code.INVALID_ARGUMENT, f"snapshot {key} stands on {row.parent!r}: it stays there")
        if layer is not None:
            row = self._let_go(row)
            self._store.snapshots.of_layer(
                layer.chain_id, lambda tx, snapshot: rows.turn(tx, row, layer, snapshot, name, labels)
            )
            self._store.end_leases(OWNER, [layer.lease])
            return
        container = self._container(row)
        if container.mountpoint is not None:
            container.unmount(all=True)
        container.end(lambda tx, snapshot: rows.turn(tx, row, None, snapshot, name, labels))

    def _let_go(self, row: Row) -> Row:
        """Remove the container of a snapshot for which a layer was unpacked; the row as it is then.

        What was written in it since is not in the layer, so `Refused` is raised, for then there is no layer that is
        what people see.
        """
        if row.container is None:
            return row
        container = self._container(row)
        if len(container.changes()):
            raise Refused(
                Code.FAILED_PRECONDITION,
                f"something was written for snapshot {row.key}, by mounts from before a layer was unpacked for it: "
                "remove it, prepare it again, and ask for its mounts after the unpack",
            )
        if container.mountpoint is not None:
            container.unmount(all=True)
        container.remove(record=lambda tx, _: rows.without_container(tx, row))
        return evolve(row, container=None)

    def _stand(self, row: Row, layer: Unpacked) -> Container:
        """A container on the layer that was unpacked for an active snapshot, instead of the one beside it."""
        row = self._let_go(row)
        made = self._store.create_container(
            name=_name_of(row),
            on=layer.chain_id,
            record=lambda tx, container: rows.stand(tx, row, layer, container),
        )
        self._store.end_leases(OWNER, [layer.lease])
        return made

    def remove(self, key: str) -> None:
        """Remove a snapshot on which no other stands."""
        with self._database.read() as tx:
            row = rows.find(tx, self.name, key)
            layer = rows.unpacked(tx, row)
            above = rows.children(tx, self.name, key)
        if above:
            raise Refused(Code.FAILED_PRECONDITION, f"cannot remove snapshot {key} with child {above[0]}")

        def forget(tx: Transaction, _: str) -> None:
            rows.delete(tx, row)

        if row.container is not None:
            container = self._container(row)
            if container.mountpoint is not None:
                container.unmount(all=True)
            container.remove(record=forget)
        elif row.snapshot is not None:
            self._snapshot(row).remove(record=forget)
        else:
            with self._database.write() as tx:
                rows.delete(tx, row)
        if layer is not None:
            self._store.end_leases(OWNER, [layer.lease])

    def cleanup(self) -> None:
        """Wait until the files of what was removed are deleted."""
        self._store.wait()

    # --- told ---

    def stat(self, key: str) -> Row:
        """What is known of a snapshot."""
        return self._find(key)

    def update(self, key: str, labels: Mapping[str, str], paths: Sequence[str]) -> Row:
        """Let it have these labels; `paths`: `labels.X` alters that one alone, and no path alters all."""
        _require_name(key)
        with self._database.write() as tx:
            row = rows.find(tx, self.name, key)
            now = dict(row.labels)
            for path in paths or ("labels",):
                if path == "labels":
                    now = dict(labels)
                elif path.startswith("labels."):
                    name = path.removeprefix("labels.")
                    now[name] = labels.get(name, "")
                else:
                    raise Refused(Code.INVALID_ARGUMENT, f"cannot update {path!r} of snapshot {key}: only labels")
            _require_labels(now)
            return rows.update(tx, row, now)

    def walk(self, wanted: Iterable[str]) -> Iterator[Row]:
        """All snapshots that match any of these filters; without filters, all."""
        fits = filters.question(wanted)
        with self._database.read() as tx:
            found = rows.every(tx, self.name)
        return (row for row in found if fits(row))

    def usage(self, key: str) -> Usage | None:
        """What a snapshot occupies by itself; a view nothing. While it is a layer that is not committed: its tar."""
        row, layer = self._look(key)
        if row.kind is Kind.VIEW:
            return None
        if layer is not None:
            return Usage(self._store.layer(layer.chain_id).size, 0)
        return self._container(row).usage() if row.snapshot is None else self._snapshot(row).usage()

    # --- looked up ---

    def _find(self, key: str) -> Row:
        with self._database.read() as tx:
            return rows.find(tx, self.name, key)

    def _look(self, key: str) -> tuple[Row, Unpacked | None]:
        """A snapshot, and the layer that was unpacked for it, at one moment."""
        with self._database.read() as tx:
            row = rows.find(tx, self.name, key)
            return row, rows.unpacked(tx, row)

    def _snapshot(self, row: Row) -> Snapshot:
        """The store's. It may have been removed since the row was read: then so has the row."""
        assert row.snapshot is not None
        try:
            return self._store.snapshots.get(row.snapshot)
        except NotFound:
            raise Refused(Code.NOT_FOUND, f"snapshot {row.key} does not exist") from None

    def _container(self, row: Row) -> Container:
        """The same of an active one."""
        assert row.container is not None
        try:
            return self._store.container(row.container)
        except NotFound:
            raise Refused(Code.NOT_FOUND, f"snapshot {row.key} does not exist") from None


def _name_of(row: Row) -> str:
    """What the container of a snapshot is called."""
    return f"{rows.TABLES.name}-{hashlib.sha256(f'{row.snapshotter} {row.key}'.encode()).hexdigest()[:16]}"


def _require_name(name: str) -> None:
    if not name:
        raise Refused(Code.INVALID_ARGUMENT, "a snapshot needs a name")


def _require_labels(labels: Mapping[str, str]) -> None:
    for name, value in labels.items():
        if len(name.encode()) + len(value.encode()) > _LABEL:
            raise Refused(
                Code.INVALID_ARGUMENT, f"label {name[:64]!r} and its value have more than {_LABEL} bytes together"
            )
