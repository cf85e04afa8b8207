"""Which key of containerd's is which container or snapshot of the store: all SQL about that, in tables of its own.

A key is what containerd calls a snapshot: `NAMESPACE/NUMBER/NAME`. Snapshotters (the name in containerd's config.toml)
do not see each other's. An active snapshot is a container, a committed one a snapshot; a view shows the snapshot of its
parent, and has a container only where the store itself has to mount it, or where there is nothing below it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from attrs import evolve

from layerstore import ChainID, Tables, Transaction
from layerstore.faces.containerd.errors import Code, Refused
from layerstore.values import frozen

__all__ = [
    "TABLES",
    "Kind",
    "Row",
    "Unpacked",
    "active",
    "children",
    "delete",
    "every",
    "find",
    "insert",
    "leased",
    "new",
    "note_unpacked",
    "stand",
    "turn",
    "unpacked",
    "update",
    "views",
    "without_container",
]

TABLES = Tables(
    "containerd",
    (
        """
CREATE TABLE containerd_snapshots (
    id TEXT PRIMARY KEY,                    -- random
    snapshotter TEXT NOT NULL,              -- as containerd calls us
    key TEXT NOT NULL,
    parent TEXT NOT NULL,                   -- a key, or ''
    kind INTEGER NOT NULL,                  -- 1 view, 2 active, 3 committed
    container TEXT REFERENCES containers,
    snapshot TEXT REFERENCES snapshots ON DELETE CASCADE,
    labels TEXT NOT NULL,                   -- JSON
    created INTEGER NOT NULL,               -- ns since the epoch
    updated INTEGER NOT NULL,
    UNIQUE (snapshotter, key)
) WITHOUT ROWID;
CREATE INDEX containerd_snapshots_by_parent ON containerd_snapshots (snapshotter, parent);
CREATE INDEX containerd_snapshots_by_container ON containerd_snapshots (container);
CREATE INDEX containerd_snapshots_by_snapshot ON containerd_snapshots (snapshot);
""",
        """
CREATE TABLE containerd_unpacked (          -- layers of the store that active snapshots will be, and show from now on
    id TEXT PRIMARY KEY REFERENCES containerd_snapshots ON DELETE CASCADE,
    blob TEXT NOT NULL,                     -- the digest of what was unpacked
    chain_id TEXT NOT NULL,
    lease TEXT NOT NULL                     -- what keeps the layer: its name, random
) WITHOUT ROWID;
""",
    ),
)


class Kind(IntEnum):
    """As the API numbers them."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@frozen
class Row:
    """One snapshot, as containerd knows it. `created` and `updated` are ns since the epoch."""

    id: str
    snapshotter: str
    key: str
    parent: str
    kind: Kind
    container: str | None
    snapshot: str | None
    labels: Mapping[str, str]
    created: int
    updated: int


@frozen
class Unpacked:
    """The layer that was unpacked for an active snapshot: what it will be. `blob` is the digest of what was read."""

    blob: str
    chain_id: ChainID
    lease: str


_COLUMNS = "id, snapshotter, key, parent, kind, container, snapshot, labels, created, updated"
_SELECT = f"SELECT {_COLUMNS} FROM containerd_snapshots"


def new(snapshotter: str, key: str, parent: str, kind: Kind, labels: Mapping[str, str]) -> Row:
    """A row for what is about to be made, now."""
    now = time.time_ns()
    return Row(os.urandom(8).hex(), snapshotter, key, parent, kind, None, None, without_empty(labels), now, now)


