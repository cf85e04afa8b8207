"""The rows of layers and diffs: all SQL about them, as functions of a transaction.

What belongs together is done in one transaction of the caller, who may be adding an image or removing a container. A
diff without a layer, a layer without a need: the rows go here, the files after the commit (`Layers.drop`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import facts, session
from layerstore.digest import ChainID, DiffID
from layerstore.driver import BORROWED, Layer, LayerKey
from layerstore.errors import NotFound
from layerstore.layers.diffs import Diff, Place, committed
from layerstore.layers.stored import StoredLayer
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Transaction

_DIFF = (
    "d.key, d.diff_id, d.size, d.entries, d.root_opaque, d.implied, d.implied_digest, d.dependent, d.damaged, d.lazy"
)


@frozen
class Stack:
    """A chain of layers, the topmost first, with the diff of each."""

    chain: tuple[ChainID, ...]
    diffs: tuple[Diff, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What a layer on top of it has for parents: the nearest first, cut below one that hides all others."""
        return committed(visible(self.diffs))


_UNREACHABLE = """
WITH RECURSIVE needed (chain_id) AS (
    SELECT chain_id FROM images WHERE chain_id IS NOT NULL
    UNION SELECT chain_id FROM containers WHERE chain_id IS NOT NULL
    UNION SELECT chain_id FROM segments WHERE chain_id IS NOT NULL
    UNION SELECT chain_id FROM checkpoints WHERE chain_id IS NOT NULL
    UNION SELECT chain_id FROM snapshots WHERE chain_id IS NOT NULL
    UNION SELECT chain_id FROM lasting_leases
    UNION SELECT value FROM leases WHERE kind = 'layer'
    UNION SELECT l.parent FROM needed n JOIN layers l ON l.chain_id = n.chain_id WHERE l.parent IS NOT NULL
)
SELECT chain_id FROM layers WHERE chain_id NOT IN (SELECT chain_id FROM needed)
"""

_ABOVE = """
WITH RECURSIVE up (chain_id, parent, key, height) AS (
    SELECT chain_id, parent, key, 0 FROM layers WHERE chain_id = ?
    UNION ALL SELECT l.chain_id, l.parent, l.key, height + 1 FROM up JOIN layers l ON l.chain_id = up.parent
)
"""
_UP = f"{_ABOVE} SELECT {_DIFF}, up.chain_id FROM up JOIN diffs d ON d.key = up.key ORDER BY height"
_KEYS_UP = f"{_ABOVE} SELECT d.key, d.root_opaque FROM up JOIN diffs d ON d.key = up.key ORDER BY height"


_UPWARDS = """
WITH RECURSIVE up (chain_id) AS (
    SELECT chain_id FROM layers WHERE chain_id = ?
    UNION SELECT l.chain_id FROM up JOIN layers l ON l.parent = up.chain_id
)
SELECT chain_id FROM up
"""


def visible(diffs: Iterable[Diff]) -> tuple[LayerKey, ...]:
    """The keys of `diffs`, nearest first, down to the first that hides everything below it."""
    return _visible((stored.key, stored.root_opaque) for stored in diffs)


def _visible(diffs: Iterable[tuple[str, bool]]) -> tuple[LayerKey, ...]:
    # A diff that is there twice counts once: whatever it makes or removes, it does so again further up. Overlay
    # refuses a directory that it is given twice.
    keys: dict[LayerKey, None] = {}
    for key, root_opaque in diffs:
        keys.setdefault(LayerKey(key))
        if root_opaque:
            break
    return tuple(keys)


def stack(tx: Transaction, chain_id: ChainID | None) -> Stack:
    """`Layers.stack`, within a transaction."""
    if chain_id is None:
        return Stack((), ())
    rows = tx.execute(_UP, (chain_id,)).fetchall()
    if not rows:
        raise NotFound(f"no layer {chain_id}")
    return Stack(tuple(ChainID(row[10]) for row in rows), tuple(_diff(row) for row in rows))


