"""What a store remembers of itself: its ID, its driver, the boot in which it was last put in order. The table `meta`.

A name and a text each. What a conversion to another driver has to remember is here too, under names of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping

from layerstore.database import Database, Transaction
from layerstore.errors import LayerstoreError

__all__ = [
    "COMMITS",
    "FORMER",
    "MIGRATION",
    "all_of",
    "ask_for_recovery",
    "clear",
    "commits_of",
    "count_commit",
    "counts",
    "former_of",
    "found",
    "owners",
    "process_of",
    "put",
    "put_in_order",
    "read",
    "request_of",
    "sessions",
    "target_of",
]

MIGRATION = "migration"
"""The fact, while there is a migration: its target (name and entry), and the process that is at it."""

FORMER = "former"
"""The fact, after one: the driver (name and entry) whose home is to be removed."""


COMMITS = "commits"
"""The fact that counts them."""

_REQUEST = "request"
"""The fact, while somebody wants the store put in order: another text each time."""


def read(database: Database) -> dict[str, str]:
    """All facts; empty for a store that is not founded yet."""
    with database.read() as tx:
        return all_of(tx)


def all_of(tx: Transaction) -> dict[str, str]:
    """The same, within a transaction."""
    return dict(tx.execute("SELECT key, value FROM meta").fetchall())


def counts(tx: Transaction) -> dict[str, int]:
    """How many containers, images and layers there are."""
    tables = ("containers", "images", "layers")
    return {table: int(tx.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables}


def owners(tx: Transaction) -> list[str]:
    """The sessions, alive or dead, that have leases of layers, or hold containers."""
    return sorted({*sessions(tx, "leases"), *sessions(tx, "holds")})


def sessions(tx: Transaction, table: str) -> list[str]:
    """The sessions in `leases` or `holds`, each found by one step in the index, however many rows it has."""
    query = (
        f"WITH RECURSIVE owner (name) AS (SELECT min(session) FROM {table} WHERE session NOT NULL"
        f" UNION ALL SELECT (SELECT min(session) FROM {table} WHERE session > name) FROM owner WHERE name NOT NULL)"
        " SELECT name FROM owner WHERE name NOT NULL"
    )
    return [row[0] for row in tx.execute(query)]


def found(tx: Transaction, facts: Mapping[str, str]) -> dict[str, str]:
    """Write down the first facts of a store, unless another process was faster. Returns those that hold."""
    if tx.execute("SELECT 1 FROM meta").fetchone() is None:
        put(tx, facts)
    return all_of(tx)


def put(tx: Transaction, facts: Mapping[str, str | Mapping[str, object]]) -> None:
    """Write facts down, in place of what they were. A mapping is kept as JSON."""
    tx.executemany(
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
        [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in facts.items()],
    )


def clear(tx: Transaction, names: Iterable[str]) -> None:
    """Forget facts. What is not there is fine."""
    tx.executemany("DELETE FROM meta WHERE key = ?", [(name,) for name in names])


def count_commit(tx: Transaction) -> None:
    """Count one more durable commit of what has a record: so a database is known that has lost its last ones."""
    tx.execute(
        "INSERT INTO meta (key, value) VALUES (?1, '1') ON CONFLICT (key) DO UPDATE SET value = value + 1", (COMMITS,)
    )


def commits_of(known: Mapping[str, str]) -> int:
    """How many there were."""
    return int(known.get(COMMITS, 0))


def ask_for_recovery(database: Database, otherwise: Callable[[], object]) -> None:
    """Let the next `open` put the store in order, as it does after a boot: something could not be removed.

    `otherwise` is done where even that cannot be written down, be it for want of memory: a session then stays, as that
    of a dead process (`Session.stay`), which is as good, once this process has closed the store. Raises nothing of this
    library's.
    """
    try:
        with database.write(durable=False) as tx:
            clear(tx, ["boot"])
            put(tx, {_REQUEST: os.urandom(8).hex()})
    except (LayerstoreError, MemoryError):
        otherwise()


def request_of(known: Mapping[str, str]) -> str | None:
    """Who asked last that the store is put in order; None if nobody did since it was."""
    return known.get(_REQUEST)


def put_in_order(tx: Transaction, boot: str, request: str | None) -> None:
    """Write down that the store is in order in this boot, unless somebody asked for it after `request`."""
    if request_of(all_of(tx)) == request:
        put(tx, {"boot": boot})
        clear(tx, [_REQUEST])


def target_of(known: Mapping[str, str]) -> str | None:
    """The driver to which an unfinished migration leads. `known`: the facts of the store."""
    return str(json.loads(known[MIGRATION])["driver"]) if MIGRATION in known else None


def process_of(known: Mapping[str, str]) -> int | None:
    """The process that is, or was, at it."""
    return int(json.loads(known[MIGRATION])["process"]) if MIGRATION in known else None


def former_of(known: Mapping[str, str]) -> str | None:
    """The driver whose home is still to be removed."""
    return str(json.loads(known[FORMER])["driver"]) if FORMER in known else None
