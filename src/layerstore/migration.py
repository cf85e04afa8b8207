"""A store becomes one of another driver, in place: layer by layer, container by container, and one transaction.

What is new grows beside the old: the layers in the new driver's home, their skeletons and a second database of the same
schema in `<data-root>/migration`. A layer or container has a row there only when it is whole and on disk, so whoever is
killed goes on from there. Until the switch, one durable transaction on the store's own database, the store is the old
one; from then on it is the new one, and the old home goes. The caller has the store alone (`Store` sees to that).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import asdict, evolve, frozen

from layerstore import plugins, tar
from layerstore.changes import Changes
from layerstore.containers import Containers
from layerstore.containers import rows as container_rows
from layerstore.containers.rows import Row
from layerstore.database import Database, Transaction
from layerstore.digest import ChainID, DiffID
from layerstore.driver import Dialect, LayerKey, StorageDriver
from layerstore.errors import ConfigError, DepthExceeded, DriverNotSupported, InUse, LayerstoreError, named
from layerstore.kernel.files import copy_root_attributes, fsync_folder, syncfs
from layerstore.kernel.mounts import detached
from layerstore.layers import Layers, LayerSource, Progress, garbage
from layerstore.layers import rows as layer_rows
from layerstore.layers.assembly import assembling
from layerstore.layers.folders import Folders, counting
from layerstore.layers.relay import Write, relay
from layerstore.locks import FORMER
from layerstore.tar import Level

__all__ = [
    "Migrated",
    "Migration",
    "Parts",
    "first_in",
    "former_of",
    "give_up",
    "process_of",
    "remove_former",
    "target_of",
]

_UNFINISHED = "migration"
"""The row of `meta`, while there is a migration: its target (name and entry), and the process that is at it."""

_FORMER = "former"
"""The row of `meta`, after the switch: the driver (name and entry) whose home is to be removed."""

_FOLDER = "migration"


@frozen
class Migrated:
    """What a migration did. `given_up`: the driver that an unfinished one would have led to, when that was all.

    `size` are the bytes of the layers' tars. `notices` tell what was left behind: sockets, which no layer can hold, or
    a home that could not be removed yet.
    """

    origin: str
    driver: str
    layers: int = 0
    containers: int = 0
    size: int = 0
    notices: tuple[str, ...] = ()
    given_up: str | None = None


@frozen
class Parts:
    """What there is of the store."""

    data_root: Path
    layers: Layers
    containers: Containers

    @property
    def folder(self) -> Path:
        """Where the second database and the new skeletons lie."""
        return self.data_root / _FOLDER


# --- what is written down


def target_of(facts: Mapping[str, str]) -> str | None:
    """The driver to which an unfinished migration leads. `facts`: the rows of `meta`."""
    return str(json.loads(facts[_UNFINISHED])["driver"]) if _UNFINISHED in facts else None


def process_of(facts: Mapping[str, str]) -> int | None:
    """The process that is, or was, at it."""
    return int(json.loads(facts[_UNFINISHED])["process"]) if _UNFINISHED in facts else None


def former_of(facts: Mapping[str, str]) -> str | None:
    """The driver whose home is still to be removed."""
    return str(json.loads(facts[_FORMER])["driver"]) if _FORMER in facts else None


def first_in(folder: Path) -> str | None:
    """A name that is in a folder; None if it is empty, or not there."""
    with named("open", folder):
        try:
            with os.scandir(folder) as entries:
                return next((entry.name for entry in entries), None)
        except FileNotFoundError:
            return None


@frozen
class _Note:
    """Which state of a container was converted: its writable layer then, what that stood on, and its diff."""

    key: str
    chain_id: str | None
    digest: str


def _noted(tx: Transaction) -> dict[str, _Note]:
    found = tx.execute("SELECT key, value FROM meta WHERE key LIKE 'container %'")
    return {key.partition(" ")[2]: _Note(**json.loads(value)) for key, value in found}


def _put(tx: Transaction, key: str, value: Mapping[str, object]) -> None:
    tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, json.dumps(value)))


def _facts(database: Database) -> dict[str, str]:
    with database.read() as tx:
        return dict(tx.execute("SELECT key, value FROM meta").fetchall())


# --- there


class Migration:
    """One migration, or one more try at it."""

    def __init__(self, parts: Parts, entry: str, choice: plugins.Choice, progress: Progress | None) -> None:
        """`entry` is where the store's driver is found; `choice` the new driver, which works here."""
        self._parts = parts
        self._old = parts.layers
        self._entry = entry
        self._choice = choice
        self._name = choice.driver.name
        self._home = parts.data_root / self._name
        self._progress = progress
        self._notices: list[str] = []

    def run(self) -> Migrated:
        """Do it. Whatever it fails with leaves the store as it was, and can be gone on from."""
        origin = self._old.driver.name
        chains, boxes = self._chains(), self._boxes()
        self._require_possible(chains, boxes)
        begun = target_of(_facts(self._old.database))
        if begun not in (None, self._name):
            give_up(self._parts)
            begun = None
        if begun is None:
            self._require_free_home()
        try:
            self._begin()
            with self._new() as new:
                self._tidy(new, chains.keys(), boxes)
                for chain, names in chains.items():
                    self._convert_layer(new, chain, names)
                for row in boxes:
                    with _about(f"container {row.name}"):
                        self._convert_container(new, row)
                self._take_place(new)
        except LayerstoreError as error:
            way = f"The store is as it was: the same command goes on, `layerstore migrate {origin}` gives it up."
            error.remedy = way if error.remedy is None else f"{error.remedy} {way}"
            raise
        return Migrated(origin, self._name, len(chains), len(boxes), self._old.total_size(), tuple(self._notices))

    # --- before anything is made ---

    def _chains(self) -> dict[ChainID, list[DiffID]]:
        """Every layer, parents first, with the content of its stack, bottom to top."""
        query = "SELECT l.chain_id, l.parent, d.diff_id FROM layers l JOIN diffs d ON d.key = l.key ORDER BY l.chain_id"
        with self._old.database.read() as tx:
            rows = {ChainID(chain): (parent, DiffID(name)) for chain, parent, name in tx.execute(query)}
        found: dict[ChainID, list[DiffID]] = {}
        for chain in rows:
            way: list[ChainID] = []
            at: ChainID | None = chain
            while at is not None and at not in found:
                way.append(at)
                at = rows[at][0]
            for one in reversed(way):
                parent, name = rows[one]
                found[one] = [*(found[parent] if parent is not None else ()), name]
        return found

    def _boxes(self) -> list[Row]:
        with self._old.database.read() as tx:
            return container_rows.every(tx)

    def _require_possible(self, chains: Mapping[ChainID, Sequence[DiffID]], boxes: Sequence[Row]) -> None:
        mounted = {}
        for row in boxes:
            try:
                self._parts.containers.mounts.require_unmounted(row)
            except InUse as error:
                mounted[row.name] = error.message
        if mounted:
            raise InUse(
                "; ".join(mounted.values()),
                holders=tuple(mounted),
                remedy=f"Unmount first: layerstore umount {' '.join(mounted)}",
            )
        limit = self._choice.driver.capabilities.max_depth
        deepest = max((len(names) for names in chains.values()), default=0)
        if limit is not None and deepest > limit:
            raise DepthExceeded(
                f"there is a stack of {deepest} layers: {self._name} mounts at most {limit}",
                remedy="Make it one layer: export a container of the image, import that, and remove the image.",
            )
        limited = [row.name for row in boxes if row.size is not None]
        if limited and not self._choice.backing.quota:
            raise DriverNotSupported(
                f"{self._name} cannot limit the size of a container here, and some have a limit: {', '.join(limited)}",
                remedy="Commit it, make one without a size of the image, and remove it; or choose another driver.",
            )

    def _require_free_home(self) -> None:
        found = first_in(self._home)
        if found is not None:
            raise ConfigError(
                f"{self._home} is not empty (it holds {found}), and is not from a migration of this store",
                remedy="Move it away: what another program keeps there is never taken over.",
                path=self._home,
            )

    # --- beside the store ---

    def _begin(self) -> None:
        """Write down what is begun, before there is anything of it."""
        target = {"driver": self._name, "entry": plugins.entry_of(self._choice.driver), "process": os.getpid()}
        with self._old.database.write() as tx:
            _put(tx, _UNFINISHED, target)
        for folder in (self._parts.folder, self._parts.folder / "skeletons", self._home):
            with named("mkdir", folder):
                folder.mkdir(mode=0o700, exist_ok=True)
        fsync_folder(self._parts.data_root)

    @contextmanager
    def _new(self) -> Iterator[Layers]:
        """The layers that grow beside the store."""
        folder, old = self._parts.folder, self._old
        database = Database(folder / "layerstore.db")
        try:
            driver = self._choice.driver(self._home, old.session.folder, self._choice.options)
            try:
                yield Layers(database, old.locks, old.session, folder / "skeletons", lambda: driver)
            finally:
                driver.close()
        finally:
            database.close()

    def _tidy(self, new: Layers, chains: Collection[ChainID], boxes: Sequence[Row]) -> None:
        """Keep of an earlier try what is whole and still wanted, and remove the rest."""
        with new.database.read() as tx:
            diffs, made, notes = layer_rows.all_diffs(tx), container_rows.every(tx), _noted(tx)
        damaged = {diff.key for diff in diffs if next(iter(new.folders.damages(diff, Level.SIZES)), None) is not None}
        wanted = {(row.id, row.key, row.chain_id) for row in boxes}
        with new.database.write() as tx:
            tx.execute("DELETE FROM leases")
            for row in made:
                note = notes[row.id]
                if (row.id, note.key, note.chain_id) not in wanted or not new.folders.tree_exists(row.key):
                    container_rows.delete(tx, row.id)
            gone = [
                chain for chain, key in layer_rows.keys_by_chain(tx).items() if chain not in chains or key in damaged
            ]
            layer_rows.delete_up(tx, gone)
            layer_rows.forget_orphans(tx)
        garbage.sweep(new)

    def _convert_layer(self, new: Layers, chain: ChainID, names: Sequence[DiffID]) -> None:
        """Out of the old driver and into the new; what was read and what was written must both have the DiffID."""
        with new.database.read() as tx:
            if layer_rows.find(tx, [chain]):
                return
        source = LayerSource(
            open=lambda: relay(lambda write: self._old.give_out(chain, write)),
            diff_id=names[-1],
            size=self._old.size(chain),
        )
        with assembling(new, names, "it is being converted", trust=True) as assembly:
            assembly.unpack({names[-1]: source}, self._progress)
            assembly.place()
            with new.database.write() as tx:
                assembly.record(tx)

    def _convert_container(self, new: Layers, row: Row) -> None:
        """A new container, in which the same changes are made as a program would make them that has it mounted."""
        old_below, below = self._old.stack(row.chain_id).keys, new.stack(row.chain_id).keys
        self._parts.containers.mounts.require_files(row, old_below)
        with new.database.read() as tx:
            note, made = _noted(tx).get(row.id), [one.key for one in container_rows.every(tx) if one.id == row.id]
        if note is not None and made:
            there = [_digest(self._old.driver, row.key, old_below), _digest(new.driver, made[0], below)]
            if there == [note.digest] * 2:
                return
            with new.database.write() as tx:
                container_rows.delete(tx, row.id)
            new.drop(made)
        key = new.session.new_key()
        try:
            new.driver.create(key, below, size=row.size)
            changes = self._old.driver.changes(row.key, old_below)
            digest = self._repeat(new, row, changes, key, below)
            syncfs(new.driver.home)
            with new.database.write() as tx:
                container_rows.insert(tx, evolve(row, key=key, image_id=None, image_name=""))
                _put(tx, f"container {row.id}", asdict(_Note(row.key, row.chain_id, digest)))
        except BaseException:
            new.drop([key], quietly=True)
            raise

    def _repeat(self, new: Layers, row: Row, changes: Changes, key: LayerKey, below: Sequence[LayerKey]) -> str:
        """Make `changes`, those of the old container, in the new one too; the digest of both diffs."""
        old, driver = self._old.driver, new.driver
        progress, name = self._progress, row.name
        skeleton = new.folders.staged_skeleton(key)  # of no use, for a container has none

        def pack(write: Write) -> None:
            packed = tar.pack(changes, source, write=write)
            self._notices.extend(f"container {name}: {notice}" for notice in packed.notices)

        with (
            detached(old.mounts(row.key, self._old.stack(row.chain_id).keys, read_only=True)) as source,
            relay(pack) as stream,
            detached(driver.mounts(key, below, read_only=False)) as tree,
        ):
            done = tar.unpack(
                stream,
                tree,
                dialect=Dialect.MERGED,
                skeleton=skeleton,
                below=tree,
                progress=counting(None if progress is None else lambda count: progress(name, count, None)),
            )
            if not below:  # then the root directory itself may be as it was made, which is no change
                copy_root_attributes(f"/proc/self/fd/{source}", f"/proc/self/fd/{tree}")
            syncfs(tree)
        new.session.discard(skeleton)
        if progress is not None:
            progress(name, done.size, done.size)
        if _digest(driver, key, below) != done.diff_id:
            wrong = sorted(set(map(str, changes)) ^ set(map(str, driver.changes(key, below))))[:5]
            raise LayerstoreError(
                f"what {driver.name} keeps of it is not what {old.name} keeps: {', '.join(wrong) or 'a file differs'}",
                remedy="Commit the container and make it anew from the image.",
            )
        return done.diff_id

    # --- the switch ---

    def _take_place(self, new: Layers) -> None:
        try:
            self._link_skeletons(new)
            self._switch(new)
        except BaseException:
            self._old.note_garbage()
            raise

    def _link_skeletons(self, new: Layers) -> None:
        """Give the new skeletons their place among the store's. Without a row they are garbage, and the link goes."""
        with new.database.read() as tx:
            keys = [diff.key for diff in layer_rows.all_diffs(tx)]
        for key in keys:
            source, target = new.folders.skeleton(key), self._old.skeletons / key
            shadow, new_shadow = tar.shadow_of(source), tar.shadow_of(target)
            with named("link", target):
                _link(source, target)
                if shadow.is_dir():
                    new_shadow.mkdir(mode=0o700, exist_ok=True)
                    for name in os.listdir(shadow):
                        _link(shadow / name, new_shadow / name)
                    fsync_folder(new_shadow)
        fsync_folder(self._old.skeletons)
        syncfs(new.driver.home)

    def _switch(self, new: Layers) -> None:
        with new.database.read() as tx:
            diffs, keys = layer_rows.all_diffs(tx), layer_rows.keys_by_chain(tx)
            containers = {row.id: row.key for row in container_rows.every(tx)}
        with self._old.database.write() as tx:
            there = set(layer_rows.keys_by_chain(tx)), {row.id for row in container_rows.every(tx)}
            if there != (set(keys), set(containers)):
                raise LayerstoreError("the store has changed meanwhile", remedy="Try it again.")
            container_rows.exchange(tx, containers)
            layer_rows.exchange(tx, diffs, keys)
            tx.execute("DELETE FROM meta WHERE key IN ('refusals', ?)", (_UNFINISHED,))
            _put(tx, _FORMER, {"driver": self._old.driver.name, "entry": self._entry})
            facts = {"driver": self._name, "entry": plugins.entry_of(self._choice.driver)}
            tx.executemany("UPDATE meta SET value = ? WHERE key = ?", [(value, key) for key, value in facts.items()])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:  # by an earlier try, and the same file: keys are not used twice
        pass


