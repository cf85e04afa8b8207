"""The rows of builds that are going on: all SQL about them, as functions of a transaction.

A row is there before anything is made for a build, so that whoever comes later can tell what the dead left.
"""

from __future__ import annotations

from layerstore import Tables, Transaction

__all__ = ["TABLES", "containers", "end", "every", "insert"]

TABLES = Tables(
    "building",
    (
        """
CREATE TABLE building_sessions (
    name TEXT PRIMARY KEY                   -- 12 hex digits: its containers are called build-NAME-N
) WITHOUT ROWID;
""",
    ),
)


def insert(tx: Transaction, name: str) -> None:
    """Write down that a build begins."""
    tx.execute("INSERT INTO building_sessions VALUES (?)", (name,))


def every(tx: Transaction) -> list[str]:
    """Those that go on, or were broken off."""
    return [str(found[0]) for found in tx.execute("SELECT name FROM building_sessions")]


def containers(tx: Transaction, name: str) -> list[str]:
    """The IDs of the containers of a build."""
    query = "SELECT id FROM containers WHERE name GLOB ?"
    return [str(found[0]) for found in tx.execute(query, (f"build-{name}-*",))]


def end(tx: Transaction, name: str) -> None:
    """Forget a build, of which nothing is left."""
    tx.execute("DELETE FROM building_sessions WHERE name = ?", (name,))
