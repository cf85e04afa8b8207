"""Which rows a record has: all SQL about them. Temporary triggers of a connection note what its transactions touch."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from attrs import field

from layerstore.database import Transaction
from layerstore.facts import COMMITS
from layerstore.values import frozen

Row = Mapping[str, object]
"""A row: its columns by name."""

Touched = tuple[str, str]
"""The kind of a record, and the name of what it is about."""

STORE: Final[Touched] = ("store", "store")
"""The record of the store itself: its ID, its driver, and the tables of upper floors that records have rows of."""

_FACTS: Final = ("id", "driver", "entry")
_FLOORS: Final = ("volumes", "runtime", "containerd")
_PASSING: Final = frozenset({"meta", "schemas", "mounts", "holds", "leases", "processes"})
"""Tables whose rows mean nothing in another database."""


@frozen
class _Table:
    """A table whose rows are in records, and its columns that name what they are about, with dots between them.

    `noted`: the columns whose change matters; empty: all. `passing`: those that mean nothing later, and what is written
    in their places.
    """

    name: str
    columns: tuple[str, ...]
    noted: tuple[str, ...] = ()
    passing: Mapping[str, object] = field(factory=dict)


KINDS: Final[Mapping[str, Sequence[_Table]]] = {
    "images": (_Table("images", ("id",)), _Table("tags", ("image_id",)), _Table("repo_digests", ("image_id",))),
    "segments": (_Table("segments", ("key",)),),
    "checkpoints": (_Table("checkpoints", ("container", "label")),),
    "snapshots": (
        _Table("snapshots", ("id",), ("segment", "chain_id"), {"size": None, "inodes": None, "diff_id": None}),
    ),
    "containerd": (_Table("containerd_snapshots", ("id",)), _Table("containerd_unpacked", ("id",))),
    "volumes": (_Table("volumes_made", ("name",)),),
    "containers": (
        _Table(
            "containers",
            ("id",),
            ("name", "image_id", "image_name", "chain_id", "key", "size", "segment", "ids", "lent"),
            {"boot": "", "touched": 1},
        ),
        _Table("volumes_uses", ("container",)),
        _Table(
            "runtime_containers",
            ("container",),
            ("options", "engine"),
            {"status": "created"}
            | dict.fromkeys(("boot", "owner", "keeper", "init", "error", "health"), "")
            | dict.fromkeys(("held", "started", "finished", "exit_code", "oom"), 0),
        ),
    ),
}
"""The kinds of records, and their tables; the first has the row without which there is nothing."""


# --- what was touched


def watch(connection: Transaction, watched: set[str]) -> None:
    """Note from here on what this connection touches. Called again, it goes on with tables that are new by then."""
    there = tables_of(connection)
    if not watched:
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS touched (kind TEXT, name TEXT)")
        when = f"WHEN {{}}.key IN ({', '.join(repr(fact) for fact in _FACTS)})"
        _trigger(connection, "meta", "INSERT", "INSERT", STORE[0], [repr(STORE[1])], when.format("NEW"))
        _trigger(connection, "schemas", "INSERT", "INSERT", STORE[0], [repr(STORE[1])])
        _trigger(connection, "schemas", "UPDATE", "UPDATE", STORE[0], [repr(STORE[1])])
    for kind, tables in KINDS.items():
        for table in tables:
            if table.name in there and table.name not in watched:
                update = f"UPDATE OF {', '.join(table.noted)}" if table.noted else "UPDATE"
                for name, event, sides in (
                    ("INSERT", "INSERT", ["NEW"]),
                    ("UPDATE", update, ["OLD", "NEW"]),
                    ("DELETE", "DELETE", ["OLD"]),
                ):
                    _trigger(connection, table.name, name, event, kind, [_name(table, side) for side in sides])
                watched.add(table.name)


def _trigger(
    connection: Transaction,
    table: str,
    name: str,
    event: str,
    kind: str,
    names: Iterable[str],
    when: str = "",
) -> None:
    values = [f"('{kind}', {name})" for name in names]
    connection.execute(
        f"CREATE TEMP TRIGGER IF NOT EXISTS noted_{table}_{name} AFTER {event} ON main.{table} {when}"
        f" BEGIN INSERT INTO touched VALUES {', '.join(values)}; END"
    )


def _name(table: _Table, side: str) -> str:
    """The expression for what a row is about."""
    return " || '.' || ".join(f"{side}.{column}" for column in table.columns)


def take_touched(connection: Transaction) -> list[Touched]:
    """What was touched since this was asked last."""
    found = [(kind, name) for kind, name in connection.execute("SELECT DISTINCT kind, name FROM temp.touched")]
    if found:
        connection.execute("DELETE FROM temp.touched")
    return found


# --- what a record has


def of(tx: Transaction, kind: str, name: str, there: Collection[str]) -> dict[str, object] | None:
    """What the record of something is to say; None if it is not there any more. `there`: what `tables_of` says."""
    if (kind, name) == STORE:
        return _of_store(tx)
    first, *others = KINDS[kind]
    rows = {table.name: _rows(tx, table, name) for table in (first, *others) if table.name in there}
    return {table: found for table, found in rows.items() if found} if rows.get(first.name) else None


def every(tx: Transaction) -> Iterator[Touched]:
    """All that has a record."""
    there = tables_of(tx)
    yield STORE
    for kind, (first, *_) in KINDS.items():
        if first.name in there:
            for (name,) in tx.execute(f"SELECT {_name(first, first.name)} FROM {first.name}").fetchall():
                yield kind, name


def _of_store(tx: Transaction) -> dict[str, object]:
    facts = dict(tx.execute("SELECT key, value FROM meta").fetchall())
    floors = {
        name: {"version": version, "statements": _statements(tx, name)}
        for name, version in tx.execute("SELECT name, version FROM schemas").fetchall()
        if name in _FLOORS
    }
    return {"facts": {key: facts[key] for key in _FACTS if key in facts}, "floors": floors}


def _rows(tx: Transaction, table: _Table, name: str) -> list[dict[str, object]]:
    where = " AND ".join(f"{column} = ?" for column in table.columns)
    parts = name.split(".", len(table.columns) - 1)
    found = tx.execute(f"SELECT * FROM {table.name} WHERE {where} ORDER BY 1, 2", parts)
    columns = [column[0] for column in found.description]
    return [dict(zip(columns, row, strict=True)) | dict(table.passing) for row in found]


def tables_of(tx: Transaction) -> set[str]:
    """The tables of the database, by name: to be asked for once, where many records are looked at."""
    return {str(row[0]) for row in tx.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}


# --- back into a database


def provide_floors(tx: Transaction, floors: Mapping[str, object]) -> None:
    """Make the tables of upper floors as a record of the store describes them, where there are none."""
    there = tables_of(tx)
    for name, floor in floors.items():
        if isinstance(floor, dict) and not any(table.startswith(f"{name}_") for table in there):
            for statement in floor["statements"]:
                tx.execute(statement)
            tx.execute("INSERT INTO schemas (name, version) VALUES (?, ?)", (name, floor["version"]))


def columns_of(tx: Transaction, table: str) -> list[str]:
    """The columns of a table; none if there is no such table."""
    return [str(row[1]) for row in tx.execute(f"PRAGMA main.table_info({table})")]


def put(tx: Transaction, table: str, row: Row) -> bool:
    """Write a row into a table that may have it. False if what it refers to is not there, or there is no such table."""
    columns = [name for name in columns_of(tx, table) if name in row]
    if not columns:
        return False
    marks = ", ".join("?" * len(columns))
    try:
        tx.execute(
            f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})",
            [row[name] for name in columns],
        )
    except sqlite3.IntegrityError:
        return False
    return True


def names(tx: Transaction, kind: str) -> list[str]:
    """The names of all of a kind; none where there is no such table."""
    return [name for found, name in every(tx) if found == kind]


def diff_row(diff: Mapping[str, object]) -> Row:
    """The row of a diff, of what its record says."""
    return {**diff, "implied": json.dumps(diff["implied"])}


# --- an old database


@frozen
class Salvaged:
    """What can be read of a database. `is_whole`: SQLite finds nothing wrong with it."""

    is_whole: bool
    facts: Mapping[str, str] = field(factory=dict)
    floors: Mapping[str, object] = field(factory=dict)
    rows: Sequence[tuple[str, Row]] = ()


def salvaged(path: Path) -> Salvaged:
    """All that can still be read of a database, which is the caller's alone."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return _salvaged(connection)
    except sqlite3.Error:
        return Salvaged(is_whole=False)


