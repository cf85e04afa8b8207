"""The rows of segments, checkpoints and snapshots: all SQL about them, as functions of a transaction.

Segments make trees: each stands on another, or on a chain of layers. How deep one lies is its number, counted from 1.
A segment whose number is a multiple of four may have a span: one layer that says what it and those below it say, as
many as the number's lowest bit tells. A stack takes the span wherever there is one, so one of n segments has hardly
more parts than n has bits (Fenwick, "A new data structure for cumulative frequency tables", 1994).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from layerstore.digest import ChainID, DiffID, ImageID
from layerstore.driver import Layer, LayerKey, Usage
from layerstore.errors import NameInUse, NotFound
from layerstore.layers import rows as layer_rows
from layerstore.layers.diffs import committed
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Transaction

STEP = 4
"""Segments with a number that is a multiple of this have a span."""


@frozen
class Below:
    """What a writable layer stands on: segments, the nearest first, and below them layers of an image.

    `complete`: the segments hold the whole tree, whatever is below.
    """

    segments: tuple[Layer, ...]
    base: tuple[Layer, ...]
    complete: bool = False

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What a layer on top has for parents, the nearest first."""
        return self.segments if self.complete else (*self.segments, *self.base)


@frozen
class Segment:
    """A segment as the database has it. `number`: how many there are in its stack, itself counted."""

    key: LayerKey
    parent: LayerKey | None
    chain_id: ChainID | None
    number: int
    complete: bool
    span: LayerKey | None

    @property
    def layer(self) -> Layer:
        """As a driver is told of it."""
        return Layer(self.key)


@frozen
class CheckpointRow:
    """A checkpoint as the database has it: what of the container was kept. `segment` None: what it stands on alone."""

    container: str
    label: str
    segment: LayerKey | None
    image_id: ImageID | None
    image_name: str
    chain_id: ChainID | None
    created: int
    consistent: bool


@frozen
class SnapshotRow:
    """A snapshot as the database has it: a segment, if there is one, on the layers of `chain_id`.

    `holds`: what of that is its own, and not of what its container began on. `usage` and `diff_id` are None until
    somebody has asked for them.
    """

    id: str
    segment: LayerKey | None
    chain_id: ChainID | None
    holds: Literal["segment", "layer", "nothing"]
    created: int
    usage: Usage | None = None
    diff_id: DiffID | None = None


# --- segments

_UP = """
WITH RECURSIVE up (key, next, complete, height, segment) AS (
    SELECT coalesce(span, key), CASE WHEN span IS NULL THEN parent ELSE below END, complete, 0, key
        FROM segments WHERE key = ?
    UNION ALL
    SELECT coalesce(s.span, s.key), CASE WHEN s.span IS NULL THEN s.parent ELSE s.below END,
            s.complete, height + 1, s.key
        FROM up JOIN segments s ON s.key = up.next WHERE NOT up.complete
)
SELECT key, complete, segment FROM up ORDER BY height
"""

_DOWN_TO = """
WITH RECURSIVE up (key, span, parent, below, number) AS (
    SELECT key, span, parent, below, number FROM segments WHERE key = ?
    UNION ALL
    SELECT s.key, s.span, s.parent, s.below, s.number FROM up JOIN segments s
        ON s.key = CASE WHEN up.span IS NULL OR up.number - (up.number & -up.number) < ?2
            THEN up.parent ELSE up.below END
    WHERE up.number > ?2 + 1
)
SELECT CASE WHEN span IS NULL OR number - (number & -number) < ?2 THEN key ELSE span END, key, parent, below, number
FROM up WHERE number > ?2 ORDER BY number DESC
"""

_SEGMENT = "SELECT key, parent, chain_id, number, complete, span FROM segments"