def parents_on(tx: Transaction, chain_id: ChainID | None) -> tuple[Layer, ...]:
    """`Stack.layers` of a stack, and nothing else: for what is done often."""
    if chain_id is None:
        return ()
    keys = _visible(tx.execute(_KEYS_UP, (chain_id,)))
    if not keys:
        raise NotFound(f"no layer {chain_id}")
    return committed(keys)


def find(tx: Transaction, chain_ids: Iterable[ChainID]) -> dict[ChainID, Diff]:
    """Those of the layers that are known, with their diffs."""
    found = {}
    for chain in chain_ids:
        query = f"SELECT {_DIFF} FROM layers l JOIN diffs d ON d.key = l.key WHERE l.chain_id = ?"
        if (row := tx.execute(query, (chain,)).fetchone()) is not None:
            found[chain] = _diff(row)
    return found


def find_diff(tx: Transaction, key: LayerKey) -> Diff:
    """The diff with this key. Raises `NotFound`."""
    row = tx.execute(f"SELECT {_DIFF} FROM diffs d WHERE d.key = ?", (key,)).fetchone()
    if row is None:
        raise NotFound(f"no diff {key}")
    return _diff(row)


def parents_of_diff(tx: Transaction, key: LayerKey) -> tuple[Diff, ...]:
    """What a diff that is of use on one stack alone stands on, nearest first. Raises `NotFound` if no layer has it."""
    row = tx.execute("SELECT parent FROM layers WHERE key = ? LIMIT 1", (key,)).fetchone()
    if row is None:
        raise NotFound(f"no layer has the diff {key}")
    return stack(tx, row[0]).diffs


def stored(tx: Transaction, chain_id: ChainID) -> StoredLayer:
    """A layer. Raises `NotFound`."""
    query = (
        "SELECT l.chain_id, l.parent, d.diff_id, d.size, d.damaged FROM layers l JOIN diffs d ON d.key = l.key"
        " WHERE l.chain_id = ?"
    )
    row = tx.execute(query, (chain_id,)).fetchone()
    if row is None:
        raise NotFound(f"no layer {chain_id}")
    found, parent, diff_id, size, damaged = row
    return StoredLayer(found, parent, diff_id, size, damaged=bool(damaged))


def named(tx: Transaction, name: str) -> ChainID:
    """A layer with this ChainID, or this DiffID, undamaged before damaged. Raises `NotFound`."""
    query = (
        "SELECT chain_id, 0 AS rank FROM layers WHERE chain_id = ?1 UNION ALL"
        " SELECT l.chain_id, 1 + d.damaged FROM diffs d JOIN layers l ON l.key = d.key WHERE d.diff_id = ?1"
        " ORDER BY rank LIMIT 1"
    )
    found = tx.execute(query, (name,)).fetchone()
    if found is None:
        raise NotFound(f"no layer {name}")
    return ChainID(found[0])


def find_diffs(tx: Transaction, diff_id: DiffID) -> list[Diff]:
    """The diffs kept of this content, those that may be shared first."""
    query = f"SELECT {_DIFF} FROM diffs d WHERE d.diff_id = ? AND NOT d.damaged ORDER BY d.dependent, d.key"
    return [_diff(row) for row in tx.execute(query, (diff_id,))]


def all_diffs(tx: Transaction) -> list[Diff]:
    """Every diff that has a row."""
    return [_diff(row) for row in tx.execute(f"SELECT {_DIFF} FROM diffs d ORDER BY d.key")]


def keys_by_chain(tx: Transaction) -> dict[ChainID, LayerKey]:
    """Every layer, and the key of its diff."""
    return {ChainID(chain): LayerKey(key) for chain, key in tx.execute("SELECT chain_id, key FROM layers")}


