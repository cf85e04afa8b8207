"""What rpm's SQLite database says, read so that whoever wrote it can do nothing but lie."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

__all__ = ["headers"]

_TABLES = ("Packages", "Basenames")
_MOST_STEPS = 200_000_000  # of SQLite's machine: a look-up takes some hundreds
_STEPS = 1_000_000


def headers(database: Path, base: bytes) -> Iterator[bytes]:
    """The headers of the packages that have a file with this last component. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(database)) as connection:
        _bind(connection)
        numbers = connection.execute("SELECT DISTINCT hnum FROM Basenames WHERE key = CAST(? AS TEXT)", [base])
        for (number,) in numbers.fetchall():
            for (blob,) in connection.execute("SELECT blob FROM Packages WHERE hnum = ?", [number]):
                if isinstance(blob, bytes):
                    yield blob


def _bind(connection: sqlite3.Connection) -> None:
    """Let nothing happen but that these two tables are read, and that within bounds."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    steps = 0

    def too_many() -> int:
        nonlocal steps
        steps += _STEPS
        return steps > _MOST_STEPS

    connection.set_progress_handler(too_many, _STEPS)
    made = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
    for table in _TABLES:
        if not str(made.get(table)).lower().startswith("create table"):
            raise sqlite3.DatabaseError(f"it has no table {table}")

    def allowed(action: int, table: str | None, *_: str | None) -> int:
        reads = action == sqlite3.SQLITE_READ and table in _TABLES
        return sqlite3.SQLITE_OK if reads or action == sqlite3.SQLITE_SELECT else sqlite3.SQLITE_DENY

    connection.set_authorizer(allowed)
