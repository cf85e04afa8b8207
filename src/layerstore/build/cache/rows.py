"""The rows of what builds remember: all SQL about it, as functions of a transaction.

A result has a row for as long as its layer is in the store: the lasting lease that keeps the layer is written in the
same transaction, and a layer that goes all the same takes the row with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from layerstore import ChainID, Tables, Transaction
from layerstore.values import frozen

__all__ = ["TABLES", "MountRow", "Row"]

TABLES = Tables(
    "build_cache",
    (
        """
-- What came of a step, by its key.
CREATE TABLE build_cache_entries (
    key TEXT PRIMARY KEY,
    exact TEXT NOT NULL,                    -- the key by content, of a step that has quicker ones, too; else the same
    layer TEXT REFERENCES layers ON DELETE CASCADE,     -- ChainID; NULL: the step wrote nothing
    parent TEXT,                            -- ChainID of what it stood on when it was done, if that was something
    description TEXT NOT NULL,              -- the instruction, as a person reads it
    inputs TEXT NOT NULL,                   -- JSON: digests of what it read
    seconds REAL NOT NULL,                  -- that it took
    made INTEGER NOT NULL,                  -- ns since the epoch
    used INTEGER NOT NULL,                  -- ns since the epoch: when it last spared somebody the work
    uses INTEGER NOT NULL                   -- how often it did
) WITHOUT ROWID;
CREATE INDEX build_cache_entries_by_layer ON build_cache_entries (layer);

-- Folders that steps share (RUN --mount=type=cache), each a container of the store, which goes by this floor alone.
CREATE TABLE build_cache_mounts (
    name TEXT PRIMARY KEY,                  -- of the container
    container TEXT UNIQUE REFERENCES containers,    -- NULL: it is being made, or removed
    id TEXT NOT NULL,                       -- as the Dockerfile says
    number INTEGER NOT NULL,                -- 0, or of one that was made because those before were taken
    start TEXT NOT NULL,                    -- what it began as: a ChainID, or owner and mode of an empty folder
    made INTEGER NOT NULL,                  -- ns since the epoch
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL
) WITHOUT ROWID;

-- Builds that go on. What one has used or made since it began is not pruned. Void when nobody has its lock.
CREATE TABLE build_cache_builds (
    name TEXT PRIMARY KEY,
    began INTEGER NOT NULL                  -- ns since the epoch
) WITHOUT ROWID;
""",
    ),
)


@frozen
class Row:
    """What came of a step. See the table."""

    key: str
    exact: str
    layer: ChainID | None
    parent: ChainID | None
    description: str
    inputs: tuple[str, ...]
    seconds: float
    made: int
    used: int
    uses: int = 0

    @property
    def lease(self) -> str:
        """The name of the lease that keeps its layer: another one each time that the step is done."""
        return f"{self.key} {self.made}"


@frozen
class MountRow:
    """A folder that steps share. See the table."""

    name: str
    container: str | None
    id: str
    number: int
    start: str
    made: int
    used: int
    uses: int = 0


_ENTRY = "key, exact, layer, parent, description, inputs, seconds, made, used, uses"
_MOUNT = "name, container, id, number, start, made, used, uses"


def put(tx: Transaction, row: Row) -> None:
    """Write down what came of a step, in place of what was known of it."""
    tx.execute(
        f"INSERT OR REPLACE INTO build_cache_entries ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(row.key, row.exact, row.layer, row.parent, row.description, json.dumps(row.inputs)),
            *(row.seconds, row.made, row.used, row.uses),
        ),
    )


def find(tx: Transaction, key: str) -> Row | None:
    """What came of a step, if that is known."""
    found = tx.execute(f"SELECT {_ENTRY} FROM build_cache_entries WHERE key = ?", (key,)).fetchone()
    return None if found is None else _row(found)


def every(tx: Transaction) -> list[Row]:
    """All that is known, what was used last first."""
    return [_row(found) for found in tx.execute(f"SELECT {_ENTRY} FROM build_cache_entries ORDER BY used DESC, key")]


def touch(tx: Transaction, row: Row, now: int) -> bool:
    """Write down that it was of use, by whichever of its keys. False if it was removed meanwhile."""
    query = "UPDATE build_cache_entries SET used = ?, uses = uses + 1 WHERE key = ?"
    if row.exact != row.key:
        tx.execute(query, (now, row.exact))
    return tx.execute(query, (now, row.key)).rowcount > 0


def delete(tx: Transaction, keys: Iterable[str], *, unused_since: int | None) -> list[Row]:
    """Forget steps, but for those that were used since then; which were forgotten."""
    known = (find(tx, key) for key in keys)
    gone = [row for row in known if row is not None and (unused_since is None or row.used < unused_since)]
    tx.executemany("DELETE FROM build_cache_entries WHERE key = ?", [(row.key,) for row in gone])
    return gone


def delete_groundless(tx: Transaction) -> int:
    """Forget steps that wrote nothing, on layers that are gone: nobody can stand there any more. How many."""
    query = (
        "DELETE FROM build_cache_entries WHERE layer IS NULL AND parent IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM layers WHERE chain_id = build_cache_entries.parent)"
    )
    return tx.execute(query).rowcount


def begin(tx: Transaction, name: str, now: int) -> None:
    """Write down that a build goes on."""
    tx.execute("INSERT INTO build_cache_builds (name, began) VALUES (?, ?)", (name, now))


def end(tx: Transaction, names: Iterable[str]) -> None:
    """Write down that builds are over."""
    tx.executemany("DELETE FROM build_cache_builds WHERE name = ?", [(name,) for name in names])


def builds(tx: Transaction) -> dict[str, int]:
    """When the builds began that go on, or whose process died."""
    return {str(name): int(began) for name, began in tx.execute("SELECT name, began FROM build_cache_builds")}


def put_mount(tx: Transaction, mount: MountRow) -> None:
    """Write down a folder that steps share."""
    tx.execute(
        f"INSERT OR REPLACE INTO build_cache_mounts ({_MOUNT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (mount.name, mount.container, mount.id, mount.number, mount.start, mount.made, mount.used, mount.uses),
    )


def find_mount(tx: Transaction, name: str) -> MountRow | None:
    """A folder that steps share, by the name of its container."""
    found = tx.execute(f"SELECT {_MOUNT} FROM build_cache_mounts WHERE name = ?", (name,)).fetchone()
    return None if found is None else MountRow(*found)


def mounts(tx: Transaction) -> list[MountRow]:
    """All of them, by their IDs and numbers."""
    return [
        MountRow(*found) for found in tx.execute(f"SELECT {_MOUNT} FROM build_cache_mounts ORDER BY id, start, number")
    ]


def touch_mount(tx: Transaction, name: str, now: int) -> None:
    """Write down that a folder was used."""
    tx.execute("UPDATE build_cache_mounts SET used = ?, uses = uses + 1 WHERE name = ?", (now, name))


def set_container(tx: Transaction, name: str, container: str | None) -> None:
    """Write which container a folder is; None: that is not its any more, or not yet."""
    tx.execute("UPDATE build_cache_mounts SET container = ? WHERE name = ?", (container, name))


def delete_mount(tx: Transaction, name: str) -> None:
    """Forget a folder that has no container any more."""
    tx.execute("DELETE FROM build_cache_mounts WHERE name = ?", (name,))


def _row(found: Any) -> Row:
    key, exact, layer, parent, description, inputs, *numbers = found
    return Row(key, exact, layer, parent, description, tuple(json.loads(inputs)), *numbers)