def without_empty(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels as they are kept: one without a value is none."""
    return {name: value for name, value in labels.items() if value}


def find(tx: Transaction, snapshotter: str, key: str) -> Row:
    """The snapshot of this key. Raises `Refused`."""
    row = tx.execute(f"{_SELECT} WHERE snapshotter = ? AND key = ?", (snapshotter, key)).fetchone()
    if row is None:
        raise Refused(Code.NOT_FOUND, f"snapshot {key} does not exist")
    return _row(row)


def exists(tx: Transaction, snapshotter: str, key: str) -> bool:
    """Is there such?"""
    query = "SELECT 1 FROM containerd_snapshots WHERE snapshotter = ? AND key = ?"
    return tx.execute(query, (snapshotter, key)).fetchone() is not None


def every(tx: Transaction, snapshotter: str) -> list[Row]:
    """All of a snapshotter, in the order of their keys."""
    return [_row(row) for row in tx.execute(f"{_SELECT} WHERE snapshotter = ? ORDER BY key", (snapshotter,))]


def children(tx: Transaction, snapshotter: str, key: str) -> list[str]:
    """The keys of what stands on it."""
    query = "SELECT key FROM containerd_snapshots WHERE snapshotter = ? AND parent = ? ORDER BY key"
    return [str(row[0]) for row in tx.execute(query, (snapshotter, key))]


def insert(tx: Transaction, row: Row) -> None:
    """Write the row of a new one. Raises `Refused` if its key is taken, or if its parent is no parent."""
    if row.parent and find(tx, row.snapshotter, row.parent).kind is not Kind.COMMITTED:
        raise Refused(Code.INVALID_ARGUMENT, f"parent {row.parent} is not a committed snapshot")
    require_free(tx, row.snapshotter, row.key)
    columns = (row.id, row.snapshotter, row.key, row.parent, int(row.kind), row.container, row.snapshot)
    tx.execute(
        f"INSERT INTO containerd_snapshots ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*columns, json.dumps(dict(row.labels)), row.created, row.updated),
    )


def require_free(tx: Transaction, snapshotter: str, key: str) -> None:
    """Raise `Refused` if there is a snapshot of this key."""
    if exists(tx, snapshotter, key):
        raise Refused(Code.ALREADY_EXISTS, f"snapshot {key} already exists")


def turn(tx: Transaction, row: Row, had: Unpacked | None, snapshot: str, name: str, labels: Mapping[str, str]) -> None:
    """Let an active snapshot, whose container ends, be the committed one `name`. Raises `Refused`.

    `had` is what was unpacked for it when the caller looked: if that is another thing by now, so is the snapshot.
    """
    require_free(tx, row.snapshotter, name)
    require_active(find(tx, row.snapshotter, row.key))
    require_as_it_was(tx, row, had)
    tx.execute("DELETE FROM containerd_unpacked WHERE id = ?", (row.id,))
    now = time.time_ns()
    tx.execute(
        "UPDATE containerd_snapshots SET key = ?, kind = ?, container = NULL, snapshot = ?, labels = ?, created = ?,"
        " updated = ? WHERE id = ?",
        (name, int(Kind.COMMITTED), snapshot, json.dumps(without_empty(labels)), now, now, row.id),
    )


def require_active(row: Row) -> None:
    """Raise `Refused` for one that cannot be committed."""
    if row.kind is not Kind.ACTIVE:
        raise Refused(Code.FAILED_PRECONDITION, f"snapshot {row.key} is not active")


def require_as_it_was(tx: Transaction, row: Row, had: Unpacked | None) -> None:
    """Raise `Refused` unless a snapshot has the container, and the layer unpacked for it, that the caller has seen."""
    now = find(tx, row.snapshotter, row.key)
    if (now.id, now.container, unpacked(tx, now)) != (row.id, row.container, had):
        raise Refused(Code.FAILED_PRECONDITION, f"snapshot {row.key} was altered meanwhile")


def active(tx: Transaction) -> list[Row]:
    """The active snapshots that have a container, of all snapshotters, the newest first."""
    query = f"{_SELECT} WHERE kind = ? AND container NOT NULL ORDER BY created DESC"
    return [_row(row) for row in tx.execute(query, (int(Kind.ACTIVE),))]


def views(tx: Transaction) -> list[Row]:
    """The views of all snapshotters, the newest first."""
    return [_row(row) for row in tx.execute(f"{_SELECT} WHERE kind = ? ORDER BY created DESC", (int(Kind.VIEW),))]


def unpacked(tx: Transaction, row: Row) -> Unpacked | None:
    """The layer that was unpacked for it."""
    found = tx.execute("SELECT blob, chain_id, lease FROM containerd_unpacked WHERE id = ?", (row.id,)).fetchone()
    return None if found is None else Unpacked(*found)


def leased(tx: Transaction) -> set[str]:
    """The leases of all layers that were unpacked."""
    return {str(row[0]) for row in tx.execute("SELECT lease FROM containerd_unpacked")}


def note_unpacked(tx: Transaction, row: Row, layer: Unpacked) -> None:
    """Note the layer that an active snapshot will be. Raises `Refused` if it is no longer what it was."""
    require_as_it_was(tx, row, None)
    columns = (row.id, layer.blob, layer.chain_id, layer.lease)
    tx.execute("INSERT INTO containerd_unpacked (id, blob, chain_id, lease) VALUES (?, ?, ?, ?)", columns)


def without_container(tx: Transaction, row: Row) -> None:
    """Note that its container goes, where it is a layer."""
    tx.execute(
        "UPDATE containerd_snapshots SET container = NULL WHERE id = ? AND container = ?", (row.id, row.container)
    )


def stand(tx: Transaction, row: Row, had: Unpacked, container: str) -> None:
    """Let it be a container on the layer that was unpacked for it. Raises `Refused`."""
    require_as_it_was(tx, evolve(row, container=None), had)
    tx.execute("DELETE FROM containerd_unpacked WHERE id = ?", (row.id,))
    tx.execute("UPDATE containerd_snapshots SET container = ? WHERE id = ?", (container, row.id))


def update(tx: Transaction, row: Row, labels: Mapping[str, str]) -> Row:
    """Let it have these labels."""
    tx.execute(
        "UPDATE containerd_snapshots SET labels = ?, updated = ? WHERE id = ?",
        (json.dumps(without_empty(labels)), time.time_ns(), row.id),
    )
    return find(tx, row.snapshotter, row.key)


def delete(tx: Transaction, row: Row) -> None:
    """Forget one. Raises `Refused` if it is gone, or something stands on it."""
    now = find(tx, row.snapshotter, row.key)
    if now.id != row.id:  # the key was used again
        raise Refused(Code.NOT_FOUND, f"snapshot {row.key} does not exist")
    if now.container != row.container:
        raise Refused(Code.FAILED_PRECONDITION, f"snapshot {row.key} was altered meanwhile")
    above = children(tx, row.snapshotter, row.key)
    if above:
        raise Refused(Code.FAILED_PRECONDITION, f"cannot remove snapshot {row.key} with child {above[0]}")
    tx.execute("DELETE FROM containerd_snapshots WHERE id = ?", (row.id,))


def _row(columns: Sequence[Any]) -> Row:
    name, snapshotter, key, parent, kind, container, snapshot, labels, created, updated = columns
    return Row(name, snapshotter, key, parent, Kind(kind), container, snapshot, json.loads(labels), created, updated)
