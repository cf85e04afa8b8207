"""The rows of containers, their mounts, holds and processes: all SQL about them, as functions of a transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import astuple, evolve

from layerstore.containers import names
from layerstore.digest import ChainID, ImageID
from layerstore.driver import Layer, LayerKey, State
from layerstore.errors import Ambiguous, InUse, NameInUse, NotFound
from layerstore.images import rows as image_rows
from layerstore.kernel.mounts import boot_id
from layerstore.kernel.namespaces import IdMap
from layerstore.kernel.processes.identity import Identity
from layerstore.layers import rows as layer_rows
from layerstore.segments import Below
from layerstore.segments import rows as segment_rows
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Transaction


@frozen
class Row:
    """A container as the database has it.

    `key`: its writable layer; that stands on `segment`, if there is one, and on the layers of `chain_id`.
    """

    id: str
    name: str
    image_id: ImageID | None
    image_name: str
    chain_id: ChainID | None
    key: LayerKey
    size: int | None
    created: int
    boot: str
    touched: bool
    segment: LayerKey | None = None
    ids: IdMap | None = None
    """For whom it is mounted: in this map's namespace, owners are what they are in its layers."""
    lent: bool = False
    """Others mount it, where nobody here sees it, and may write in it at any time."""

    @property
    def layer(self) -> Layer:
        """Its writable layer, as a driver is told of it."""
        return Layer(self.key, State.WRITABLE)


_COLUMNS = (
    "c.id, c.name, c.image_id, c.image_name, c.chain_id, c.key, c.size, c.created, c.boot, c.touched, c.segment, c.ids,"
    " c.lent"
)


@frozen
class Place:
    """A row of `mounts`."""

    mountpoint: Path
    mount_id: int
    boot: str
    namespace: int


@frozen
class Resident:
    """A row of `processes`. `root`: where the process has the container's tree, as it writes names."""

    identity: Identity
    root: bytes


_TAGGED = (
    f"SELECT {_COLUMNS}, coalesce(t.name, r.name || '@' || r.digest) FROM containers c"
    " LEFT JOIN tags t ON t.name = c.image_name AND t.image_id = c.image_id"
    " LEFT JOIN repo_digests r ON r.image_id = c.image_id AND r.name || '@' || r.digest = c.image_name"
)


@frozen
class Seen:
    """A container's row, and the name that it was made from, with a tag or a digest, if that still means its image."""

    row: Row
    tag: str | None


def seen(tx: Transaction, container: str) -> Seen:
    """`find`, with the tag. Raises `NotFound`."""
    found = tx.execute(f"{_TAGGED} WHERE c.id = ?", (container,)).fetchone()
    if found is None:
        raise NotFound(f"no such container: {container[:12]}")
    return _seen(found)


def resolve(tx: Transaction, ref: str) -> Seen:
    """The container of this ID, name, or beginning of an ID. Raises `NotFound`, `Ambiguous`."""
    wanted = ref.removeprefix("/")
    for condition in ("c.id = ?", "c.name = ?"):
        found = tx.execute(f"{_TAGGED} WHERE {condition}", (wanted,)).fetchone()
        if found is not None:
            return _seen(found)
    several = []
    if wanted and all(digit in "0123456789abcdef" for digit in wanted):
        query = f"{_TAGGED} WHERE c.id >= ? AND c.id < ? LIMIT 2"
        several = tx.execute(query, (wanted, wanted + "g")).fetchall()
    if len(several) > 1:
        raise Ambiguous(f"several containers have an ID that begins with {wanted}")
    if not several:
        raise NotFound(f"no such container: {ref}", remedy="`layerstore ps -a` shows what there is.")
    return _seen(several[0])


def all_seen(tx: Transaction) -> list[Seen]:
    """All containers, the newest first."""
    return [_seen(found) for found in tx.execute(f"{_TAGGED} ORDER BY c.created DESC")]


def mounted(tx: Transaction) -> list[Seen]:
    """Those with a row of a mount, the newest first."""
    query = f"{_TAGGED} JOIN mounts m ON m.container = c.id ORDER BY c.created DESC"
    return [_seen(found) for found in tx.execute(query)]


def _seen(columns: Sequence[Any]) -> Seen:
    return Seen(_row(columns[:-1]), columns[-1])


