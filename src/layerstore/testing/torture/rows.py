"""The rows of a store's database, as a stranger sees them, who knows no table."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

_ITS_OWN = frozenset({"meta", "schemas", "sqlite_sequence"})
"""Tables that speak of the database, or of when it was opened."""


def all_of(database: Path, memory: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """All of them, each with its table, of a copy in `memory`: who opens one takes over what is left in its log.

    SQLite's own are among them: what tables and indexes there are, and whether these are sound.
    """
    if not database.exists():
        return
    with TemporaryDirectory(dir=memory) as folder:
        for end in ("", "-wal"):
            if Path(f"{database}{end}").exists():
                shutil.copyfile(f"{database}{end}", f"{folder}/copy{end}")
        with closing(sqlite3.connect(f"{folder}/copy")) as copy:
            copy.row_factory = sqlite3.Row
            for row in copy.execute("PRAGMA integrity_check"):
                yield "integrity_check", dict(row)
            schema = [dict(row) for row in copy.execute("SELECT type, name, sql FROM sqlite_schema")]
            for part in schema:
                yield "sqlite_schema", part
                if part["type"] == "table":
                    for row in copy.execute(f'SELECT * FROM "{part["name"]}"'):
                        yield part["name"], dict(row)


def counts(database: Path) -> Counter[str]:
    """By table."""
    found = Counter[str]()
    if not database.exists():
        return found
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for [name] in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            if table not in _ITS_OWN:
                [[found[table]]] = connection.execute(f'SELECT count(*) FROM "{table}"')
    return found
