"""Opening a store: it is founded if there is none, its driver is chosen, and what the dead left is put in order.

Opening is cheap: two folders are looked at and one database is opened. The driver, this process's staging folder and
everything that writes come into being when they are first needed. What a dead process or a power cut left behind is
put in order before anything else happens. Whoever has a store open shares one lock, which a migration wants for itself.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from layerstore import config as configuration
from layerstore import facts, homes, plugins, rootless, session
from layerstore.blobs import Blobs
from layerstore.blobs.partials import make_room
from layerstore.config import Config
from layerstore.containers import Containers
from layerstore.database import Database, ReadOnlyDatabase
from layerstore.driver import StorageDriver
from layerstore.errors import ConfigError, Damaged, InUse, LayerstoreError, named
from layerstore.images import Images
from layerstore.kernel.files.reserve import Reserve
from layerstore.kernel.mounts import boot_id, processes_with
from layerstore.layers import Layers, Storage, garbage
from layerstore.layers import rows as layer_rows
from layerstore.locks import USE, Held, Locks
from layerstore.records import STORE, Mirror, Records
from layerstore.session import Session
from layerstore.values import frozen

__all__ = ["PATIENCE", "Parts", "Use", "open_parts", "sweep_trials"]

PATIENCE = 2.0
"""Seconds for which an open waits for a migration to end."""


@frozen
class Parts:
    """An open store: what it consists of.

    `use` is the lock of all who have it open, `known` what it remembers. One that can only be read has no `reserve`.
    """

    config: Config
    use: Use
    locks: Locks
    reserve: Reserve | None
    database: Database
    mirror: Mirror
    session: Session
    storage: Storage
    layers: Layers
    blobs: Blobs
    images: Images
    containers: Containers
    known: Mapping[str, str]

    @property
    def home(self) -> Path:
        """The folder of the store's driver."""
        return self.config.data_root / self.known["driver"]


def open_parts(config: Config) -> Parts:
    """Open the store of a configuration. Raises `ConfigError`, `DriverMismatch`, `DriverNotSupported`, `InUse`."""
    data_root = config.data_root
    is_new = _is_new(data_root)
    if is_new:
        _require_unused(data_root, "gone", lambda: not _is_new(data_root))
    rootless.check_ids(data_root, is_new=is_new)
    choice = _choose(config) if is_new else None
    if is_new:
        rootless.note_ids(data_root)
    _make_folders(data_root)
    with ExitStack() as undo:
        if os.statvfs(data_root).f_flag & os.ST_RDONLY:
            ground = _ground_to_read(config, undo)
        else:
            ground = _ground(data_root, undo)
        locks, database, own = ground.locks, ground.database, ground.session
        known = facts.read(database)
        if not known:
            _require_unused(data_root, "empty", lambda: bool(facts.read(database)))
            known = facts.read(database) or _found(database, choice or _choose(config))
        _require_own(data_root, known, Records(data_root / "records"))
        if config.storage_opts or config.storage_driver not in (None, known["driver"]):
            _check_config(config, known)
        storage = Storage(
            _Opener(config, own, known["entry"]),
            own,
            data_root / "skeletons",
            lambda: facts.ask_for_recovery(database),
        )
        undo.callback(storage.close)
        layers = Layers(database, locks, own, storage, config.limits)
        mirror = Mirror(database, locks, data_root / "records")
        if ground.reserve is not None:
            database.mirror = mirror
        blobs = Blobs(data_root, database, locks, layers, is_writable=ground.reserve is not None)
        images = Images(database, own, storage, layers, config.exec_root)
        images.after_removal = blobs.collect
        containers = Containers(database, locks, own, storage, layers, images, data_root / "volumes")
        parts = Parts(
            config,
            ground.use,
            locks,
            ground.reserve,
            database,
            mirror,
            own,
            storage,
            layers,
            blobs,
            images,
            containers,
            known,
        )
        if parts.reserve is not None:
            if known.get("boot") != boot_id() or facts.former_of(known) is not None or _has_dead(parts):
                _recover(parts)
            blobs.sweep_partials()
            parts.reserve.make()
        undo.pop_all()
    return parts


@frozen
class _Ground:
    """What a store is opened on. `undo` of whoever makes it gives all of it back."""

    use: Use
    locks: Locks
    reserve: Reserve | None
    database: Database
    session: Session


def _ground(data_root: Path, undo: ExitStack) -> _Ground:
    locks = Locks(data_root / "locks")
    use = Use(data_root, locks)
    undo.callback(use.release)
    reserve = Reserve(data_root / "reserve", before=partial(make_room, data_root / "partial"))
    database = Database(data_root / "layerstore.db", reserve=reserve, alone=use.alone)
    undo.callback(database.close)
    own = Session(data_root / "staging", reserve)
    undo.callback(own.close)
    return _Ground(use, locks, reserve, database, own)


