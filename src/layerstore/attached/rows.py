"""The rows of borrowed layers: all SQL about them, as functions of a transaction.

A borrowed layer has the rows of any layer; this says in which store its files are. It goes with the diff.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.database.schema import Tables
from layerstore.digest import ChainID, DiffID
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Transaction
    from layerstore.driver import LayerKey

__all__ = ["TABLES", "Lying", "add", "find"]

TABLES = Tables(
    "attached",
    (
        """
-- A layer whose files are in an attached store.
CREATE TABLE attached_layers (
    key TEXT PRIMARY KEY REFERENCES diffs ON DELETE CASCADE,
    store TEXT NOT NULL,                    -- docker:/var/lib/docker
    chain_id TEXT NOT NULL                  -- by which it is found there
) WITHOUT ROWID;
""",
    ),
)


@frozen
class Lying:
    """Where a borrowed layer lies."""

    store: str
    chain: ChainID
    diff_id: DiffID


def add(tx: Transaction, key: LayerKey, store: str, chain: ChainID) -> None:
    """Write down where a layer lies whose diff has its row."""
    tx.execute("INSERT INTO attached_layers (key, store, chain_id) VALUES (?, ?, ?)", (key, store, chain))


def find(tx: Transaction, key: LayerKey) -> Lying | None:
    """Where a borrowed layer lies; None if it has no row any more."""
    found = tx.execute(
        "SELECT a.store, a.chain_id, d.diff_id FROM attached_layers a JOIN diffs d ON d.key = a.key WHERE a.key = ?",
        (key,),
    ).fetchone()
    return None if found is None else Lying(found[0], ChainID(found[1]), DiffID(found[2]))
