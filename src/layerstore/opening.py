"""Opening a store: it is founded if there is none, its driver is chosen, and what the dead left is put in order.

Opening is cheap: two folders are looked at and one database is opened. The driver, this process's staging folder and
everything that writes come into being when they are first needed. What a dead process or a power cut left behind is
put in order before anything else happens. Whoever has a store open shares one lock, which a migration wants for itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import config as configuration
from layerstore import facts, rootless, session
from layerstore.config import Config
from layerstore.database import Database, ReadOnlyDatabase
from layerstore.errors import ConfigError, Damaged, KernelError, NotFound, named
from layerstore.kernel.files import first_in
from layerstore.kernel.files.reserve import Reserve
from layerstore.kernel.mounts import boot_id
from layerstore.layers.orphans import is_orphaned
from layerstore.locks import Locks
from layerstore.parts import Ground, Parts, StoreUse
from layerstore.records import STORE, Records
from layerstore.session import Session

if TYPE_CHECKING:
    from layerstore.plugins import Choice

__all__ = ["open_parts", "require_store"]


def open_parts(config: Config, store: object) -> Parts:
    """Open the store of a configuration, for `store`, whose parts they are.

    Raises `ConfigError`, `DriverMismatch`, `DriverNotSupported`, `InUse`.
    """
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
        database, records = ground.database, Records(data_root / "records")
        reached = records.commits()  # before the facts: others go on
        known = facts.read(database)
        if not known:
            _require_unused(data_root, "empty", lambda: bool(facts.read(database)))
            known = facts.read(database) or _found(database, choice or _choose(config))
        _require_own(data_root, known, records)
        if ground.reserve is not None:
            _require_latest(data_root, known, reached)
        if config.storage_opts or config.storage_driver not in (None, known["driver"]):
            _check_config(config, known)
        parts = Parts(config, ground, known, store)
        undo.callback(_close_driver, parts)
        if ground.reserve is not None:
            database.mirror = parts.mirror
        if parts.reserve is not None:
            if (
                known.get("boot") != boot_id()
                or facts.former_of(known) is not None
                or _has_dead(parts)
                or is_orphaned(parts.home)
            ):
                from layerstore.recovery import recover

                recover(parts)
            if first_in(data_root / "partial") is not None:
                parts.blobs.sweep_partials()
            parts.reserve.make()
        undo.pop_all()
    return parts


def require_store(data_root: Path) -> None:
    """Raise `NotFound` where there is none, `Damaged` where there was one."""
    if _is_new(data_root):
        _require_unused(data_root, "gone", lambda: not _is_new(data_root))
        if _is_new(data_root):
            raise NotFound(f"there is no store in {data_root}", remedy="Name its data-root.")


def _close_driver(parts: Parts) -> None:
    if parts.made("storage"):
        parts.storage.close()


def _ground(data_root: Path, undo: ExitStack) -> Ground:
    locks = Locks(data_root / "locks")
    use = StoreUse(data_root, locks)
    undo.callback(use.release)
    reserve = Reserve(data_root / "reserve", before=partial(_make_room, data_root / "partial"))
    database = Database(data_root / "layerstore.db", reserve=reserve, alone=use.alone)
    undo.callback(database.close)
    own = Session(data_root / "staging", reserve)
    undo.callback(own.close)
    return Ground(use, locks, reserve, database, own)


def _make_room(partials: Path) -> bool:
    from layerstore.blobs.partials import make_room

    return make_room(partials)


def _ground_to_read(config: Config, undo: ExitStack) -> Ground:
    """Where nothing can be written: with a copy of the database, and all that is made meanwhile, in the exec-root.

    What others have mounted or left behind is their business: nothing is recovered.
    """
    data_root, staging = config.data_root, config.exec_root / "read-only"
    use = StoreUse(data_root, Locks(data_root / "locks"), reads=True)
    undo.callback(use.release)
    with named("mkdir", staging):
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    with session.dead(staging) as names:
        session.remove(staging, names)
    own = Session(staging)
    undo.callback(own.close)
    database = ReadOnlyDatabase(data_root / "layerstore.db", own.folder)
    undo.callback(database.close)
    return Ground(use, Locks(own.folder / "locks"), None, database, own)


# --- founding


def _is_new(data_root: Path) -> bool:
    return not os.path.lexists(data_root / "layerstore.db")


def _choose(config: Config) -> Choice:
    """Choose the driver of a new store. A refusal leaves nothing behind."""
    from layerstore import plugins

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
    found = first_in(home)
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


def _found(database: Database, choice: Choice) -> dict[str, str]:
    """Found the store: write down its driver, and why it is no other."""
    from layerstore import plugins

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
    if first_in(data_root / "skeletons") is None and first_in(data_root / "records") is None:
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
        if records.has(*STORE, known["id"]):
            return
        record = records.read(*STORE)
    except (Damaged, KernelError):
        return  # which `check` tells
    written = {} if record is None else record["facts"]
    if isinstance(written, dict) and written.get("id", known["id"]) != known["id"]:
        raise Damaged(
            f"{data_root}/layerstore.db is the database of another store: of {known['id']}, not of {written['id']}",
            remedy=f"Put its own back, or `layerstore --root {data_root} rescue` makes it anew.",
            path=data_root / "layerstore.db",
        )


def _require_latest(data_root: Path, known: Mapping[str, str], reached: int) -> None:
    """Raise `Damaged` for a database that has lost its last commits: what they made would be nobody's, and go."""
    if facts.commits_of(known) < reached:
        raise Damaged(
            f"the database {data_root}/layerstore.db is that of an earlier time: of {reached} commits it knows "
            f"{facts.commits_of(known)}, for its log is gone or damaged, or an old copy was put back",
            remedy=f"`layerstore --root {data_root} rescue` makes it anew of what lies there.",
            path=data_root / "layerstore.db",
        )


# --- the driver


def _check_config(config: Config, known: Mapping[str, str]) -> None:
    """Does the configuration fit this store? Raises `DriverMismatch`, `ConfigError`."""
    from layerstore import plugins

    if config.storage_driver not in (None, known["driver"]):
        plugins.choose(config, config.data_root.joinpath, known["entry"])
    configuration.driver_options(config, known["driver"], plugins.load(known["entry"]).options)


# --- what the dead left


def _has_dead(parts: Parts) -> bool:
    """Did a process die, or end without being able to give everything back?"""
    staging = parts.session.staging
    with session.dead(staging) as names:
        if names:
            return True
    with parts.database.read() as tx:
        return any(not session.is_alive(staging, owner) for owner in facts.owners(tx))