def _salvaged(tx: Transaction) -> Salvaged:
    try:
        is_whole = tx.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
        is_whole = is_whole and tx.execute("PRAGMA foreign_key_check").fetchone() is None
    except sqlite3.Error:
        is_whole = False
    facts: dict[str, str] = {}
    floors: dict[str, object] = {}
    for table, row in _readable(tx, ("meta",)):
        if table == "meta" and row["key"] in (*_FACTS, COMMITS):
            facts[str(row["key"])] = str(row["value"])
    for _, row in _readable(tx, ("schemas",)):
        with suppress(sqlite3.Error):
            floors[str(row["name"])] = {"version": row["version"], "statements": _statements(tx, str(row["name"]))}
    there: set[str] = set()
    with suppress(sqlite3.Error):
        there = tables_of(tx)
    rows = [found for found in _readable(tx, sorted(there - _PASSING)) if not found[0].startswith("sqlite_")]
    return Salvaged(is_whole, facts, floors, rows)


def _readable(tx: Transaction, tables: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """The rows of these tables, up to where each can be read."""
    for table in tables:
        with suppress(sqlite3.Error, UnicodeDecodeError):
            found = tx.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in found.description]
            for row in found:
                yield table, dict(zip(columns, row, strict=True))


def _statements(tx: Transaction, floor: str) -> list[str]:
    """What makes the tables of an upper floor."""
    query = "SELECT sql FROM sqlite_master WHERE sql NOT NULL AND substr(tbl_name, 1, ?) = ?"
    made = tx.execute(f"{query} ORDER BY type != 'table', rowid", (len(floor) + 1, f"{floor}_"))
    return [str(row[0]) for row in made]


def fold(path: Path) -> None:
    """Write what the log of a closed database has into it, so that it is whole without."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