def find(tx: Transaction, container: str) -> Row:
    """The row of the container with this ID. Raises `NotFound`."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM containers c WHERE c.id = ?", (container,)).fetchone()
    if row is None:
        raise NotFound(f"no such container: {container[:12]}")
    return _row(row)


def _row(columns: Sequence[object]) -> Row:
    """A row from its columns."""
    number, name, image, image_name, chain, key, size, created, boot, touched, segment, ids, lent = columns
    return Row(
        id=str(number),
        name=str(name),
        image_id=None if image is None else ImageID(str(image)),
        image_name=str(image_name),
        chain_id=None if chain is None else ChainID(str(chain)),
        key=LayerKey(str(key)),
        size=size if isinstance(size, int) else None,
        created=created if isinstance(created, int) else 0,
        boot=str(boot),
        touched=bool(touched),
        segment=None if segment is None else LayerKey(str(segment)),
        ids=None if ids is None else IdMap.parsed(str(ids)),
        lent=bool(lent),
    )


def every(tx: Transaction) -> list[Row]:
    """The rows of all containers, the oldest first."""
    return [_row(row) for row in tx.execute(f"SELECT {_COLUMNS} FROM containers c ORDER BY c.created, c.id")]


def rename(tx: Transaction, container: str, name: str) -> None:
    """Give a container another name. Raises `NotFound`, `NameInUse`."""
    if find(tx, container).name != name:
        require_new(tx, name)
        tx.execute("UPDATE containers SET name = ? WHERE id = ?", (name, container))


def delete(tx: Transaction, container: str) -> None:
    """Delete a container's row. Raises `InUse` if a table of an upper floor (`Tables`) keeps it."""
    try:
        tx.execute("DELETE FROM containers WHERE id = ?", (container,))
    except sqlite3.IntegrityError:
        require_unclaimed(tx, container)
        raise


def require_unclaimed(tx: Transaction, container: str) -> None:
    """Raise `InUse` if a table of an upper floor (`Tables`) keeps the container."""
    for floor, table, column in image_rows.references(tx, "containers"):
        if tx.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", (container,)).fetchone() is not None:
            raise InUse(
                f"container {find(tx, container).name} is kept by {floor}, whose it is",
                holders=[floor],
                remedy="Remove it by what made it.",
            )


def claims(tx: Transaction) -> dict[str, str]:
    """The containers that upper floors keep (`require_unclaimed`), and the floor of each."""
    found: dict[str, str] = {}
    for floor, table, column in image_rows.references(tx, "containers"):
        query = f"SELECT {column} FROM {table} WHERE {column} NOT NULL"
        found |= dict.fromkeys((str(row[0]) for row in tx.execute(query)), floor)
    return found


def lend(tx: Transaction, container: str) -> None:
    """Note that others mount it. Raises `NotFound`."""
    find(tx, container)
    tx.execute("UPDATE containers SET lent = 1 WHERE id = ?", (container,))


def exchange(tx: Transaction, keys: Mapping[str, LayerKey]) -> None:
    """Give containers, none of which is mounted or running, other writable layers."""
    tx.execute("DELETE FROM mounts")
    tx.execute("DELETE FROM holds")
    tx.execute("DELETE FROM processes")
    tx.executemany("UPDATE containers SET key = ? WHERE id = ?", [(key, container) for container, key in keys.items()])


def branch_off(tx: Transaction, row: Row) -> None:
    """Write what a container stands on, and its new and empty writable layer."""
    tx.execute(
        "UPDATE containers SET key = ?, chain_id = ?, image_id = ?, image_name = ?, segment = ?, boot = ?, touched = 0"
        " WHERE id = ?",
        (row.key, row.chain_id, row.image_id, row.image_name, row.segment, boot_id(), row.id),
    )


def below(tx: Transaction, row: Row) -> Below:
    """What a container's writable layer stands on."""
    return segment_rows.below(tx, row.segment, row.chain_id)


def require_new(tx: Transaction, name: str | None) -> None:
    """Raise `NameInUse` if a container has this name."""
    if name is None:
        return
    row = tx.execute("SELECT id FROM containers WHERE name = ?", (name,)).fetchone()
    if row is not None:
        raise NameInUse(
            f"the container name {name!r} is in use by container {row[0][:12]}",
            remedy=f"Remove that one (layerstore rm {name}), rename it, or take another name.",
        )