def places(tx: Transaction) -> dict[LayerKey, Place]:
    """Which layer each diff is; one of them, if it is several."""
    found = tx.execute("SELECT key, chain_id, parent FROM layers ORDER BY chain_id")
    return {
        LayerKey(key): Place(ChainID(chain), None if parent is None else ChainID(parent))
        for key, chain, parent in found
    }


@frozen
class Kept:
    """A layer in a few words: what it stands on, and what is kept of it."""

    parent: ChainID | None
    key: LayerKey
    diff_id: DiffID
    size: int
    damaged: bool


def all_kept(tx: Transaction) -> dict[ChainID, Kept]:
    """Every layer, in the order of the ChainIDs."""
    query = (
        "SELECT l.chain_id, l.parent, l.key, d.diff_id, d.size, d.damaged FROM layers l JOIN diffs d ON d.key = l.key"
        " ORDER BY l.chain_id"
    )
    return {
        ChainID(chain): Kept(
            None if parent is None else ChainID(parent), LayerKey(key), DiffID(diff_id), size, bool(bad)
        )
        for chain, parent, key, diff_id, size, bad in tx.execute(query)
    }


def insert_diff(tx: Transaction, stored: Diff) -> None:
    """Write the row of a diff whose files are in place."""
    tx.execute(
        "INSERT INTO diffs (key, diff_id, size, entries, root_opaque, implied, implied_digest, dependent, lazy) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            stored.key,
            stored.diff_id,
            stored.size,
            stored.entries,
            stored.root_opaque,
            json.dumps(stored.implied),
            stored.implied_digest,
            stored.dependent,
            stored.lazy,
        ),
    )


def correct(tx: Transaction, proved: Diff) -> None:
    """Let the row of a diff say what its files prove."""
    tx.execute(
        "UPDATE diffs SET diff_id = ?, size = ?, damaged = ? WHERE key = ?",
        (proved.diff_id, proved.size, proved.damaged, proved.key),
    )


def insert_layer(tx: Transaction, chain_id: ChainID, parent: ChainID | None, key: LayerKey) -> None:
    """Write the row of a layer whose diff and whose parent have one."""
    tx.execute("INSERT INTO layers (chain_id, parent, key) VALUES (?, ?, ?)", (chain_id, parent, key))


def replace_diff(tx: Transaction, chain_id: ChainID, old: Diff, new: Diff) -> None:
    """Let a layer have another diff than its damaged one, and every other layer that shares that, if it can.

    The old one may be an orphan then (`forget_orphans`).
    """
    tx.execute("UPDATE layers SET key = ? WHERE chain_id = ?", (new.key, chain_id))
    if new.implied_digest == old.implied_digest and not new.dependent and not old.dependent:
        tx.execute("UPDATE layers SET key = ? WHERE key = ?", (new.key, old.key))


def set_damaged(tx: Transaction, key: LayerKey, *, damaged: bool) -> None:
    """Note that the files of a diff are not what they were, or are again."""
    tx.execute("UPDATE diffs SET damaged = ? WHERE key = ?", (damaged, key))


def set_whole(tx: Transaction, key: LayerKey) -> None:
    """Note that all of a diff's tar is there."""
    tx.execute("UPDATE diffs SET lazy = 0 WHERE key = ?", (key,))


def lazy(tx: Transaction) -> list[Diff]:
    """The diffs of which not all of the tar is there."""
    return [_diff(row) for row in tx.execute(f"SELECT {_DIFF} FROM diffs d WHERE d.lazy ORDER BY d.key")]


def total_size(tx: Transaction) -> int:
    """The bytes of the tars of all diffs that are this store's own."""
    query = f"SELECT coalesce(sum(size), 0) FROM diffs WHERE key NOT LIKE '%{BORROWED}'"
    return int(tx.execute(query).fetchone()[0])


