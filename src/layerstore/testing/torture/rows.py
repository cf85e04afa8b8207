"""How many rows a store's database has, as a stranger sees it, who knows no table."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

_ITS_OWN = frozenset({"meta", "schemas", "sqlite_sequence"})
"""Tables that speak of the database, or of when it was opened."""


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