def below(tx: Transaction, segment: LayerKey | None, chain_id: ChainID | None) -> Below:
    """What a layer on this segment has below it; or on this chain of layers, without one. Raises `NotFound`."""
    base = layer_rows.parents_on(tx, chain_id)
    if segment is None:
        return Below((), base)
    found = tx.execute(_UP, (segment,)).fetchall()
    if not found:
        raise NotFound(f"no segment {segment}")
    return Below(committed(LayerKey(row[0]) for row in found), base, bool(found[-1][1]))


def find(tx: Transaction, key: LayerKey) -> Segment | None:
    """One segment, if there is such."""
    row = tx.execute(f"{_SEGMENT} WHERE key = ?", (key,)).fetchone()
    return None if row is None else _segment(row)


def every(tx: Transaction) -> list[Segment]:
    """All segments, each after its parent."""
    return [_segment(row) for row in tx.execute(f"{_SEGMENT} ORDER BY number, key")]


def number_of(tx: Transaction, key: LayerKey | None) -> int:
    """How many segments there are in a stack."""
    if key is None:
        return 0
    row = tx.execute("SELECT number FROM segments WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise NotFound(f"no segment {key}")
    return int(row[0])


def is_on(tx: Transaction, top: LayerKey | None, segment: LayerKey) -> bool:
    """Does `segment` belong to the stack that ends with `top`?"""
    query = """
    WITH RECURSIVE up (key, parent, number) AS (
        SELECT key, parent, number FROM segments WHERE key = ?1
        UNION ALL SELECT s.key, s.parent, s.number FROM up JOIN segments s ON s.key = up.parent
        WHERE up.number > (SELECT number FROM segments WHERE key = ?2)
    )
    SELECT EXISTS (SELECT 1 FROM up WHERE key = ?2)
    """
    return top is not None and bool(tx.execute(query, (top, segment)).fetchone()[0])


def between(tx: Transaction, top: LayerKey | None, number: int) -> tuple[Layer, ...]:
    """Layers that say what the segments from `top` down to the one after `number` say, the nearest first."""
    if top is None:
        return ()
    return committed(LayerKey(row[0]) for row in tx.execute(_DOWN_TO, (top, number)))


_WHOLE = "key, parent, chain_id, number, complete, span, below"


def whole(tx: Transaction) -> list[tuple[object, ...]]:
    """All that there is of all segments, each after what it stands on: for `exchange` in another database."""
    return tx.execute(f"SELECT {_WHOLE} FROM segments ORDER BY number, key").fetchall()


def exchange(tx: Transaction, new: Sequence[tuple[object, ...]], keys: Mapping[LayerKey, LayerKey | None]) -> None:
    """Let a store have other segments: `new` are their rows, `keys` those in the places of the old ones."""
    tx.executemany(f"INSERT INTO segments ({_WHOLE}) VALUES (?, ?, ?, ?, ?, ?, ?)", new)
    pairs = [(key, old) for old, key in keys.items()]
    for table in ("containers", "checkpoints", "snapshots"):
        tx.executemany(f"UPDATE {table} SET segment = ? WHERE segment = ?", pairs)
    tx.executemany("UPDATE segments SET parent = NULL, below = NULL WHERE key = ?", [(old,) for old in keys])
    tx.executemany("DELETE FROM segments WHERE key = ?", [(old,) for old in keys])


def delete_all(tx: Transaction) -> None:
    """Delete all segments, and the containers that stand on one. No checkpoint and no snapshot may."""
    tx.execute("DELETE FROM containers WHERE segment NOT NULL")
    tx.execute("UPDATE segments SET parent = NULL, below = NULL")
    tx.execute("DELETE FROM segments")


def depth(tx: Transaction, top: LayerKey) -> int:
    """How many layers a stack of segments has, with the spans that there are."""
    return len(tx.execute(_UP, (top,)).fetchall())


def without_span(tx: Transaction, top: LayerKey) -> list[LayerKey]:
    """The segments of a stack that should have a span and have none, the lowest first."""
    found = [find(tx, LayerKey(row[2])) for row in tx.execute(_UP, (top,)).fetchall()]
    missing = [one.key for one in found if one and one.span is None and not one.complete and one.number % STEP == 0]
    return missing[::-1]


def insert(
    tx: Transaction, key: LayerKey, parent: LayerKey | None, chain_id: ChainID | None, *, complete: bool
) -> Segment:
    """Write the row of a segment whose files are on disk."""
    number = number_of(tx, parent) + 1
    tx.execute(
        "INSERT INTO segments (key, parent, chain_id, number, complete) VALUES (?, ?, ?, ?, ?)",
        (key, parent, chain_id, number, complete),
    )
    return Segment(key, parent, chain_id, number, complete, None)


def set_span(tx: Transaction, key: LayerKey, span: LayerKey, number: int) -> bool:
    """Let a segment have a span down to the one after `number`; False if it is gone, or has one."""
    found = find(tx, key)
    if found is None or found.span is not None:
        return False
    at: LayerKey | None = key
    while at is not None and number_of(tx, at) > number:
        at = tx.execute("SELECT parent FROM segments WHERE key = ?", (at,)).fetchone()[0]
    tx.execute("UPDATE segments SET span = ?, below = ? WHERE key = ?", (span, at, key))
    return True


def release(tx: Transaction, key: LayerKey | None) -> list[LayerKey]:
    """Delete the rows of a segment and of those below it, as far as nothing needs them; keys whose files may go.

    Called in the transaction that deletes what needed it. What is being read stays, for `sweep`.
    """
    gone: list[LayerKey] = []
    mounted = None
    while key is not None and not _is_needed(tx, key):
        row = tx.execute("SELECT parent, span FROM segments WHERE key = ?", (key,)).fetchone()
        if row is None:
            break
        parts = [LayerKey(part) for part in (key, row[1]) if part is not None]
        mounted = layer_rows.mounted_keys(tx) if mounted is None else mounted
        if any(part in mounted or layer_rows.is_leased(tx, part) for part in parts):
            break
        tx.execute("DELETE FROM segments WHERE key = ?", (key,))
        gone += parts
        key = row[0]
    return gone


def sweep(tx: Transaction) -> list[LayerKey]:
    """Delete the rows of all segments that nothing needs; keys whose files may go."""
    leaves = tx.execute("SELECT key FROM segments WHERE key NOT IN (SELECT parent FROM segments WHERE parent NOT NULL)")
    gone: list[LayerKey] = []
    for (key,) in leaves.fetchall():
        gone += release(tx, LayerKey(key))
    return gone


def keys(tx: Transaction) -> set[LayerKey]:
    """The keys of all segments and spans."""
    found = tx.execute("SELECT key FROM segments UNION SELECT span FROM segments WHERE span NOT NULL")
    return {LayerKey(row[0]) for row in found}


def standing_on(tx: Transaction, key: LayerKey) -> list[tuple[str, str | None]]:
    """What stands on a segment, or on the one whose span it is: checkpoints, as names of containers and labels; and
    containers, with no label. Snapshots are not told: what they are to people, their owner knows."""
    query = """
    WITH RECURSIVE up (key) AS (
        SELECT key FROM segments WHERE key = ?1 OR span = ?1
        UNION SELECT s.key FROM up JOIN segments s ON s.parent = up.key
    )
    SELECT c.name, k.label FROM checkpoints k JOIN containers c
        ON c.id = k.container WHERE k.segment IN (SELECT key FROM up)
    UNION ALL SELECT name, NULL FROM containers WHERE segment IN (SELECT key FROM up)
    """
    return sorted(tx.execute(query, (key,)).fetchall(), key=lambda row: (row[1] is None, row))


def owned_by(tx: Transaction, container: str) -> list[Segment]:
    """The segments that only this container and its checkpoints need: those that go with it."""
    query = """
    WITH RECURSIVE own (key) AS (
        SELECT segment FROM containers WHERE segment NOT NULL AND id = ?1
        UNION SELECT segment FROM checkpoints WHERE segment NOT NULL AND container = ?1
        UNION SELECT s.parent FROM own JOIN segments s ON s.key = own.key WHERE s.parent NOT NULL
    ), theirs (key) AS (
        SELECT key FROM own WHERE EXISTS (SELECT 1 FROM containers WHERE segment = own.key AND id != ?1)
            OR EXISTS (SELECT 1 FROM checkpoints WHERE segment = own.key AND container != ?1)
            OR EXISTS (SELECT 1 FROM snapshots WHERE segment = own.key)
            OR EXISTS (SELECT 1 FROM segments WHERE parent = own.key AND key NOT IN (SELECT key FROM own))
        UNION SELECT s.parent FROM theirs JOIN segments s ON s.key = theirs.key WHERE s.parent NOT NULL
    )
    """
    own = f"{query}{_SEGMENT} WHERE key IN (SELECT key FROM own) AND key NOT IN (SELECT key FROM theirs)"
    return [_segment(row) for row in tx.execute(own, (container,))]


def _is_needed(tx: Transaction, key: LayerKey) -> bool:
    query = (
        "SELECT EXISTS (SELECT 1 FROM segments WHERE parent = ?1)"
        " OR EXISTS (SELECT 1 FROM containers WHERE segment = ?1)"
        " OR EXISTS (SELECT 1 FROM checkpoints WHERE segment = ?1)"
        " OR EXISTS (SELECT 1 FROM snapshots WHERE segment = ?1)"
    )
    return bool(tx.execute(query, (key,)).fetchone()[0])


def _segment(row: Sequence[object]) -> Segment:
    key, parent, chain, number, complete, span = row
    return Segment(
        LayerKey(str(key)),
        None if parent is None else LayerKey(str(parent)),
        None if chain is None else ChainID(str(chain)),
        int(str(number)),
        bool(complete),
        None if span is None else LayerKey(str(span)),
    )


# --- checkpoints

_CHECKPOINT = "SELECT container, label, segment, image_id, image_name, chain_id, created, consistent FROM checkpoints"


def checkpoints(tx: Transaction, container: str) -> list[CheckpointRow]:
    """A container's checkpoints, the oldest first."""
    found = tx.execute(f"{_CHECKPOINT} WHERE container = ? ORDER BY created, label", (container,))
    return [_checkpoint(row) for row in found]


def every_checkpoint(tx: Transaction) -> list[CheckpointRow]:
    """All checkpoints."""
    return [_checkpoint(row) for row in tx.execute(f"{_CHECKPOINT} ORDER BY container, created, label")]


def checkpoint(tx: Transaction, container: str, label: str) -> CheckpointRow:
    """One of them. Raises `NotFound`."""
    row = tx.execute(f"{_CHECKPOINT} WHERE container = ? AND label = ?", (container, label)).fetchone()
    if row is None:
        name = _name(tx, container)
        raise NotFound(
            f"container {name} has no checkpoint {label!r}",
            remedy=f"`layerstore checkpoints {name}` shows what it has.",
        )
    return _checkpoint(row)


def next_label(tx: Transaction, container: str) -> str:
    """A label for a checkpoint without one: the first number that is higher than all that there are."""
    query = "SELECT max(CAST(label AS INTEGER)) FROM checkpoints WHERE container = ? AND label NOT GLOB '*[^0-9]*'"
    highest = tx.execute(query, (container,)).fetchone()[0]
    return str((highest or 0) + 1)


def require_new_label(tx: Transaction, container: str, label: str) -> None:
    """Raise `NameInUse` if the container has a checkpoint of this label."""
    query = "SELECT 1 FROM checkpoints WHERE container = ? AND label = ?"
    if tx.execute(query, (container, label)).fetchone() is not None:
        name = _name(tx, container)
        raise NameInUse(
            f"container {name} has a checkpoint {label!r}",
            remedy=f"Take another label, or remove that one: layerstore checkpoints --rm {name} {label}",
        )


def _name(tx: Transaction, container: str) -> str:
    """What people call a container; one that is gone has its ID alone."""
    row = tx.execute("SELECT name FROM containers WHERE id = ?", (container,)).fetchone()
    return container[:12] if row is None else str(row[0])


def insert_checkpoint(tx: Transaction, row: CheckpointRow) -> None:
    """Write a checkpoint's row. Raises `NameInUse`."""
    require_new_label(tx, row.container, row.label)
    tx.execute(
        "INSERT INTO checkpoints (container, label, segment, image_id, image_name, chain_id, created, consistent)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.container,
            row.label,
            row.segment,
            row.image_id,
            row.image_name,
            row.chain_id,
            row.created,
            row.consistent,
        ),
    )