def size_of_stack(tx: Transaction, chain_id: ChainID) -> int:
    """The bytes of the tars of a layer and of those below it."""
    query = f"{_ABOVE} SELECT coalesce(sum(d.size), 0) FROM up JOIN diffs d ON d.key = up.key"
    return int(tx.execute(query, (chain_id,)).fetchone()[0])


def sizes_of_stacks(tx: Transaction) -> dict[ChainID | None, int]:
    """The same of every layer; of none: 0."""
    query = "SELECT l.chain_id, l.parent, d.size FROM layers l JOIN diffs d ON d.key = l.key"
    own = {chain: (parent, size) for chain, parent, size in tx.execute(query)}
    found: dict[ChainID | None, int] = {None: 0}
    for chain in own:
        path = []
        while chain not in found:
            path.append(chain)
            chain = own[chain][0]
        for above in reversed(path):
            found[above] = found[own[above][0]] + own[above][1]
    return found


def release(tx: Transaction, chain_id: ChainID | None) -> tuple[list[ChainID], list[LayerKey]]:
    """Delete the rows of a layer and of those below it, as far as nothing needs them; keys whose files may go.

    Called in the transaction that deletes what needed it; the files go after the commit (`Layers.drop`).
    """
    gone: list[ChainID] = []
    keys: list[LayerKey] = []
    while chain_id is not None and not _is_needed(tx, chain_id):
        row = tx.execute("SELECT parent, key FROM layers WHERE chain_id = ?", (chain_id,)).fetchone()
        if row is None:
            break
        tx.execute("DELETE FROM layers WHERE chain_id = ?", (chain_id,))
        gone.append(chain_id)
        keys.append(LayerKey(row[1]))
        chain_id = row[0]
    return gone, forget_orphans(tx, keys) if gone else []


def unreachable(tx: Transaction) -> list[ChainID]:
    """Every layer that nothing needs."""
    return [ChainID(row[0]) for row in tx.execute(_UNREACHABLE)]


def release_unreachable(tx: Transaction) -> tuple[list[ChainID], list[LayerKey]]:
    """Delete the rows of every layer that nothing needs; keys whose files may go."""
    gone = unreachable(tx)
    tx.executemany("UPDATE layers SET parent = NULL WHERE chain_id = ?", [(chain,) for chain in gone])
    tx.executemany("DELETE FROM layers WHERE chain_id = ?", [(chain,) for chain in gone])
    return gone, forget_all_orphans(tx)


def delete_up(tx: Transaction, chain_ids: Iterable[ChainID]) -> None:
    """Delete the rows of layers, of all that are above them, and of the containers, segments and leases on these."""
    for chain in chain_ids:
        doomed = tx.execute(_UPWARDS, (chain,)).fetchall()
        tx.executemany("DELETE FROM lasting_leases WHERE chain_id = ?", doomed)
        tx.executemany("DELETE FROM containers WHERE chain_id = ?", doomed)
        tx.executemany("UPDATE segments SET parent = NULL, below = NULL WHERE chain_id = ?", doomed)
        tx.executemany("DELETE FROM segments WHERE chain_id = ?", doomed)
        tx.executemany("UPDATE layers SET parent = NULL WHERE chain_id = ?", doomed)
        tx.executemany("DELETE FROM layers WHERE chain_id = ?", doomed)


def exchange(tx: Transaction, diffs: Iterable[Diff], keys: Mapping[ChainID, LayerKey]) -> None:
    """Let every layer have another diff; the old ones' rows go, and all leases."""
    end_all_leases(tx)
    for stored in diffs:
        insert_diff(tx, stored)
    tx.executemany("UPDATE layers SET key = ? WHERE chain_id = ?", [(key, chain) for chain, key in keys.items()])
    forget_all_orphans(tx)