def insert(tx: Transaction, row: Row) -> Row:
    """Write a container's row; with a name, if it has none. What it stands on may have been removed meanwhile."""
    if row.image_id is not None:
        image_rows.resolve(tx, row.image_id)
    elif row.chain_id is not None:
        layer_rows.stored(tx, row.chain_id)
    for attempt in count():
        # Should the names run out, digits make them last.
        name = row.name or names.random_name() + (os.urandom(2).hex() if attempt > 9 else "")
        try:
            tx.execute(
                "INSERT INTO containers (id, name, image_id, image_name, chain_id, key, size, created, boot, touched, "
                "segment, ids) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(
                        row.id,
                        name,
                        row.image_id,
                        row.image_name,
                        row.chain_id,
                        row.key,
                        row.size,
                        row.created,
                        row.boot,
                    ),
                    *(row.touched, row.segment, None if row.ids is None else str(row.ids)),
                ),
            )
        except sqlite3.IntegrityError as error:
            require_new(tx, row.name or None)
            if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                raise
            continue
        return evolve(row, name=name)
    raise AssertionError("unreachable")


def place_of(tx: Transaction, container: str) -> Place | None:
    """The mount that has a row, unless that is of another boot."""
    query = "SELECT mountpoint, mount_id, boot, namespace FROM mounts WHERE container = ?"
    row = tx.execute(query, (container,)).fetchone()
    return None if row is None or row[2] != boot_id() else Place(Path(os.fsdecode(row[0])), *row[1:])


def places(tx: Transaction) -> dict[str, Place]:
    """The mounts that have a row, by container, but for those of another boot."""
    found = tx.execute(
        "SELECT container, mountpoint, mount_id, boot, namespace FROM mounts WHERE boot = ?", (boot_id(),)
    )
    return {row[0]: Place(Path(os.fsdecode(row[1])), *row[2:]) for row in found}


def owners(tx: Transaction) -> dict[str, list[str | None]]:
    """Whose the holds on each container's mount are."""
    found: dict[str, list[str | None]] = {}
    for container, owner in tx.execute("SELECT container, session FROM holds"):
        found.setdefault(container, []).append(owner)
    return found


def add_hold(tx: Transaction, container: str, owner: str | None) -> int:
    """Count one more user of a container's mount. Returns the hold's number, which no other ever has."""
    number = int.from_bytes(os.urandom(8)) >> 2
    tx.execute("INSERT INTO holds (number, container, session) VALUES (?, ?, ?)", (number, container, owner))
    return number


def holds_of(tx: Transaction, container: str) -> dict[int, str | None]:
    """The holds on a container's mount, and whose they are."""
    rows = tx.execute("SELECT number, session FROM holds WHERE container = ? ORDER BY rowid", (container,))
    return dict(rows.fetchall())


def put_mount(tx: Transaction, container: str, place: Place, keys: Sequence[LayerKey]) -> None:
    """Write down a mount that was just made, or found without a row; whoever held an earlier one does no more."""
    end_holds(tx, container)
    tx.execute(
        "INSERT OR REPLACE INTO mounts (container, mountpoint, mount_id, boot, namespace, keys) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (container, os.fsencode(place.mountpoint), place.mount_id, place.boot, place.namespace, " ".join(keys)),
    )


def move_mount(tx: Transaction, container: str, place: Place, keys: Sequence[LayerKey]) -> None:
    """Write down that another mount is where one was; whoever held that holds this one."""
    tx.execute(
        "UPDATE mounts SET mountpoint = ?, mount_id = ?, boot = ?, namespace = ?, keys = ? WHERE container = ?",
        (os.fsencode(place.mountpoint), place.mount_id, place.boot, place.namespace, " ".join(keys), container),
    )


def keys_of_mount(tx: Transaction, container: str) -> list[LayerKey]:
    """The layers that a container's mount reads, and the one whose mountpoint it is at, which is the last."""
    row = tx.execute("SELECT keys FROM mounts WHERE container = ?", (container,)).fetchone()
    return [] if row is None else [LayerKey(key) for key in row[0].split()]