def delete_checkpoints(tx: Transaction, rows: Iterable[CheckpointRow]) -> list[LayerKey]:
    """Delete checkpoints, and what only they needed; keys whose files may go."""
    gone: list[LayerKey] = []
    for row in rows:
        tx.execute("DELETE FROM checkpoints WHERE container = ? AND label = ?", (row.container, row.label))
        gone += release(tx, row.segment)
        gone += layer_rows.release(tx, row.chain_id)[1]
    return gone


def _checkpoint(row: Sequence[object]) -> CheckpointRow:
    container, label, segment, image, name, chain, created, consistent = row
    return CheckpointRow(
        str(container),
        str(label),
        None if segment is None else LayerKey(str(segment)),
        None if image is None else ImageID(str(image)),
        str(name),
        None if chain is None else ChainID(str(chain)),
        int(str(created)),
        bool(consistent),
    )


# --- snapshots

_SNAPSHOT = "SELECT id, segment, chain_id, holds, created, size, inodes, diff_id FROM snapshots"


def snapshot(tx: Transaction, name: str) -> SnapshotRow:
    """The snapshot with this ID. Raises `NotFound`."""
    row = tx.execute(f"{_SNAPSHOT} WHERE id = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"no such snapshot: {name[:12]}")
    return _snapshot(row)


def every_snapshot(tx: Transaction) -> list[SnapshotRow]:
    """All snapshots, the oldest first."""
    return [_snapshot(row) for row in tx.execute(f"{_SNAPSHOT} ORDER BY created, id")]


def insert_snapshot(tx: Transaction, row: SnapshotRow) -> None:
    """Write a snapshot's row. What it stands on has one."""
    size, inodes = (None, None) if row.usage is None else (row.usage.size, row.usage.inodes)
    tx.execute(
        "INSERT INTO snapshots (id, segment, chain_id, holds, created, size, inodes, diff_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.segment, row.chain_id, row.holds, row.created, size, inodes, row.diff_id),
    )


def set_usage(tx: Transaction, name: str, usage: Usage) -> None:
    """Remember what a snapshot occupies."""
    tx.execute("UPDATE snapshots SET size = ?, inodes = ? WHERE id = ?", (usage.size, usage.inodes, name))


def set_diff_id(tx: Transaction, name: str, diff_id: DiffID) -> None:
    """Remember the DiffID of a snapshot's diff."""
    tx.execute("UPDATE snapshots SET diff_id = ? WHERE id = ?", (diff_id, name))


def delete_snapshot(tx: Transaction, name: str) -> list[LayerKey]:
    """Delete a snapshot, and what only it needed; keys whose files may go. Raises `NotFound`."""
    row = snapshot(tx, name)
    tx.execute("DELETE FROM snapshots WHERE id = ?", (name,))
    return [*release(tx, row.segment), *layer_rows.release(tx, row.chain_id)[1]]


def _snapshot(row: Sequence[Any]) -> SnapshotRow:
    name, segment, chain, holds, created, size, inodes, diff_id = row
    usage = None if size is None else Usage(size, inodes)
    return SnapshotRow(name, segment, chain, holds, created, usage, diff_id)