def forget_orphans(tx: Transaction, released: Iterable[LayerKey]) -> list[LayerKey]:
    """Delete the rows of those of these diffs, whose layers went, that belong to no layer and that nobody is reading.

    One that is read is looked at again whenever this is called, until it can go.
    """
    forsaken = (row[0] for row in tx.execute("SELECT key FROM diffs WHERE forsaken").fetchall())
    query = "SELECT 1 FROM layers WHERE key = ?"
    keys = dict.fromkeys((*released, *map(LayerKey, forsaken)))
    return _forget(tx, [key for key in keys if tx.execute(query, (key,)).fetchone() is None])


def forget_all_orphans(tx: Transaction) -> list[LayerKey]:
    """The same of all diffs: each of them is looked at."""
    rows = tx.execute("SELECT key FROM diffs d WHERE NOT EXISTS (SELECT 1 FROM layers l WHERE l.key = d.key)")
    return _forget(tx, [LayerKey(row[0]) for row in rows.fetchall()])


def _forget(tx: Transaction, orphans: Sequence[LayerKey]) -> list[LayerKey]:
    mounted = mounted_keys(tx) if orphans else set()
    read = {key for key in orphans if key in mounted or is_leased(tx, key)}
    tx.executemany("UPDATE diffs SET forsaken = 1 WHERE key = ? AND NOT forsaken", [(key,) for key in read])
    gone = [key for key in orphans if key not in read]
    tx.executemany("DELETE FROM diffs WHERE key = ?", [(key,) for key in gone])
    return gone


def mounted_keys(tx: Transaction) -> set[LayerKey]:
    """What mounts of containers read, or are in: asked once for all that goes, since each of them is looked at."""
    return {LayerKey(key) for (keys,) in tx.execute("SELECT keys FROM mounts") for key in keys.split()}


def is_leased(tx: Transaction, key: LayerKey) -> bool:
    """Is somebody reading the diff, or segment, without a mount?"""
    query = "SELECT 1 FROM leases WHERE kind = 'diff' AND value = ? LIMIT 1"
    return tx.execute(query, (key,)).fetchone() is not None


def has_diff(tx: Transaction, key: LayerKey) -> bool:
    """Does a diff have this key?"""
    return tx.execute("SELECT 1 FROM diffs WHERE key = ?", (key,)).fetchone() is not None


def owned(tx: Transaction) -> tuple[set[str], set[str], set[str], tuple[str, ...]]:
    """The keys of all diffs, those of all that belongs to containers, what is mounted, and those of leased diffs.

    To containers belong their writable layers, segments and spans. What their mounts are in or read may be nobody's any
    more: the row of a mount that nobody can have stays for a while.
    """
    diffs = {row[0] for row in tx.execute("SELECT key FROM diffs")}
    query = (
        "SELECT key FROM containers UNION SELECT key FROM segments UNION SELECT span FROM segments WHERE span NOT NULL"
    )
    containers = {row[0] for row in tx.execute(query)}
    mounted: set[str] = {*mounted_keys(tx)}
    leased = tuple(row[0] for row in tx.execute("SELECT value FROM leases WHERE kind = 'diff'"))
    return diffs, containers, mounted, leased


def has_row(tx: Transaction, key: LayerKey) -> bool:
    """Does a diff, a container, a segment or a span have this key?"""
    query = (
        "SELECT EXISTS (SELECT 1 FROM diffs WHERE key = ?1) OR EXISTS (SELECT 1 FROM containers WHERE key = ?1)"
        " OR EXISTS (SELECT 1 FROM segments WHERE key = ?1) OR EXISTS (SELECT 1 FROM segments WHERE span = ?1)"
    )
    return bool(tx.execute(query, (key,)).fetchone()[0])


def add_leases(tx: Transaction, owner: str, wanted: Iterable[tuple[str, str | bytes]], purpose: str) -> list[int]:
    """Note that the session `owner` needs these: kind and name, which is bytes if it is a path. Returns numbers."""
    # Random, for SQLite gives the number of a deleted row to the next one.
    leases = [(int.from_bytes(os.urandom(8)) >> 2, owner, kind, value, purpose) for kind, value in wanted]
    tx.executemany("INSERT INTO leases (number, session, kind, value, purpose) VALUES (?, ?, ?, ?, ?)", leases)
    return [lease[0] for lease in leases]


