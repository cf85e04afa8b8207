"""A store becomes one of another driver, in place: layer by layer, container by container, and one transaction.

What is new grows beside the old: the layers in the new driver's home, their skeletons and a second database of the same
schema in `<data-root>/migration`. A layer or container has a row there only when it is whole and on disk, so whoever is
killed goes on from there. Until the switch, one durable transaction on the store's own database, the store is the old
one; from then on it is the new one, and the old home goes. Meanwhile nobody else has it open (`migrate` sees to that).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from attrs import asdict, evolve

from layerstore import facts, plugins
from layerstore.config import Config
from layerstore.containers import rows as container_rows
from layerstore.containers.rows import Row
from layerstore.database import Database, Transaction
from layerstore.digest import ChainID, DiffID
from layerstore.driver import Layer, LayerKey, State, look
from layerstore.errors import ConfigError, DepthExceeded, DriverNotSupported, InUse, LayerstoreError, named
from layerstore.homes import BESIDE, Away
from layerstore.kernel.files import first_in, fsync_folder, syncfs
from layerstore.layers import Layers, LayerSource, Progress, Storage, garbage
from layerstore.layers import rows as layer_rows
from layerstore.layers.assembly import assembling
from layerstore.layers.files import LayerFiles
from layerstore.layers.relay import Write, relay
from layerstore.limits import UNLIMITED
from layerstore.parts import Parts
from layerstore.recovery import sweep_trials
from layerstore.segments import rows as segment_rows
from layerstore.segments.converting import Side, convert
from layerstore.tar import Level, Packed
from layerstore.values import frozen

__all__ = ["Migrated", "Migration", "migrate"]


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
class _Note:
    """Which state of a container was converted: its writable layer then, what that stood on, and its diff."""

    key: str
    chain_id: str | None
    digest: str


def _noted(tx: Transaction) -> dict[str, _Note]:
    known = facts.all_of(tx).items()
    return {key.partition(" ")[2]: _Note(**json.loads(value)) for key, value in known if key.startswith("container ")}


def migrate(parts: Parts, config: Config, to: str, progress: Progress | None) -> Migrated:
    """Convert a store to the driver `to`, whose configuration is `config`. Nobody else may have it open: `InUse`.

    To the driver that it has: give up a migration that was not finished. Waits for lazy layers, or raises why they do
    not come.
    """
    parts.database.require_writable()
    if to != parts.known["driver"]:
        for stored in parts.layers.lazy():  # before nobody else can open the store: who fetches layers has to
            parts.layers.files.make_whole(stored)
    parts.use.require_alone()
    sweep_trials(parts)
    if to == parts.known["driver"]:
        return _give_up(parts)
    choice = plugins.choose(config, config.data_root.joinpath, None)
    return Migration(parts, choice, progress).run()


# --- there


class Migration:
    """One migration, or one more try at it."""

    def __init__(self, parts: Parts, choice: plugins.Choice, progress: Progress | None) -> None:
        """`choice` is the new driver, which works here."""
        self._parts = parts
        self._database = parts.database
        self._old = parts.layers
        self._driver = parts.storage.driver
        self._choice = choice
        self._name = choice.driver.name
        self._data_root = parts.config.data_root
        self._beside = self._data_root / BESIDE
        self._home = self._data_root / self._name
        self._progress = progress
        self._notices: list[str] = []

    def run(self) -> Migrated:
        """Do it. Whatever it fails with leaves the store as it was, and can be gone on from."""
        origin = self._driver.name
        chains, boxes = self._chains(), self._boxes()
        self._require_possible(chains, boxes)
        begun = facts.target_of(facts.read(self._database))
        if begun not in (None, self._name):
            _give_up(self._parts)
            begun = None
        if begun is None:
            self._require_free_home()
        try:
            self._begin()
            with self._new() as new:
                self._tidy(new, chains.keys(), boxes)
                for chain, names in chains.items():
                    self._convert_layer(new, chain, names)
                with _about("a checkpoint"):
                    segments = self._convert_segments(new)
                for row in boxes:
                    with _about(f"container {row.name}"):
                        self._convert_container(new, row, segments)
                self._take_place(new, segments)
        except LayerstoreError as error:
            way = f"The store is as it was: the same command goes on, `layerstore migrate {origin}` gives it up."
            error.remedy = way if error.remedy is None else f"{error.remedy} {way}"
            raise
        return Migrated(origin, self._name, len(chains), len(boxes), self._old.total_size(), tuple(self._notices))

    # --- before anything is made ---

    def _chains(self) -> dict[ChainID, list[DiffID]]:
        """Every layer, parents first, with the content of its stack, bottom to top."""
        with self._database.read() as tx:
            rows = layer_rows.all_kept(tx)
        found: dict[ChainID, list[DiffID]] = {}
        for chain in rows:
            way: list[ChainID] = []
            at: ChainID | None = chain
            while at is not None and at not in found:
                way.append(at)
                at = rows[at].parent
            for one in reversed(way):
                parent = rows[one].parent
                found[one] = [*(found[parent] if parent is not None else ()), rows[one].diff_id]
        return found

    def _boxes(self) -> list[Row]:
        with self._database.read() as tx:
            return container_rows.every(tx)

    def _require_possible(self, chains: Mapping[ChainID, Sequence[DiffID]], boxes: Sequence[Row]) -> None:
        used = []
        for row in boxes:
            try:
                self._parts.containers.mounts.require_unmounted(row)
            except InUse as error:
                used.append((row, error))
        if used:
            runs = [
                row.name for row, _ in used if self._parts.containers.mounts.residents.settled(row, is_mounted=True)
            ]
            rest = [row.name for row, _ in used if row.name not in runs]
            commands = [
                f"layerstore {verb} {' '.join(names)}" for verb, names in (("stop", runs), ("umount", rest)) if names
            ]
            raise InUse(
                "; ".join(error.message for _, error in used),
                holders=tuple(row.name for row, _ in used),
                remedy=f"First: {'; '.join(commands)}",
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
        with self._database.write() as tx:
            facts.put(tx, {facts.MIGRATION: target})
        for folder in (self._beside, self._beside / "skeletons", self._home):
            with named("mkdir", folder):
                folder.mkdir(mode=0o700, exist_ok=True)
        fsync_folder(self._data_root)

    @contextmanager
    def _new(self) -> Iterator[Side]:
        """The layers that grow beside the store."""
        parts = self._parts
        database = Database(self._beside / "layerstore.db")
        try:
            storage = Storage(
                lambda: self._choice.driver(self._home, parts.session.folder, self._choice.options),
                parts.session,
                self._beside / "skeletons",
                lambda: facts.ask_for_recovery(self._database, parts.session.stay),
            )
            try:
                layers = Layers(database, parts.locks, parts.session, storage, UNLIMITED)
                yield Side(database, storage, layers, parts.session)
            finally:
                storage.close()
        finally:
            database.close()

    def _tidy(self, new: Side, chains: Collection[ChainID], boxes: Sequence[Row]) -> None:
        """Keep of an earlier try what is whole and still wanted, and remove the rest."""
        files = new.storage.files
        with new.database.read() as tx:
            diffs, made, notes = layer_rows.all_diffs(tx), container_rows.every(tx), _noted(tx)
        damaged = {diff.key for diff in diffs if next(iter(files.damages(diff, Level.SIZES)), None) is not None}
        wanted = {(row.id, row.key, row.chain_id) for row in boxes}
        with new.database.write() as tx:
            layer_rows.end_all_leases(tx)
            for row in made:
                note = notes[row.id]
                if (row.id, note.key, note.chain_id) not in wanted or not files.has(row.layer):
                    container_rows.delete(tx, row.id)
            gone = [
                chain for chain, key in layer_rows.keys_by_chain(tx).items() if chain not in chains or key in damaged
            ]
            layer_rows.delete_up(tx, gone)
            layer_rows.forget_all_orphans(tx)
        garbage.sweep(new.layers, new.session.staging)

    def _convert_layer(self, new: Side, chain: ChainID, names: Sequence[DiffID]) -> None:
        """Out of the old driver and into the new; what was read and what was written must both have the DiffID."""
        with new.database.read() as tx:
            if layer_rows.find(tx, [chain]):
                return
        source = LayerSource(
            open=lambda: relay(lambda write: self._old.give_out(chain, write)),
            diff_id=names[-1],
            size=self._old.size(chain),
        )
        with assembling(new.layers, names, "it is being converted", trust=True) as assembly:
            assembly.unpack({names[-1]: source}, self._progress)
            assembly.place()
            with new.database.write() as tx:
                assembly.record(tx)

    def _convert_segments(self, new: Side) -> dict[LayerKey, LayerKey | None]:
        """What checkpoints and forks stand on; the new keys by the old ones."""
        old = Side(self._database, self._parts.storage, self._old, self._parts.session)
        theirs, ours = old.storage.files, new.storage.files

        def repeat(origin: Layer, old_below: Sequence[Layer], layer: Layer, below: Sequence[Layer]) -> str:
            return self._repeat(theirs, origin, "a checkpoint", old_below, ours, layer, below)

        return convert(old, new, repeat)

    def _convert_container(self, new: Side, row: Row, segments: Mapping[LayerKey, LayerKey | None]) -> None:
        """A new container, in which the same changes are made as a program would make them that has it mounted."""
        moved = evolve(row, segment=None if row.segment is None else segments[row.segment])
        with self._database.read() as tx:
            old_below = container_rows.below(tx, row).layers
        with new.database.read() as tx:
            below = container_rows.below(tx, moved).layers
        self._parts.containers.mounts.require_files(row, old_below)
        theirs, ours = self._parts.storage.files, new.storage.files
        with new.database.read() as tx:
            note, made = _noted(tx).get(row.id), [one for one in container_rows.every(tx) if one.id == row.id]
        if note is not None and made:
            there = theirs.write_changes(row.layer, old_below), ours.write_changes(made[0].layer, below)
            if [packed.diff_id for packed in there] == [note.digest] * 2:
                return
            with new.database.write() as tx:
                container_rows.delete(tx, row.id)
            new.layers.drop([made[0].key])
        layer = Layer(new.session.new_key(), State.WRITABLE)
        try:
            new.storage.driver.create(layer, below, size=row.size)
            digest = self._repeat(theirs, row.layer, f"container {row.name}", old_below, ours, layer, below)
            syncfs(new.storage.driver.home)
            with new.database.write() as tx:
                container_rows.insert(tx, evolve(moved, key=layer.key, image_id=None, image_name=""))
                facts.put(tx, {f"container {row.id}": asdict(_Note(row.key, row.chain_id, digest))})
        except BaseException:
            new.layers.drop([layer.key], quietly=True)
            raise

    def _repeat(
        self,
        theirs: LayerFiles,
        origin: Layer,
        name: str,
        old_below: Sequence[Layer],
        ours: LayerFiles,
        layer: Layer,
        below: Sequence[Layer],
    ) -> str:
        """Make the changes of the old container in the new one too; the digest of both diffs."""
        progress, label = self._progress, name.removeprefix("container ")

        def pack(write: Write) -> Packed:
            return theirs.write_changes(origin, old_below, write)

        with look(theirs.driver, origin, old_below) as root:
            packed = ours.repeat(
                layer,
                below,
                of=pack,
                root=root,
                progress=None if progress is None else lambda count: progress(label, count, None),
            )
        self._notices.extend(f"{name}: {notice}" for notice in packed.notices)
        if progress is not None:
            progress(label, packed.size, packed.size)
        if ours.write_changes(layer, below).diff_id != packed.diff_id:
            before = set(map(str, theirs.driver.changes(origin, old_below)))
            wrong = sorted(before ^ set(map(str, ours.driver.changes(layer, below))))[:5]
            raise LayerstoreError(
                f"what {ours.driver.name} keeps of it is not what {theirs.driver.name} keeps: "
                f"{', '.join(wrong) or 'a file differs'}",
                remedy="Commit the container and make it anew from the image.",
            )
        return packed.diff_id

    # --- the switch ---

    def _take_place(self, new: Side, segments: Mapping[LayerKey, LayerKey | None]) -> None:
        try:
            self._hand_over(new)
            self._switch(new, segments)
        except BaseException:
            facts.ask_for_recovery(self._database, self._parts.session.stay)
            raise

    def _hand_over(self, new: Side) -> None:
        """Let what is kept beside the new home lie in the store too. Without a row it is garbage, and goes."""
        with new.database.read() as tx:
            keys = [diff.key for diff in layer_rows.all_diffs(tx)]
        new.storage.files.hand_over(keys, self._parts.storage.files.beside)
        syncfs(new.storage.driver.home)

    def _switch(self, new: Side, segments: Mapping[LayerKey, LayerKey | None]) -> None:
        with new.database.read() as tx:
            diffs, keys = layer_rows.all_diffs(tx), layer_rows.keys_by_chain(tx)
            containers = {row.id: row.key for row in container_rows.every(tx)}
            whole = segment_rows.whole(tx)
        with self._database.write() as tx:
            there = set(layer_rows.keys_by_chain(tx)), {row.id for row in container_rows.every(tx)}
            standing = {segment.key for segment in segment_rows.every(tx)}
            if there != (set(keys), set(containers)) or standing != set(segments):
                raise LayerstoreError("the store has changed meanwhile", remedy="Try it again.")
            container_rows.exchange(tx, containers)
            segment_rows.exchange(tx, whole, segments)
            layer_rows.exchange(tx, diffs, keys)
            facts.clear(tx, ["refusals", facts.MIGRATION])
            former = {"driver": self._driver.name, "entry": self._parts.known["entry"]}
            facts.put(tx, {facts.FORMER: former, "driver": self._name, "entry": plugins.entry_of(self._choice.driver)})


@contextmanager
def _about(what: str) -> Iterator[None]:
    try:
        yield
    except LayerstoreError as error:
        error.message = f"{what}: {error.message}"
        raise


# --- away


def _give_up(parts: Parts) -> Migrated:
    """Remove all of an unfinished migration. Done again, it goes on where it was killed."""
    name, data_root = parts.storage.driver.name, parts.config.data_root
    known = facts.read(parts.database)
    if facts.MIGRATION not in known:
        raise LayerstoreError(f"the store keeps its layers with {name} already", remedy="Name another driver.")
    target = json.loads(known[facts.MIGRATION])
    away = Away(parts.database, parts.session)
    away.remove_home(data_root / target["driver"], target["entry"], data_root / BESIDE / "skeletons")
    away.move(data_root / BESIDE)
    fsync_folder(data_root)
    with parts.database.write() as tx:
        facts.clear(tx, [facts.MIGRATION])
    return Migrated(name, name, given_up=target["driver"])
