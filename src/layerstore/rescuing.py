"""A database is made anew of what lies beside the layers: their records, those of images and containers, and what of
the old one can still be read. It grows in a folder of its own, and takes the old one's place at the end, by a rename.

What a record says goes before what the old database says: a record is proved by a digest, a row by nothing. Nothing is
removed: the old database stays under another name, and what nobody knows any more is put aside into `lost/`.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from attrs import asdict, evolve, field

from layerstore import facts, plugins
from layerstore.config import Config
from layerstore.database import Database
from layerstore.digest import ChainID, DiffID, ImageID, chain_ids, of_bytes, short
from layerstore.driver import Layer, LayerKey, State, StorageDriver
from layerstore.errors import ConfigError, InUse, KernelError, LayerstoreError, NotFound, named
from layerstore.images import config as config_of
from layerstore.kernel.copying import copy_tree
from layerstore.kernel.files import first_in, fsync_folder, remove_tree, syncfs
from layerstore.kernel.mounts import processes_with
from layerstore.layers import Layers, Storage, garbage
from layerstore.layers import rows as layer_rows
from layerstore.layers.assembly import assembling
from layerstore.layers.diffs import Diff, Place
from layerstore.layers.files import LayerFiles
from layerstore.layers.lasting.rows import RESCUED
from layerstore.layers.relay import relay
from layerstore.locks import USE, Locks
from layerstore.records import STORE, Records
from layerstore.records import rows as record_rows
from layerstore.session import Session
from layerstore.tar import Level
from layerstore.values import define, frozen

__all__ = ["LOST", "Rescued", "rescue"]

LOST = "lost"
"""In the data-root: what a rescue found that no record speaks of, for a person to look at."""

_PLACE = "rescue"
"""In the data-root: where the new database grows."""

_NAME = "layerstore.db"


@frozen
class Rescued:
    """What there is again: numbers of images, layers, containers and volumes.

    `database`: what the old one is called now; None if there was none. `lost` says in words what did not come back.
    """

    images: int
    layers: int
    containers: int
    volumes: int
    database: Path | None
    lost: tuple[str, ...] = ()


@define
class _Found:
    """What there is to make a database of: rows of records, those of the old database, and what could not be used."""

    rows: list[tuple[str, Mapping[str, object]]] = field(factory=list)
    old_rows: list[tuple[str, Mapping[str, object]]] = field(factory=list)
    floors: dict[str, object] = field(factory=dict)
    facts: dict[str, str] = field(factory=dict)
    commits: int = 0
    lost: list[str] = field(factory=list)


def rescue(config: Config) -> Rescued:
    """Make the database of a store anew. Nobody else may have it open: `InUse`.

    Raises `LayerstoreError` if the database is whole, `NotFound` if there is no store, and `ConfigError` if it cannot
    be told which driver keeps its layers; then `storage_driver` has to say so.
    """
    data_root = config.data_root
    if first_in(data_root / "skeletons") is None and first_in(data_root / "records") is None:
        raise NotFound(f"there is no store in {data_root}", remedy="Name its data-root.", path=data_root)
    with ExitStack() as stack:
        if not stack.enter_context(Locks(data_root / "locks").at_once(USE)):
            others = [f"process {number}" for number in processes_with(data_root / "locks") if number != os.getpid()]
            raise InUse(
                f"the store in {data_root} is open: by {', '.join(others) or 'this process itself'}",
                holders=others,
                remedy="A rescue needs it alone: end them first.",
            )
        place = data_root / _PLACE
        if place.exists():
            remove_tree(place)
        with named("mkdir", place):
            place.mkdir(mode=0o700)
        stack.callback(remove_tree, place)
        found = _Found()
        _read_records(Records(data_root / "records"), found)
        _read_old(data_root / _NAME, place / "old.db", found)
        return _Rescue(config, place, found, stack).run()


def _read_records(records: Records, found: _Found) -> None:
    found.commits = records.commits()
    for kind, name in records.every():
        if name.startswith("."):
            continue
        try:
            value = records.read(kind, name) or {}
        except LayerstoreError as error:
            found.lost.append(f"{error.message}: it says nothing of the {kind} {short(name)}")
            continue
        if (kind, name) == STORE:
            found.facts.update(_mapping(value.get("facts")))
            floors = value.get("floors")
            found.floors.update(floors if isinstance(floors, dict) else {})
            continue
        for table, listed in value.items():
            if isinstance(listed, list):
                found.rows += [(table, row) for row in listed if isinstance(row, dict)]


def _mapping(value: object) -> dict[str, str]:
    return {str(key): str(part) for key, part in value.items()} if isinstance(value, dict) else {}


def _second_name(path: Path) -> Path | None:
    """By what other name the old database is to stay, if a rescue that was killed has given it one."""
    for other in sorted(path.parent.glob(f"{path.name}.damaged-*")):
        with suppress(OSError):
            if other.samefile(path):
                return other
    return None


def _read_old(path: Path, copy: Path, found: _Found) -> None:
    """What can still be read of the old database, of a copy: whoever opens it writes to it."""
    if not path.is_file():
        return
    kept = _second_name(path)
    logs = [name for name in (f"{kept}-wal", f"{path}-wal") if os.path.isfile(name)]
    with named("copy", path):
        shutil.copyfile(path, copy)
        if logs:
            shutil.copyfile(logs[0], f"{copy}-wal")
    old = record_rows.salvaged(copy)
    is_own = found.facts.get("id", old.facts.get("id")) == old.facts.get("id")
    if old.is_whole and old.facts and is_own and facts.commits_of(old.facts) >= found.commits:
        raise LayerstoreError(
            f"the database {path} is whole, and there is nothing to rescue",
            remedy="`layerstore check` tells what else is wrong, and `layerstore check --repair` mends it.",
            path=path,
        )
    if not is_own:
        return  # that of another store
    found.facts = {**old.facts, **found.facts}
    found.floors = {**old.floors, **found.floors}
    found.old_rows += old.rows


class _Rescue:
    """One rescue, once it is known what there is."""

    def __init__(self, config: Config, place: Path, found: _Found, stack: ExitStack) -> None:
        self._data_root = config.data_root
        self._place = place
        self._found = found
        self._identified: set[LayerKey] = set()
        """What was taken in anew: the next `open` removes what it was before."""
        kind = self._driver(config)
        self._facts = {"id": found.facts.get("id") or os.urandom(16).hex()} | {
            "driver": kind.name,
            "entry": plugins.entry_of(kind),
            facts.COMMITS: str(max(found.commits, facts.commits_of(found.facts))),
        }
        self._database = Database(place / _NAME)
        stack.callback(self._database.close)
        staging = self._data_root / "staging"
        with named("mkdir", staging):
            staging.mkdir(mode=0o700, exist_ok=True)
        self._session = Session(staging)
        stack.callback(self._session.close)
        home = self._data_root / kind.name
        storage = Storage(
            lambda: kind(home, self._session.folder, kind.options()),
            self._session,
            self._data_root / "skeletons",
            lambda: None,
        )
        stack.callback(storage.close)
        self._files: LayerFiles = storage.files
        self._layers = Layers(self._database, Locks(self._data_root / "locks"), self._session, storage, config.limits)

    def _driver(self, config: Config) -> type[StorageDriver]:
        """The driver that is written down, or that is named, or whose home there is."""
        written = self._found.facts.get("entry")
        if written:
            return plugins.load(written)
        homes = [name for name in plugins.names() if first_in(self._data_root / name) is not None]
        name = config.storage_driver or (homes[0] if len(homes) == 1 else None)
        if name is None:
            raise ConfigError(
                f"it is not known which driver keeps the layers in {self._data_root}: "
                f"{', '.join(homes) or 'no driver'} has a home there",
                remedy="Say which: --storage-driver.",
            )
        return plugins.find(name)

    def run(self) -> Rescued:
        """Fill the new database, and put it in the old one's place."""
        with self._database.write() as tx:
            facts.found(tx, self._facts)
            record_rows.provide_floors(tx, self._found.floors)
        diffs = self._diffs()
        self._put([*self._layer_rows(diffs), *self._found.rows], self._found.old_rows)
        self._identify()
        self._keep_unneeded()
        self._put_aside()
        with self._database.read() as tx:
            counted = facts.counts(tx)
            volumes = len(record_rows.names(tx, "volumes"))
        self._database.close()
        old = self._take_place()
        return Rescued(
            counted["images"], counted["layers"], counted["containers"], volumes, old, tuple(self._found.lost)
        )

    # --- layers ---

    def _diffs(self) -> dict[ChainID, tuple[Diff, Place]]:
        """The diff of each layer, by records; of several, one that is whole."""
        found: dict[ChainID, tuple[Diff, Place]] = {}
        for key in garbage.own_keys(sorted(set(self._files.keys_beside()))):
            try:
                record = self._files.read_record(key)
            except LayerstoreError as error:
                self._found.lost.append(error.message)
                continue
            if record is None:
                continue
            diff, place = record
            before = found.get(place.chain)
            if before is not None and not before[0].damaged:
                continue
            is_whole = self._files.has(Layer(key)) and next(iter(self._files.damages(diff, Level.SIZES)), None) is None
            if is_whole or before is None:
                found[place.chain] = evolve(diff, damaged=not is_whole), place
        return found

    def _layer_rows(self, diffs: Mapping[ChainID, tuple[Diff, Place]]) -> Iterator[tuple[str, Mapping[str, object]]]:
        for diff, place in diffs.values():
            yield "diffs", record_rows.diff_row(asdict(diff))
            yield "layers", {"chain_id": place.chain, "parent": place.parent, "key": diff.key}
        known = {chain: diff for chain, (diff, _) in diffs.items()}
        for table, row in [*self._found.rows, *self._found.old_rows]:
            if table == "images" and isinstance(config := row.get("config"), bytes):
                with suppress(LayerstoreError):
                    yield from self._shared(config_of.layers(config_of.read(config)), known)

    def _shared(
        self, names: Sequence[DiffID], known: dict[ChainID, Diff]
    ) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Layers of an image whose diff has the record of another layer: it is kept once for both."""
        below: list[Diff] = []
        for chain, name in zip(chain_ids(names), names, strict=True):
            diff = known.get(chain)
            if diff is None:
                on = [Layer(key) for key in layer_rows.visible(below)]
                candidates = (one for one in list(known.values()) if one.diff_id == name and not one.damaged)
                diff = next((one for one in candidates if self._files.fits(one, on)), None)
                if diff is None:
                    return
                known[chain] = diff
                parent = chain_ids(names)[len(below) - 1] if below else None
                yield "layers", {"chain_id": chain, "parent": parent, "key": diff.key}
            below.insert(0, diff)

    def _identify(self) -> None:
        """Layers that no record speaks of: their tars say which they are. They wait for an image that has them."""
        with self._database.read() as tx:
            known = {diff.key for diff in layer_rows.all_diffs(tx)}
        for key in garbage.own_keys(sorted(set(self._files.keys_beside()))):
            if key in known or not self._files.independent or not self._files.has(Layer(key)):
                continue
            try:
                diff_id = self._files.identify(key)
                with relay(partial(self._files.give_out, Diff(key, diff_id, 0, 0))) as stream:
                    staged = self._layers.stage(stream, expected=diff_id)
                with assembling(self._layers, [diff_id], "it is being rescued", offered={diff_id: staged}) as assembly:
                    assembly.place()
                    with self._database.write() as tx:
                        assembly.record(tx)
                        self._layers.lease_lastingly(tx, ChainID(diff_id), owner=RESCUED, name=str(key))
                self._identified.add(key)
                self._found.lost.append(
                    f"layer {diff_id} has no record: it is kept until its image comes again, or `layerstore prune`"
                )
            except LayerstoreError as error:
                self._found.lost.append(f"what is called {key}: {error.message}")

    def _keep_unneeded(self) -> None:
        """Layers that have a record, and nothing that needs them: the record of their image may be what is lost."""
        with self._database.write() as tx:
            kept = layer_rows.unreachable(tx)
            for chain in kept:
                self._layers.lease_lastingly(tx, chain, owner=RESCUED, name=chain)
        if kept:
            number = "1 layer is" if len(kept) == 1 else f"{len(kept)} layers are"
            self._found.lost.append(
                f"{number} of nothing that came back: kept until what needs them comes again, or `layerstore prune`"
            )

    # --- rows ---

    def _put(self, *sources: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        """Write all rows whose files are there, each after what it refers to; what is left refers to what is lost.

        The surest first: those that can be had of one source come before those of the next, which are older.
        """
        pending: list[tuple[str, Mapping[str, object]]] = []
        for rows, loosen in [*((source, False) for source in sources), ((), True)]:
            pending += [(table, row) for table, row in rows if self._has_files(table, row)]
            while pending:
                with self._database.write() as tx:
                    left = [
                        (table, row)
                        for table, row in pending
                        if not record_rows.put(tx, table, _loosened(table, row) if loosen else row)
                    ]
                if len(left) == len(pending):
                    break
                pending = left
        self._found.lost += sorted({_told(table, row) for table, row in pending if table in _NAMED})

    def _has_files(self, table: str, row: Mapping[str, object]) -> bool:
        match table:
            case "containers" | "segments":
                state = State.WRITABLE if table == "containers" else State.COMMITTED
                is_there = self._files.has(Layer(LayerKey(str(row["key"])), state))
            case "volumes_made":
                is_there = (self._data_root / "volumes" / str(row["name"])).is_dir()
            case "images":
                config = row.get("config")
                is_there = isinstance(config, bytes) and ImageID(of_bytes(config)) == row.get("id")
            case _:
                return True
        if not is_there:
            self._found.lost.append(f"{_told(table, row)}: its files are gone, or damaged")
        return is_there

    # --- files that nobody knows ---

    def _put_aside(self) -> None:
        """Raises `KernelError` if something stays where it is: the next `open` would take it for garbage."""
        left = garbage.find(self._database, self._session.staging, self._files)
        for key in left.home:
            if key in self._identified:
                continue
            tree, target = self._files.place_of(Layer(key)), self._data_root / LOST / key
            if os.path.lexists(tree):
                _move(tree, target)
                self._found.lost.append(f"{target}: no record says what it was")

    # --- the switch ---

    def _take_place(self) -> Path | None:
        """In an order in which a power cut leaves one database or the other, and no log with the wrong one.

        Who dies between leaves the old one under both names, and its log with one of them: there it is found again.
        """
        new, own = self._place / _NAME, self._data_root / _NAME
        record_rows.fold(new)
        with named("fsync", new), new.open("rb") as file:
            os.fsync(file.fileno())
        old = None
        if own.exists():
            names = (own.with_name(f"{_NAME}.damaged-{number}") for number in range(1, 1000))
            old = _second_name(own) or next(path for path in names if not path.exists())
            with named("rename", own):
                with suppress(FileExistsError):
                    os.link(own, old)
                for end in ("-wal", "-shm"):
                    if not os.path.exists(f"{old}{end}"):  # else whoever looked since has made an empty one
                        with suppress(FileNotFoundError):
                            os.rename(f"{own}{end}", f"{old}{end}")
        for end in ("-wal", "-shm"):
            Path(f"{own}{end}").unlink(missing_ok=True)
        with named("rename", new):
            os.replace(new, own)
        fsync_folder(self._data_root)
        return old


def _move(tree: Path, target: Path) -> None:
    """Move what lies at `tree`; a copy is made of what cannot be moved, as a subvolume that is read-only."""
    with named("mkdir", target.parent):
        target.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        with named("rename", tree):
            tree.rename(target)
    except KernelError as error:
        if error.errno != errno.EROFS:
            raise
        if target.exists():
            return  # an earlier rescue, which did not come to its end, has made it
        copied = target.with_name(f".{target.name}")
        remove_tree(copied)
        copy_tree(tree, copied)
        syncfs(target.parent)
        with named("rename", copied):
            copied.rename(target)


_NAMED = {"images": "image", "containers": "container", "checkpoints": "checkpoint", "volumes_made": "volume"}


def _told(table: str, row: Mapping[str, object]) -> str:
    match table:
        case "images":
            name = short(ImageID(str(row.get("id"))))
        case "checkpoints":
            name = str(row.get("label"))
        case _:
            name = str(row.get("name"))
    return f"the {_NAMED.get(table, 'segment')} {name} did not come back"


def _loosened(table: str, row: Mapping[str, object]) -> Mapping[str, object]:
    """A row that no longer refers to what it can do without."""
    match table:
        case "images":
            return {**row, "parent": None}
        case "containers":
            return {**row, "image_id": None, "image_name": ""}
        case "segments":
            return {**row, "span": None, "below": None}
        case _:
            return row