def are_leases(tx: Transaction, numbers: Iterable[int]) -> bool:
    """Is one of these still a lease?"""
    query = "SELECT 1 FROM leases WHERE number = ?"
    return any(tx.execute(query, (number,)).fetchone() is not None for number in numbers)


def end_leases(tx: Transaction, numbers: Iterable[int]) -> None:
    """Give back leases."""
    tx.executemany("DELETE FROM leases WHERE number = ?", [(number,) for number in numbers])


def end_dead_leases(tx: Transaction, staging: Path) -> None:
    """Give back the leases of dead sessions."""
    owners = dead_owners(tx, staging, "leases")
    tx.executemany("DELETE FROM leases WHERE session = ?", [(owner,) for owner in owners])


def leases_of(tx: Transaction, kind: str, value: str) -> list[tuple[str, str]]:
    """By which sessions something is leased, and for what."""
    query = "SELECT session, purpose FROM leases WHERE kind = ? AND value = ? ORDER BY number"
    return [(row[0], row[1]) for row in tx.execute(query, (kind, value))]


def leased(tx: Transaction, kind: str) -> list[str | bytes]:
    """All that is leased of a kind, by whomever."""
    return [row[0] for row in tx.execute("SELECT value FROM leases WHERE kind = ?", (kind,))]


def dead_leases(tx: Transaction, staging: Path, kind: str | None = None) -> list[str | bytes]:
    """What dead sessions leased; all kinds, or one."""
    owners = dead_owners(tx, staging, "leases")
    query = "SELECT value FROM leases WHERE session = ?1 AND (?2 IS NULL OR kind = ?2)"
    return [row[0] for owner in owners for row in tx.execute(query, (owner, kind))]


def end_all_leases(tx: Transaction) -> None:
    """Give back every lease, of whoever: the caller is alone."""
    tx.execute("DELETE FROM leases")


def dead_owners(tx: Transaction, staging: Path, table: str) -> list[str]:
    """The sessions in `leases` or `holds` whose process is gone."""
    return [owner for owner in facts.sessions(tx, table) if not session.is_alive(staging, owner)]


def _is_needed(tx: Transaction, chain_id: ChainID) -> bool:
    query = (
        "SELECT EXISTS (SELECT 1 FROM layers WHERE parent = ?1)"
        " OR EXISTS (SELECT 1 FROM images WHERE chain_id = ?1)"
        " OR EXISTS (SELECT 1 FROM containers WHERE chain_id = ?1)"
        " OR EXISTS (SELECT 1 FROM segments WHERE chain_id = ?1)"
        " OR EXISTS (SELECT 1 FROM checkpoints WHERE chain_id = ?1)"
        " OR EXISTS (SELECT 1 FROM snapshots WHERE chain_id = ?1)"
        " OR EXISTS (SELECT 1 FROM lasting_leases WHERE chain_id = ?1)"
        " OR EXISTS (SELECT 1 FROM leases WHERE kind = 'layer' AND value = ?1)"
    )
    return bool(tx.execute(query, (chain_id,)).fetchone()[0])


def _diff(row: Sequence[object]) -> Diff:
    key, diff_id, size, entries, root_opaque, implied, implied_digest, dependent, damaged, lazy = row[:10]
    return Diff(
        key=LayerKey(str(key)),
        diff_id=DiffID(str(diff_id)),
        size=int(str(size)),
        entries=int(str(entries)),
        root_opaque=bool(root_opaque),
        implied=() if implied == "[]" else tuple(json.loads(str(implied))),
        implied_digest=str(implied_digest),
        dependent=bool(dependent),
        damaged=bool(damaged),
        lazy=bool(lazy),
    )