def _digest(driver: StorageDriver, key: LayerKey, below: Sequence[LayerKey]) -> str:
    """The digest of a container's diff."""
    changes = driver.changes(key, below)
    with detached(driver.mounts(key, below, read_only=True)) as root:
        return tar.pack(changes, root).diff_id


@contextmanager
def _about(what: str) -> Iterator[None]:
    try:
        yield
    except LayerstoreError as error:
        error.message = f"{what}: {error.message}"
        raise


# --- away


def give_up(parts: Parts) -> Migrated:
    """Remove all of an unfinished migration. Done again, it goes on where it was killed."""
    layers, name = parts.layers, parts.layers.driver.name
    facts = _facts(layers.database)
    if _UNFINISHED not in facts:
        raise LayerstoreError(f"the store keeps its layers with {name} already", remedy="Name another driver.")
    target = json.loads(facts[_UNFINISHED])
    _remove_home(layers, parts.data_root / target["driver"], target["entry"], parts.folder / "skeletons")
    _move_away(layers, parts.folder)
    fsync_folder(parts.data_root)
    with layers.database.write() as tx:
        tx.execute("DELETE FROM meta WHERE key = ?", (_UNFINISHED,))
    return Migrated(name, name, given_up=target["driver"])


def remove_former(layers: Layers, data_root: Path) -> None:
    """Remove what a store that was converted has kept of its former driver. `layers`: with the one that it has now."""
    if _FORMER not in _facts(layers.database):
        return
    with layers.locks.at_once(FORMER) as free:
        facts = _facts(layers.database)
        if not free or _FORMER not in facts:
            return  # another process is at it, or was
        former = json.loads(facts[_FORMER])
        _remove_home(layers, data_root / former["driver"], former["entry"], layers.skeletons)
        _move_away(layers, data_root / _FOLDER)
        garbage.sweep(layers)
        fsync_folder(data_root)
        with layers.database.write() as tx:
            tx.execute("DELETE FROM meta WHERE key = ?", (_FORMER,))


def _remove_home(layers: Layers, home: Path, entry: str, skeletons: Path) -> None:
    """Remove a home that is not that of the store's driver, with the skeletons of its layers."""
    if not home.is_dir():
        return
    kind = plugins.load(entry)
    driver = kind(home, layers.session.folder, kind.options())
    try:
        folders = Folders(driver, layers.session, skeletons, layers.note_garbage)
        folders.drop(garbage.own_keys(driver.layers()))
        foreign = next(iter(driver.layers()), None)
    finally:
        driver.close()
    if foreign is not None:
        raise LayerstoreError(
            f"{home} holds {foreign}, which is nothing of this store",
            remedy="See what it is, and move it away.",
            path=home,
        )
    _move_away(layers, home)


def _move_away(layers: Layers, folder: Path) -> None:
    target = layers.session.folder / f"{layers.session.new_key()}.{folder.name}"
    with named("rename", folder):
        try:
            folder.rename(target)
        except FileNotFoundError:
            return
    layers.session.discard(target)
