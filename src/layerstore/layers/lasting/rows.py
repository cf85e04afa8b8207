"""The rows of lasting leases: all SQL about them, as functions of a transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from layerstore.digest import ChainID
from layerstore.layers import rows

if TYPE_CHECKING:
    from layerstore.database import Transaction
    from layerstore.driver import LayerKey

RESCUED: Final = "rescue"
"""Who keeps layers that a rescue found, and that nothing is known to need, until they are pruned."""


def put_lasting_lease(tx: Transaction, owner: str, name: str, chain_id: ChainID) -> ChainID | None:
    """Let an owner's lease be of a layer; of which it was before. Raises `NotFound`."""
    rows.stored(tx, chain_id)
    before = tx.execute("SELECT chain_id FROM lasting_leases WHERE owner = ? AND name = ?", (owner, name)).fetchone()
    tx.execute(
        "INSERT INTO lasting_leases (owner, name, chain_id, made) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (owner, name) DO UPDATE SET chain_id = excluded.chain_id, made = excluded.made",
        (owner, name, chain_id, time.time_ns()),
    )
    return None if before is None else ChainID(before[0])


def end_lasting_leases(tx: Transaction, owner: str, names: Iterable[str]) -> tuple[list[ChainID], list[LayerKey]]:
    """End leases, those that there are; the layers that nothing needs any more, and the keys whose files may go."""
    gone: list[ChainID] = []
    keys: list[LayerKey] = []
    for name in names:
        query = "DELETE FROM lasting_leases WHERE owner = ? AND name = ? RETURNING chain_id"
        for (chain_id,) in tx.execute(query, (owner, name)).fetchall():
            chains, freed = rows.release(tx, ChainID(chain_id))
            gone += chains
            keys += freed
    return gone, keys


def lasting_leases(tx: Transaction, owner: str) -> dict[str, ChainID]:
    """What an owner's leases are of, by their names, the oldest first."""
    query = "SELECT name, chain_id FROM lasting_leases WHERE owner = ? ORDER BY made, name"
    return {name: ChainID(chain_id) for name, chain_id in tx.execute(query, (owner,))}


def all_lasting(tx: Transaction) -> list[tuple[str, str, ChainID]]:
    """All lasting leases: owner, name, and the layer."""
    found = tx.execute("SELECT owner, name, chain_id FROM lasting_leases ORDER BY owner, name")
    return [(owner, name, ChainID(chain_id)) for owner, name, chain_id in found]


def all_leased(tx: Transaction) -> list[ChainID]:
    """What all lasting leases are of, once for each."""
    return [ChainID(row[0]) for row in tx.execute("SELECT chain_id FROM lasting_leases")]