def _ground_to_read(config: Config, undo: ExitStack) -> _Ground:
    """Where nothing can be written: with a copy of the database, and all that is made meanwhile, in the exec-root.

    What others have mounted or left behind is their business: nothing is recovered.
    """
    data_root, staging = config.data_root, config.exec_root / "read-only"
    use = Use(data_root, Locks(data_root / "locks"), reads=True)
    undo.callback(use.release)
    with named("mkdir", staging):
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    with session.dead(staging) as names:
        session.remove(staging, names)
    own = Session(staging)
    undo.callback(own.close)
    database = ReadOnlyDatabase(data_root / "layerstore.db", own.folder)
    undo.callback(database.close)
    return _Ground(use, Locks(own.folder / "locks"), None, database, own)


# --- founding


def _is_new(data_root: Path) -> bool:
    return not os.path.lexists(data_root / "layerstore.db")


def _choose(config: Config) -> plugins.Choice:
    """Choose the driver of a new store. A refusal leaves nothing behind."""
    data_root = config.data_root
    with named("mkdir", data_root):
        made = [folder for folder in (data_root, *data_root.parents) if not folder.exists()]
        data_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        if made:
            data_root.chmod(0o711)  # whatever the umask
    try:
        choice = plugins.choose(config, data_root.joinpath, None)
        _require_free_home(data_root, choice.driver.name)
    except BaseException:
        with suppress(OSError):  # another process has put something there
            for folder in made:
                folder.rmdir()
        raise
    return choice


def _require_free_home(data_root: Path, driver: str) -> None:
    """Raise `ConfigError` if a new store's home belongs to another program, as docker's does."""
    home = data_root / driver
    found = homes.first_in(home)
    # A store that was founded this moment by another process has its home already.
    if found is not None and _is_new(data_root):
        raise ConfigError(
            f"{home} is not empty (it holds {found}), and {data_root} is no store of layerstore",
            remedy="Choose another data-root: what another program keeps there is never taken over.",
            path=home,
        )


def _make_folders(data_root: Path) -> None:
    """Make what a data-root consists of. Its parts are for its owner alone."""
    with named("mkdir", data_root):
        if (data_root / "staging").is_dir():
            return
        data_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for name in ("skeletons", "staging"):
            (data_root / name).mkdir(mode=0o700, exist_ok=True)


def _found(database: Database, choice: plugins.Choice) -> dict[str, str]:
    """Found the store: write down its driver, and why it is no other."""
    known = {
        "id": os.urandom(16).hex(),
        "driver": choice.driver.name,
        "entry": plugins.entry_of(choice.driver),
        "refusals": json.dumps([(refusal.name, refusal.reason) for refusal in choice.refusals]),
    }
    with database.write() as tx:
        return facts.found(tx, known)  # another process may have been faster: then its choice stands


def _require_unused(data_root: Path, what: str, is_founded: Callable[[], bool]) -> None:
    """Raise `Damaged` where there are layers without their database: all of them would be nobody's.

    `is_founded`: another process may have founded the store this moment.
    """
    if homes.first_in(data_root / "skeletons") is None and homes.first_in(data_root / "records") is None:
        return
    if not is_founded():
        raise Damaged(
            f"the database {data_root}/layerstore.db is {what}, and there are layers beside it",
            remedy=f"`layerstore --root {data_root} rescue` makes it anew of what lies there.",
            path=data_root / "layerstore.db",
        )


def _require_own(data_root: Path, known: Mapping[str, str], records: Records) -> None:
    """Raise `Damaged` for the database of another store: all that lies here would be nobody's."""
    try:
        record = records.read(*STORE)
    except Damaged:
        return  # which `check` tells
    written = {} if record is None else record["facts"]
    if isinstance(written, dict) and written.get("id", known["id"]) != known["id"]:
        raise Damaged(
            f"{data_root}/layerstore.db is the database of another store: of {known['id']}, not of {written['id']}",
            remedy=f"Put its own back, or `layerstore --root {data_root} rescue` makes it anew.",
            path=data_root / "layerstore.db",
        )


# --- taking part


