"""The rows of volumes, and of which container uses which: all SQL about them, as functions of a transaction.

They are an upper floor's tables: a store that never had a volume has none of them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from attrs import field

from layerstore.database import Tables, Transaction
from layerstore.errors import ConfigError, NotFound
from layerstore.values import frozen

TABLES = Tables(
    "volumes",
    (
        """
CREATE TABLE volumes_made (
    name TEXT PRIMARY KEY,                  -- its folder in <data-root>/volumes, too
    anonymous INTEGER NOT NULL,             -- nobody gave it a name
    created INTEGER NOT NULL,               -- ns since the epoch
    labels TEXT NOT NULL,                   -- JSON
    options TEXT NOT NULL                   -- of the driver `local`, JSON
) WITHOUT ROWID;

CREATE TABLE volumes_uses (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    target TEXT NOT NULL,                   -- where the container has it
    volume TEXT NOT NULL REFERENCES volumes_made,
    read_only INTEGER NOT NULL,
    PRIMARY KEY (container, target)
) WITHOUT ROWID;
CREATE INDEX volumes_uses_by_volume ON volumes_uses (volume);

-- What somebody is at who has the volume's lock; if nobody has it, he died, and it is put in order.
CREATE TABLE volumes_unsettled (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL
) WITHOUT ROWID;
""",
    ),
)


class Unsettled(Enum):
    """What somebody is doing to a volume's folder, written down before it is begun."""

    COMING = "coming"
    """It is being made, and has no row yet: its folder is nothing."""
    GOING = "going"
    """It has no row any more: its folder is nothing."""
    COPYING = "copying"
    """What it is to be filled with is being copied beside it: that is nothing yet."""
    COPIED = "copied"
    """That is whole and on the disk, and is being moved into its place: whoever finds it so goes on."""


@frozen
class Made:
    """A volume as the database has it."""

    name: str
    anonymous: bool
    created: int
    labels: Mapping[str, str] = field(factory=dict)
    options: Mapping[str, str] = field(factory=dict)


@frozen
class UseRow:
    """That a container has a volume at a place."""

    container: str
    target: str
    volume: str
    read_only: bool


_COLUMNS = "name, anonymous, created, labels, options"


def find(tx: Transaction, name: str) -> Made | None:
    """The volume of this name."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM volumes_made WHERE name = ?", (name,)).fetchone()
    return None if row is None else _made(row)


def every(tx: Transaction) -> list[Made]:
    """All volumes, by name."""
    return [_made(row) for row in tx.execute(f"SELECT {_COLUMNS} FROM volumes_made ORDER BY name")]


def _made(columns: tuple[str, int, int, str, str]) -> Made:
    name, anonymous, created, labels, options = columns
    return Made(name, bool(anonymous), created, json.loads(labels), json.loads(options))


def insert(tx: Transaction, made: Made) -> None:
    """Write a volume's row; whatever was unsettled of it is settled with that."""
    settle(tx, [made.name])
    tx.execute(
        f"INSERT INTO volumes_made ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
        (made.name, made.anonymous, made.created, json.dumps(dict(made.labels)), json.dumps(dict(made.options))),
    )


def delete(tx: Transaction, name: str) -> None:
    """Delete a volume's row; its folder is to go. The caller has seen that nobody uses it."""
    tx.execute("DELETE FROM volumes_made WHERE name = ?", (name,))
    unsettle(tx, [name], Unsettled.GOING)


# --- who uses which


def users(tx: Transaction, name: str) -> list[tuple[str, str]]:
    """The containers that use a volume, as ID and name, the oldest first."""
    found = tx.execute(
        "SELECT DISTINCT c.id, c.name FROM volumes_uses u JOIN containers c ON c.id = u.container WHERE u.volume = ?"
        " ORDER BY c.created, c.id",
        (name,),
    )
    return found.fetchall()


def counts(tx: Transaction) -> dict[str, int]:
    """How many containers use each of the volumes that are used."""
    return dict(tx.execute("SELECT volume, count(DISTINCT container) FROM volumes_uses GROUP BY volume").fetchall())


def uses_of(tx: Transaction, container: str) -> list[tuple[UseRow, Made]]:
    """What a container uses, by place."""
    found = tx.execute(
        "SELECT u.target, u.read_only, v.name, v.anonymous, v.created, v.labels, v.options FROM volumes_uses u"
        " JOIN volumes_made v ON v.name = u.volume WHERE u.container = ? ORDER BY u.target",
        (container,),
    )
    return [(UseRow(container, row[0], row[2], bool(row[1])), _made(row[2:])) for row in found]


def use(tx: Transaction, uses: Sequence[UseRow]) -> None:
    """Write down that a container uses volumes. Raises `NotFound`, `ConfigError`."""
    for one in uses:
        try:
            tx.execute(
                "INSERT INTO volumes_uses (container, target, volume, read_only) VALUES (?, ?, ?, ?)",
                (one.container, one.target, one.volume, one.read_only),
            )
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
                gone = find(tx, one.volume) is None  # with the container that had it, which takes no lock of its
                what = f"volume: {one.volume}" if gone else f"container: {one.container[:12]}"
                raise NotFound(f"no such {what}", remedy="It was removed this moment: look, and try again.") from None
            raise ConfigError(f"duplicate mount point: {one.target}", remedy="Name each place once.") from None


def leave(tx: Transaction, container: str) -> list[str]:
    """End what a container uses, and delete the rows of its anonymous volumes that nobody else uses; their names."""
    mine = tx.execute(
        "SELECT DISTINCT v.name FROM volumes_uses u JOIN volumes_made v ON v.name = u.volume"
        " WHERE u.container = ? AND v.anonymous ORDER BY v.name",
        (container,),
    ).fetchall()
    tx.execute("DELETE FROM volumes_uses WHERE container = ?", (container,))
    gone = [name for (name,) in mine if not users(tx, name)]
    for name in gone:
        delete(tx, name)
    return gone


# --- what is not settled


def unsettle(tx: Transaction, names: Iterable[str], state: Unsettled) -> None:
    """Write down what is going to be done to the folders of volumes."""
    tx.executemany(
        "INSERT OR REPLACE INTO volumes_unsettled (name, state) VALUES (?, ?)", [(name, state.value) for name in names]
    )


def unsettled(tx: Transaction) -> dict[str, Unsettled]:
    """What is not settled, by name of the volume."""
    found = tx.execute("SELECT name, state FROM volumes_unsettled ORDER BY name").fetchall()
    return {name: Unsettled(state) for name, state in found}


def state_of(tx: Transaction, name: str) -> Unsettled | None:
    """What is being done to a volume's folder, if anything is."""
    row = tx.execute("SELECT state FROM volumes_unsettled WHERE name = ?", (name,)).fetchone()
    return None if row is None else Unsettled(row[0])


def settle(tx: Transaction, names: Iterable[str]) -> None:
    """It is done."""
    tx.executemany("DELETE FROM volumes_unsettled WHERE name = ?", [(name,) for name in names])