def end_mount(tx: Transaction, container: str, *, is_elsewhere: bool, is_synced: bool = True) -> None:
    """It is unmounted and synced here: from here on there are files that a power cut leaves.

    `is_elsewhere`: its mount in another mount namespace has the row. `is_synced`: False if processes have its tree
    still, so that the filesystem is there as it was.
    """
    end_holds(tx, container)
    if not is_elsewhere:
        tx.execute("DELETE FROM mounts WHERE container = ?", (container,))
    if not is_synced:
        return
    tx.execute("UPDATE containers SET touched = 1 WHERE id = ? AND NOT touched", (container,))


_RESIDENT = "pid, started, boot, pid_namespace, mount_namespace, namespace_id, root"


def residents(tx: Transaction, container: str) -> list[Resident]:
    """The processes that a container's tree was given to, the first first; whether they live, the kernel knows."""
    query = f"SELECT {_RESIDENT} FROM processes WHERE container = ? ORDER BY started, pid"
    return [_resident(found) for found in tx.execute(query, (container,))]


def all_residents(tx: Transaction) -> dict[str, list[Resident]]:
    """The same of all containers."""
    found: dict[str, list[Resident]] = {}
    for container, *columns in tx.execute(f"SELECT container, {_RESIDENT} FROM processes ORDER BY started, pid"):
        found.setdefault(container, []).append(_resident(columns))
    return found


def _resident(columns: Sequence[Any]) -> Resident:
    return Resident(Identity(*columns[:6]), bytes(columns[6]))


def put_resident(tx: Transaction, container: str, resident: Resident) -> None:
    """Write down a process that a container's tree is given to. Raises `NotFound`."""
    find(tx, container)
    tx.execute(
        f"INSERT OR REPLACE INTO processes (container, {_RESIDENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (container, *astuple(resident.identity), resident.root),
    )


def end_resident(tx: Transaction, container: str, identity: Identity) -> None:
    """A process less, which never had the tree."""
    key = (container, identity.pid, identity.started)
    tx.execute("DELETE FROM processes WHERE container = ? AND pid = ? AND started = ?", key)


def end_residents(tx: Transaction, container: str, *, is_synced: bool) -> None:
    """All processes of a container have ended; `is_synced`: and what they wrote is on the disk."""
    tx.execute("DELETE FROM processes WHERE container = ?", (container,))
    if is_synced:
        tx.execute("UPDATE containers SET touched = 1 WHERE id = ? AND NOT touched", (container,))


def end_holds(tx: Transaction, container: str) -> None:
    """Nobody holds its mount any more."""
    tx.execute("DELETE FROM holds WHERE container = ?", (container,))


def end_hold(tx: Transaction, number: int) -> None:
    """One user less of a container's mount."""
    tx.execute("DELETE FROM holds WHERE number = ?", (number,))


def end_void(tx: Transaction, dead: Iterable[str]) -> None:
    """Delete the mounts of other boots, the holds of `dead` sessions, and those on no mount."""
    tx.execute("DELETE FROM mounts WHERE boot != ?", (boot_id(),))
    tx.execute("DELETE FROM processes WHERE boot != ?", (boot_id(),))
    tx.executemany("DELETE FROM holds WHERE session = ?", [(owner,) for owner in dead])
    tx.execute("DELETE FROM holds WHERE container NOT IN (SELECT container FROM mounts)")


def unheld(tx: Transaction) -> list[str]:
    """The containers with a row of a mount that nobody holds."""
    query = "SELECT container FROM mounts WHERE container NOT IN (SELECT container FROM holds)"
    return [row[0] for row in tx.execute(query)]


def unsure(tx: Transaction) -> list[str]:
    """The containers of former boots whose files were never known to be on disk."""
    found = tx.execute("SELECT id FROM containers WHERE NOT touched AND boot != ?", (boot_id(),))
    return [row[0] for row in found]


def without_mount(tx: Transaction) -> list[Row]:
    """The containers without a row of a mount."""
    query = f"SELECT {_COLUMNS} FROM containers c WHERE c.id NOT IN (SELECT container FROM mounts)"
    return [_row(row) for row in tx.execute(query)]
