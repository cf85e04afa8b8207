"""The front door: a store is opened, used and closed here; what it does is done by the parts that it holds.

Opening one is cheap: two folders are looked at and one database is opened. The driver, this process's staging folder
and everything that writes come into being when they are first needed. What a dead process or a power cut left behind is
put in order before anything else happens. Whoever has a store open shares one lock, which a migration wants for itself.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from attrs import evolve, frozen

from layerstore import config as configuration
from layerstore import migration, platforms, plugins, reference, session
from layerstore.check import Problem, problems
from layerstore.config import Config
from layerstore.containers import Container, Containers, Mounted
from layerstore.database import Database, ReadOnlyDatabase
from layerstore.digest import ChainID
from layerstore.driver import StorageDriver
from layerstore.errors import ConfigError, InUse, KernelError, LayerstoreError, NotFound, named
from layerstore.images import Image, Images, Loaded, Removal, instructions
from layerstore.images import config as image_config
from layerstore.kernel.files.reserve import Reserve
from layerstore.kernel.mounts import boot_id, processes_with, trial
from layerstore.layers import Layers, garbage
from layerstore.layers import rows as layer_rows
from layerstore.locks import USE, Held, Locks
from layerstore.migration import Migrated, Migration
from layerstore.session import Session

if TYPE_CHECKING:
    from layerstore.check import Told
    from layerstore.layers import Progress
    from layerstore.usage import DiskUsage

__all__ = ["Info", "Migrated", "Problem", "Pruned", "Store", "migrate_store", "open_store"]

PATIENCE = 2.0
"""Seconds for which an open waits for a migration to end."""


@frozen
class Pruned:
    """What `prune` removed: IDs of containers, images and their tags, layers, and the bytes of their tars."""

    containers: tuple[str, ...]
    images: tuple[Removal, ...]
    layers: tuple[ChainID, ...]
    reclaimed: int


@frozen
class Info:
    """What `info` tells of a store and of its host.

    `refusals` are the drivers that were not taken when the store was made, and why; `broken` those that are installed
    and can never work. `migration`: to which driver an unfinished one leads. `former`: the driver whose home is still
    to be removed.
    """

    id: str
    version: str
    containers: int
    mounted: int
    images: int
    layers: int
    driver: str
    driver_status: tuple[tuple[str, str], ...]
    refusals: tuple[tuple[str, str], ...]
    broken: tuple[tuple[str, str], ...]
    migration: str | None
    former: str | None
    data_root: Path
    exec_root: Path
    kernel: str
    operating_system: str
    os: str
    architecture: str
    cpus: int
    memory: int
    name: str


def open_store(
    data_root: str | Path | None = None,
    *,
    config: Config | str | Path | None = None,
    storage_driver: str | None = None,
    storage_opts: Sequence[str] = (),
) -> Store:
    """Open the store in `data_root`, and make it if there is none.

    What is not given comes from `config`, a daemon.json or one that was read already; by default
    /etc/layerstore/daemon.json, where there is one. Raises `ConfigError`, `DriverMismatch`, `DriverNotSupported`.
    """
    if not isinstance(config, Config):
        config = configuration.load(None if config is None else Path(config))
    return Store(
        configuration.with_overrides(
            config,
            data_root=configuration.root_of(data_root),
            storage_driver=storage_driver,
            storage_opts=storage_opts,
        )
    )


def migrate_store(
    to: str,
    data_root: str | Path | None = None,
    *,
    config: Config | str | Path | None = None,
    storage_opts: Sequence[str] = (),
    progress: Progress | None = None,
) -> Migrated:
    """Convert the store in `data_root` to the driver `to`, in place: images, containers and what was written in them.

    Nobody else may have it open, and nothing of it may be mounted: `InUse`. What is not given comes from `config`, as
    with `open`; its storage-driver does not matter, and its storage-opts count for the driver that they are of.

    It can be killed, and goes on when it is called again; until its end the store is the old one, whole. Called with
    the driver that the store has, it gives up a migration that was not finished. Raises `DriverNotFound`,
    `DriverNotSupported`, `Damaged` (a layer that is not what it was), `DepthExceeded`, `ConfigError`.
    """
    if not isinstance(config, Config):
        config = configuration.load(None if config is None else Path(config))
    config = configuration.with_overrides(config, data_root=configuration.root_of(data_root), storage_opts=storage_opts)
    mine = tuple(opt for opt in config.storage_opts if configuration.owner_of(opt) == to)
    others = tuple(opt for opt in config.storage_opts if configuration.owner_of(opt) != to)
    if not (config.data_root / "layerstore.db").exists():
        raise NotFound(f"there is no store in {config.data_root}", remedy="Name its data-root.")
    old = evolve(config, storage_driver=None, storage_opts=others)
    new = evolve(config, storage_driver=to, storage_opts=mine)
    with Store(old) as store:
        done = store._migrate(new, progress)
    if done.given_up is not None:
        return done
    with Store(new) as store:  # which removes the former home, as any open would now
        if migration.former_of(store._facts() or {}) is not None:
            notice = f"the home of {done.origin} could not be removed yet: the next command tries again"
            done = evolve(done, notices=(*done.notices, notice))
    return done


class Store:
    """An open store. A context manager; any number of threads may use it, and any number of processes open it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data_root = config.data_root
        self._lock = threading.Lock()
        self._driver: StorageDriver | None = None
        choice = self._choose() if self._is_new() else None
        _make_folders(self.data_root)
        with ExitStack() as undo:
            self._reserve = Reserve(self.data_root / "reserve")
            self._is_read_only = self._cannot_be_written()
            if self._is_read_only:
                self._open_to_read(undo)
            else:
                self._open_to_write(undo)
            facts = self._facts() or self._found(choice or self._choose())
            self.id, self.driver_name, self._entry = facts["id"], facts["driver"], facts["entry"]
            if config.storage_opts or config.storage_driver not in (None, self.driver_name):
                self._check_config()
            self.layers = Layers(
                self._database,
                self._locks,
                self._session,
                self.data_root / "skeletons",
                self._open_driver,
            )
            self._images = Images(self.layers, config.exec_root)
            self._containers = Containers(self._images)
            if not self._is_read_only:
                if facts.get("boot") != boot_id() or "former" in facts or self._has_dead():
                    self._recover()
                self._reserve.make()
            undo.pop_all()

    # --- images in and out ---

    def load(
        self,
        source: str | Path | BinaryIO,
        *,
        only: Sequence[str] = (),
        names: Sequence[str] = (),
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> list[Loaded]:
        """Load the images of an archive: docker-archive or OCI layout; a tar, a folder, a stream, or "-".

        "-" is standard input. Each image that is returned says which names the archive gave it (`names`), and which of
        them were taken from another image (`taken`); an archive that names none leaves the tags as they are.

        `only`: load these images of the archive, given by a name, an ID, or the beginning of one; one that is given by
        a name comes under that name alone. `names`: call the image so, and not as the archive does; there must be one
        image then, or `only` must choose one. `platform` (`linux/arm64`) chooses where an image is there for several.

        Raises `InvalidArchive`, `NotFound` and `Ambiguous`, and leaves the store as it was.
        """
        from layerstore import transfer

        return transfer.load(
            source,
            images=self._images,
            layers=self.layers,
            only=only,
            names=names,
            platform=platform,
            progress=progress,
        )

    def save(
        self,
        images: Image | str | Sequence[Image | str],
        target: str | Path | BinaryIO,
        *,
        format: str = "docker-archive",
        folder: bool | None = None,
        compression: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Save images to an archive, each layer bit for bit as it came in.

        An image that is given by a name is saved under that name, else under all it has.
        """
        from layerstore import transfer

        wanted = [images] if isinstance(images, Image | str) else list(images)
        chosen: dict[str, Image] = {}
        names: dict[str, list[str]] = {}
        for ref in wanted:
            image, tag = self._images.find(ref if isinstance(ref, str) else ref.id)
            chosen[image.id] = image
            given = [tag] if tag is not None else [reference.normalise(name) for name in image.tags]
            names.setdefault(image.id, []).extend(name for name in given if name not in names.get(image.id, ()))
        with self._images.lease(list(chosen.values())):
            transfer.save(
                list(chosen.values()),
                [names[image] for image in chosen],
                target,
                layers=self.layers,
                format=format,
                folder=folder,
                compression=compression,
                progress=progress,
            )

    def import_tar(
        self,
        source: str | Path | BinaryIO,
        reference: str | None = None,
        *,
        message: str = "",
        changes: Sequence[str] = (),
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer from the tar of a root filesystem; "-" is standard input.

        `changes` are Dockerfile instructions (`CMD`, `ENV`, ...) for its configuration.
        """
        from layerstore.transfer.compression import open_stream

        run_config = instructions.apply(None, changes)
        chosen = None if platform is None else platforms.parse(platform)
        label = source if isinstance(source, str | Path) else getattr(source, "name", "-")
        with _opened(source) as raw, open_stream(raw) as stream:
            staged = self.layers.stage(stream, label=str(label), progress=progress)
        try:
            made = image_config.derive(
                None,
                new_layer=staged.diff_id,
                run_config=run_config,
                created=image_config.now(),
                comment=message or f"Imported from {label}",
                platform=chosen,
            )
            names = [] if reference is None else [reference]
            return self._images.add_staged(made, {staged.diff_id: staged}, names, trust=True)
        finally:
            self.layers.discard(staged)

    # --- images and containers ---

    def image(self, ref: str) -> Image:
        """The image of a name, an ID or the beginning of one. Raises `NotFound`, `Ambiguous`."""
        return self._images.get(ref)

    def images(self) -> list[Image]:
        """All images, the newest first."""
        return self._images.all()

    def tag(self, ref: str, name: str) -> None:
        """Give an image one more name; an image that has it loses it."""
        self._images.tag(ref, name)

    def remove_image(self, ref: str, *, force: bool = False) -> list[Removal]:
        """Remove an image, or one of its several names. Raises `InUse`, which says by whom and how to free it."""
        return self._images.remove(ref, force=force)

    def container(self, ref: str) -> Container:
        """The container of a name, an ID or the beginning of one. Raises `NotFound`, `Ambiguous`."""
        return self._containers.get(ref)

    def containers(self) -> list[Container]:
        """All containers, the newest first."""
        return self._containers.all()

    def create_container(
        self, image: Image | str | None = None, *, name: str | None = None, size: int | str | None = None
    ) -> Container:
        """Make a container on an image, or on nothing. `size` limits what can be written in it."""
        return self._containers.create(image, name=name, size=size)

    def mounted(self) -> list[tuple[Container, Path]]:
        """The containers that are mounted, and where."""
        return self._containers.mounted()

    # --- the whole ---

    def check(self, *, content: bool = False, progress: Told | None = None) -> list[Problem]:
        """What is missing, damaged or too much. `content`: read every byte of every layer too."""
        return list(self.check_iter(content=content, progress=progress))

    def check_iter(self, *, content: bool = False, progress: Told | None = None) -> Iterator[Problem]:
        """`check`, one by one as they are found."""
        return problems(self.layers, self._containers.with_files, content=content, progress=progress)

    def prune(
        self,
        *,
        all_images: bool = False,
        containers: bool = False,
        images: bool = True,
        fits: Callable[[Image | Container], bool] | None = None,
    ) -> Pruned:
        """Remove images without a name, and layers that nothing needs.

        `containers`: every container that is not mounted, too. `all_images`: every image that no container needs.
        `images`: False spares all images. `fits`: only those images and containers of which this is true.
        """
        before = self.layers.total_size()
        gone = self._containers.prune(fits) if containers else []
        chosen = None if fits is None else {image.id for image in self._images.all() if fits(image)}
        removals = self._images.prune(even_tagged=all_images, among=chosen) if images else []
        layers = [ChainID(done.what) for done in removals if done.kind == "Deleted" and done.is_layer]
        layers += self.layers.prune()
        garbage.sweep(self.layers)
        reclaimed = max(before - self.layers.total_size(), 0)
        return Pruned(tuple(gone), tuple(removals), tuple(layers), reclaimed)

    def disk_usage(self, *, on_disk: bool = False) -> DiskUsage:
        """What takes the room: images with what they share, containers, layers.

        `on_disk`: what the files of each layer occupy, too; with most drivers each of them is looked at for that.
        """
        from layerstore import usage

        return usage.disk_usage(self._images, self._containers, on_disk=on_disk)

    def info(self) -> Info:
        """What there is, how it is kept, and on what kind of host."""
        from layerstore import __version__

        host = os.uname()
        with self._database.read() as tx:
            counts = [
                int(tx.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
                for table in ("containers", "images", "layers")
            ]
            mounted = self._containers.count_mounted(tx)
        facts = self._facts() or {}
        return Info(
            id=self.id,
            version=__version__,
            containers=counts[0],
            mounted=mounted,
            images=counts[1],
            layers=counts[2],
            driver=self.driver_name,
            driver_status=self._driver_status(),
            refusals=tuple((name, reason) for name, reason in json.loads(facts.get("refusals", "[]"))),
            broken=tuple((driver.name, driver.reason) for driver in plugins.broken()),
            migration=migration.target_of(facts),
            former=migration.former_of(facts),
            data_root=self.data_root,
            exec_root=self.config.exec_root,
            kernel=host.release,
            operating_system=_operating_system(),
            os="linux",
            architecture=host.machine,
            cpus=os.cpu_count() or 1,
            memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            name=host.nodename,
        )

    def _driver_status(self) -> tuple[tuple[str, str], ...]:
        try:
            return tuple(self.layers.driver.status())
        except LayerstoreError as error:
            return (("Problem", error.message),)  # on a full disk, say: the rest can be told

    def close(self) -> None:
        """Let go of the mounts of this process, wait for what is being deleted, and close the database."""
        if self._session.closed:
            return
        with ExitStack() as parts:
            parts.callback(self._use.release)
            if not self._is_read_only:
                parts.callback(self._reserve.make)
            parts.callback(self._database.close)
            parts.callback(self._session.close)
            if self._driver is not None:
                parts.callback(self._driver.close)
            for mounted in list(self._containers.held):
                parts.callback(self._let_go, mounted)

    def _let_go(self, mounted: Mounted) -> None:
        try:
            mounted.unmount()
        except KernelError:
            self.layers.note_garbage()  # somebody is in it: the next `open` looks again
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- opening ---

    def _cannot_be_written(self) -> bool:
        return bool(os.statvfs(self.data_root).f_flag & os.ST_RDONLY)

    def _open_to_write(self, undo: ExitStack) -> None:
        self._locks = Locks(self.data_root / "locks")
        self._use = self._shared_use(self._locks)
        undo.callback(lambda: self._use.release())  # by then it may be another one
        self._database = Database(self.data_root / "layerstore.db", reserve=self._reserve, alone=self._alone)
        undo.callback(self._database.close)
        self._session = Session(self.data_root / "staging", self._reserve)
        undo.callback(self._session.close)

    def _open_to_read(self, undo: ExitStack) -> None:
        """Where nothing can be written: with a copy of the database, and all that is made meanwhile, in the exec-root.

        What others have mounted or left behind is their business: nothing is recovered.
        """
        self._use = Locks(self.data_root / "locks").of_reader(USE)
        if not self._use.__enter__():
            raise self._being_migrated()
        undo.callback(self._use.release)
        staging = self.config.exec_root / "read-only"
        with named("mkdir", staging):
            staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        with session.dead(staging) as names:
            session.remove(staging, names)
        self._session = Session(staging)
        undo.callback(self._session.close)
        self._locks = Locks(self._session.folder / "locks")
        self._database = ReadOnlyDatabase(self.data_root / "layerstore.db", self._session.folder)
        undo.callback(self._database.close)

    def _facts(self) -> dict[str, str] | None:
        """What the store remembers of itself; None if it is new."""
        with self._database.read() as tx:
            facts = dict(tx.execute("SELECT key, value FROM meta").fetchall())
        return facts or None

    def _is_new(self) -> bool:
        return not os.path.lexists(self.data_root / "layerstore.db")

    def _choose(self) -> plugins.Choice:
        """Choose the driver of a new store. A refusal leaves nothing behind."""
        with named("mkdir", self.data_root):
            made = [folder for folder in (self.data_root, *self.data_root.parents) if not folder.exists()]
            self.data_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            choice = plugins.choose(self.config, self._home, None)
            self._require_free_home(choice.driver.name)
        except BaseException:
            with suppress(OSError):  # another process has put something there
                for folder in made:
                    folder.rmdir()
            raise
        return choice

    def _require_free_home(self, driver: str) -> None:
        """Raise `ConfigError` if a new store's home belongs to another program, as docker's does."""
        found = migration.first_in(self._home(driver))
        # A store that was founded this moment by another process has its home already.
        if found is not None and self._is_new():
            raise ConfigError(
                f"{self._home(driver)} is not empty (it holds {found}), and {self.data_root} is no store of layerstore",
                remedy="Choose another data-root: what another program keeps there is never taken over.",
                path=self._home(driver),
            )

    def _found(self, choice: plugins.Choice) -> dict[str, str]:
        """Found the store: write down its driver, and why it is no other."""
        facts = {
            "id": os.urandom(16).hex(),
            "driver": choice.driver.name,
            "entry": plugins.entry_of(choice.driver),
            "refusals": json.dumps([(refusal.name, refusal.reason) for refusal in choice.refusals]),
        }
        with self._database.write() as tx:
            # Another process may have been faster: then its choice stands.
            if tx.execute("SELECT 1 FROM meta").fetchone() is None:
                tx.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", facts.items())
            return dict(tx.execute("SELECT key, value FROM meta").fetchall())

    def _shared_use(self, locks: Locks) -> Held:
        """Take part in the store. Raises `InUse` while it is being converted."""
        deadline = time.monotonic() + PATIENCE
        while True:
            held = locks.at_once(USE, shared=True)
            if held.__enter__():
                return held
            held.release()
            if time.monotonic() > deadline:
                raise self._being_migrated()
            time.sleep(0.02)

    def _being_migrated(self) -> InUse:
        facts: dict[str, str] = {}
        if not self._is_read_only:
            database = Database(self.data_root / "layerstore.db")
            try:
                with database.read() as tx:
                    facts = dict(tx.execute("SELECT key, value FROM meta").fetchall())
            finally:
                database.close()
        to, process = migration.target_of(facts), migration.process_of(facts)
        who = "another process" if process is None else f"process {process}"
        return InUse(
            f"the store in {self.data_root} is being converted{f' to {to}' if to else ''} by {who}",
            holders=[who],
            remedy="Wait until it has ended. Killed, it leaves the store as it was.",
        )

    # --- becoming one of another driver ---

    def _migrate(self, config: Config, progress: Progress | None) -> Migrated:
        """`migrate_store`, of this store, which nobody else has open by then."""
        assert config.storage_driver is not None
        self._database.require_writable()
        self._require_alone()
        self._sweep_trials()
        parts = migration.Parts(self.data_root, self.layers, self._containers)
        if config.storage_driver == self.driver_name:
            return migration.give_up(parts)
        choice = plugins.choose(config, self._home, None)
        return Migration(parts, self._entry, choice, progress).run()

    @contextmanager
    def _alone(self, is_wanted: Callable[[], bool]) -> Iterator[None]:
        """While inside, nobody else has the store open, unless it is not wanted any more.

        For its tables are brought from an earlier version to this one, which those do not know that have it open.
        """
        self._use.release()
        deadline = time.monotonic() + PATIENCE
        while not (held := self._locks.at_once(USE)).__enter__():
            held.release()
            if not is_wanted():
                held = self._shared_use(self._locks)
                break
            if time.monotonic() > deadline:
                others = [
                    f"process {number}" for number in processes_with(self.data_root / "locks") if number != os.getpid()
                ]
                raise InUse(
                    f"the store in {self.data_root} was made by an earlier version and is open: by {', '.join(others)}",
                    holders=others,
                    remedy="It is converted when nobody else has it open: end them first.",
                )
            time.sleep(0.02)
        self._use = held
        yield
        held.share(USE)

    def _require_alone(self) -> None:
        for _ in range(20):  # a process that is just being started has for a moment what its parent has open
            if self._use.upgrade(USE):
                return
            time.sleep(0.01)
        others = [f"process {number}" for number in processes_with(self.data_root / "locks") if number != os.getpid()]
        who = ", ".join(others) or "this process itself"
        raise InUse(
            f"the store in {self.data_root} is open: by {who}",
            holders=others,
            remedy="A migration needs it alone: end them first.",
        )

    def _check_config(self) -> None:
        """Does the configuration fit this store? Raises `DriverMismatch`, `ConfigError`."""
        if self.config.storage_driver not in (None, self.driver_name):
            plugins.choose(self.config, self._home, self._entry)
        configuration.driver_options(self.config, self.driver_name, plugins.load(self._entry).options)

    def _home(self, driver: str) -> Path:
        return self.data_root / driver

    def _open_driver(self) -> StorageDriver:
        with self._lock:
            if self._driver is None:
                kind = plugins.load(self._entry)
                options: object = configuration.driver_options(self.config, kind.name, kind.options)
                home = self._home(kind.name)
                with named("mkdir", home):
                    home.mkdir(mode=0o700, exist_ok=True)
                self._driver = kind(home, self._session.folder, options)
            return self._driver

    # --- recovery ---

    def _has_dead(self) -> bool:
        """Did a process die, or end without being able to give everything back?"""
        staging = self._session.staging
        with session.dead(staging) as names:
            if names:
                return True
        with self._database.read() as tx:
            return any(layer_rows.dead_owners(tx, staging, table) for table in ("leases", "holds"))

    def _recover(self) -> None:
        """Put in order what dead processes and former boots left. Others may do the same at the same time."""
        with session.dead(self._session.staging) as dead:
            self._containers.recover()
            self._images.recover()
            self.layers.recover()
            garbage.sweep(self.layers)
            self._sweep_trials()
            session.remove(self._session.staging, dead)
        with suppress(LayerstoreError):  # it is tried again by the next `open`, and `info` tells of it
            migration.remove_former(self.layers, self.data_root)
        with self._database.write(durable=False) as tx:
            tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('boot', ?)", (boot_id(),))

    def _sweep_trials(self) -> None:
        """Remove what was left by those who died while they tried what works here."""
        for folder in (self.data_root, self._home(self.driver_name)):
            trial.sweep(folder)


def _make_folders(data_root: Path) -> None:
    """Make what a data-root consists of. Its parts are for its owner alone."""
    with named("mkdir", data_root):
        if (data_root / "staging").is_dir():
            return
        data_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for name in ("skeletons", "staging"):
            (data_root / name).mkdir(mode=0o700, exist_ok=True)


@contextmanager
def _opened(source: str | Path | BinaryIO) -> Iterator[FileIO | BinaryIO]:
    from layerstore.transfer.standard import STANDARD, standard_input

    if isinstance(source, str | Path) and str(source) == STANDARD:
        with named("read", "standard input"):
            yield standard_input()
    elif isinstance(source, str | Path):
        with named("open", source):
            file = FileIO(source)
        with file:
            yield file
    else:
        yield source


def _operating_system() -> str:
    try:
        text = Path("/etc/os-release").read_text(errors="replace")
    except OSError:
        return "Linux"
    pairs = dict(line.partition("=")[::2] for line in text.splitlines())
    return pairs.get("PRETTY_NAME", "Linux").strip("\"'")