class Use:
    """The lock of all who have a store open, shared; held alone for as long as that is needed.

    Raises `InUse` while the store is being converted. `reads`: by one who can open the file of locks to read only.
    """

    def __init__(self, data_root: Path, locks: Locks, *, reads: bool = False) -> None:
        self._data_root = data_root
        self._locks = locks
        self._held = self._readers() if reads else self._shared()

    def _readers(self) -> Held:
        held = self._locks.of_reader(USE)
        if not held.__enter__():
            raise _being_migrated(self._data_root, {})
        return held

    def _shared(self) -> Held:
        deadline = time.monotonic() + PATIENCE
        while True:
            held = self._locks.at_once(USE, shared=True)
            if held.__enter__():
                return held
            held.release()
            if time.monotonic() > deadline:
                raise _being_migrated(self._data_root, _known_to(self._data_root))
            time.sleep(0.02)

    @contextmanager
    def alone(self, is_wanted: Callable[[], bool]) -> Iterator[None]:
        """While inside, nobody else has the store open, unless it is not wanted any more.

        For its tables are brought from an earlier version to this one, which those do not know that have it open.
        """
        self._held.release()
        deadline = time.monotonic() + PATIENCE
        while not (held := self._locks.at_once(USE)).__enter__():
            held.release()
            if not is_wanted():
                held = self._shared()
                break
            if time.monotonic() > deadline:
                others = self._others()
                raise InUse(
                    f"the store in {self._data_root} was made by an earlier version and is open: "
                    f"by {', '.join(others)}",
                    holders=others,
                    remedy="It is converted when nobody else has it open: end them first.",
                )
            time.sleep(0.02)
        self._held = held
        yield
        held.share(USE)

    def require_alone(self) -> None:
        """Have the store for oneself from here on. Raises `InUse` if another process has it open."""
        for _ in range(20):  # a process that is just being started has for a moment what its parent has open
            if self._held.upgrade(USE):
                return
            time.sleep(0.01)
        others = self._others()
        who = ", ".join(others) or "this process itself"
        raise InUse(
            f"the store in {self._data_root} is open: by {who}",
            holders=others,
            remedy="A migration needs it alone: end them first.",
        )

    def release(self) -> None:
        """Have the store open no more."""
        self._held.release()

    def _others(self) -> list[str]:
        numbers = processes_with(self._data_root / "locks")
        return [f"process {number}" for number in numbers if number != os.getpid()]


def _known_to(data_root: Path) -> dict[str, str]:
    database = Database(data_root / "layerstore.db")
    try:
        return facts.read(database)
    finally:
        database.close()


def _being_migrated(data_root: Path, known: Mapping[str, str]) -> InUse:
    to, process = facts.target_of(known), facts.process_of(known)
    who = "another process" if process is None else f"process {process}"
    return InUse(
        f"the store in {data_root} is being converted{f' to {to}' if to else ''} by {who}",
        holders=[who],
        remedy="Wait until it has ended. Killed, it leaves the store as it was.",
    )


# --- the driver


def _check_config(config: Config, known: Mapping[str, str]) -> None:
    """Does the configuration fit this store? Raises `DriverMismatch`, `ConfigError`."""
    if config.storage_driver not in (None, known["driver"]):
        plugins.choose(config, config.data_root.joinpath, known["entry"])
    configuration.driver_options(config, known["driver"], plugins.load(known["entry"]).options)


class _Opener:
    """Makes the store's driver, once, whatever thread asks first."""

    def __init__(self, config: Config, own: Session, entry: str) -> None:
        self._config = config
        self._session = own
        self._entry = entry
        self._lock = threading.Lock()
        self._driver: StorageDriver | None = None

    def __call__(self) -> StorageDriver:
        with self._lock:
            if self._driver is None:
                kind = plugins.load(self._entry)
                options: object = configuration.driver_options(self._config, kind.name, kind.options)
                home = self._config.data_root / kind.name
                with named("mkdir", home):
                    home.mkdir(mode=0o700, exist_ok=True)
                self._driver = kind(home, self._session.folder, options)
            return self._driver


# --- recovery


def _has_dead(parts: Parts) -> bool:
    """Did a process die, or end without being able to give everything back?"""
    staging = parts.session.staging
    with session.dead(staging) as names:
        if names:
            return True
    with parts.database.read() as tx:
        return any(layer_rows.dead_owners(tx, staging, table) for table in ("leases", "holds"))


def _recover(parts: Parts) -> None:
    """Put in order what dead processes and former boots left. Others may do the same at the same time.

    What cannot be removed stops nobody: `check` tells of it, and the next `open` tries again.
    """
    staging = parts.session.staging
    with session.dead(staging) as dead:
        parts.containers.recover()
        parts.images.recover()
        parts.layers.recover()
        try:
            parts.mirror.put_in_step()
            parts.layers.complete_records()
            garbage.sweep(parts.layers, staging)
            parts.blobs.recover()
            if (parts.config.data_root / "volumes").is_dir():
                parts.containers.volumes.recover()
            is_swept = True
        except LayerstoreError:
            is_swept = False
        sweep_trials(parts)
        session.remove(staging, dead)
    with suppress(LayerstoreError):  # it is tried again by the next `open`, and `info` tells of it
        homes.remove_former(parts.config.data_root, parts.database, parts.locks, parts.session, parts.layers)
    if is_swept:
        with parts.database.write(durable=False) as tx:
            facts.put(tx, {"boot": boot_id()})


def sweep_trials(parts: Parts) -> None:
    """Remove what was left by those who died while they tried what works here."""
    from layerstore.kernel.mounts import trial

    for folder in (parts.config.data_root, parts.home):
        trial.sweep(folder)
