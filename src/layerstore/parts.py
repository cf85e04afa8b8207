"""What an open store consists of: `Parts`, each of which is imported and made when it is first asked for.

For most commands need few of them, and wait for what they import. What all need is there from the beginning: `Ground`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import evolve

from layerstore import config as configuration
from layerstore import facts
from layerstore.access import Access
from layerstore.config import Config
from layerstore.database import Database
from layerstore.errors import InUse, named
from layerstore.kernel.files.reserve import Reserve
from layerstore.kernel.mounts import processes_with
from layerstore.locks import USE, Held, Locks
from layerstore.records import Mirror
from layerstore.session import Session
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.attached import Attached
    from layerstore.attached.elsewhere import Elsewhere
    from layerstore.blobs import Blobs
    from layerstore.containers import Containers
    from layerstore.driver import StorageDriver
    from layerstore.images import Images
    from layerstore.layers import Layers, Storage
    from layerstore.layers.holder import Holder

__all__ = ["PATIENCE", "Ground", "Parts", "StoreUse"]

PATIENCE = 2.0
"""Seconds for which an open waits for a migration to end."""

T = TypeVar("T")


class _Part(Generic[T]):
    """A property of `Parts` that is made once, whatever thread asks first."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, parts: Parts, kind: type | None = None) -> T:
        with parts.making:
            made = vars(parts)
            if self._name not in made:
                made[self._name] = self._make(parts)
            value: T = made[self._name]
            return value


@frozen
class Ground:
    """What a store is opened on. `use` is the lock of all who have it open; one that can only be read has no `reserve`.

    `undo` of whoever makes it gives all of it back.
    """

    use: StoreUse
    locks: Locks
    reserve: Reserve | None
    database: Database
    session: Session


class Parts:
    """An open store: what it consists of. `known` is what it remembers of itself.

    `store` is whose they are: what runs programs in its containers is given it.
    """

    def __init__(self, config: Config, ground: Ground, known: Mapping[str, str], store: object) -> None:
        self.making = threading.RLock()
        """Held while a part is made."""
        self.config = config
        self.known = known
        self.use = ground.use
        self.locks = ground.locks
        self.reserve = ground.reserve
        self.database = ground.database
        self.session = ground.session
        self.mirror = Mirror(ground.database, ground.locks, ground.session, config.data_root / "records")
        self._store = weakref.ref(store)  # which goes with its last user, not with the next collection of circles

    @property
    def home(self) -> Path:
        """The folder of the store's driver."""
        return self.config.data_root / self.known["driver"]

    def made(self, name: str) -> bool:
        """Has anybody asked for this part yet?"""
        return name in vars(self)

    @_Part
    def storage(self) -> Storage:
        """The driver, and how it keeps layers."""
        from layerstore.layers import Storage

        return Storage(
            _Opener(self.config, self.session, self.known["entry"]),
            self.session,
            self.config.data_root / "skeletons",
            lambda: facts.ask_for_recovery(self.database, self.session.stay),
            self._holder,
            lambda: self.elsewhere,
        )

    @_Part
    def elsewhere(self) -> Elsewhere:
        """Where borrowed layers lie."""
        from layerstore.attached.elsewhere import Elsewhere

        return Elsewhere(self.database)

    @_Part
    def attached(self) -> Attached:
        """The stores of others that are attached."""
        from layerstore.attached import Attached

        return Attached(self.config.attach, self.database, self.session, self.storage, self.layers, self.images)

    def _holder(self, driver: StorageDriver) -> Holder:
        from layerstore.layers.holder import Holder

        def end_poisoned() -> None:
            from layerstore.containers.poisoned import end_poisoned

            end_poisoned(self.database)

        lasting = evolve(self.config, access=Access())  # it goes on for all, long after the call that starts it
        patience = getattr(driver.settings, "patience", 60.0)
        return Holder(self.home, lasting, patience, end_poisoned, lambda found: self.layers.still_lazy(found))

    @_Part
    def layers(self) -> Layers:
        """Chains of layers, and who needs them."""
        from layerstore.layers import Layers

        return Layers(self.database, self.locks, self.session, self.storage, self.config.limits)

    @_Part
    def blobs(self) -> Blobs:
        """Blobs as registries have them."""
        from layerstore.blobs import Blobs

        return Blobs(
            self.config.data_root, self.database, self.locks, self.layers, is_writable=self.reserve is not None
        )

    @_Part
    def images(self) -> Images:
        """Images and their names."""
        from layerstore.images import Images

        images = Images(self.database, self.session, self.storage, self.layers, self.config.exec_root)
        images.after_removal = lambda: self.blobs.collect()
        if self.config.attach:
            images.lent = lambda ref: self.attached.lent(ref)
        return images

    @_Part
    def containers(self) -> Containers:
        """Containers, and their volumes."""
        from layerstore.containers import Containers

        volumes = self.config.data_root / "volumes"
        made = Containers(self.database, self.locks, self.session, self.storage, self.layers, self.images, volumes)
        if (store := self._store()) is not None:
            made.belong_to(store)
        return made


class StoreUse:
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
                from layerstore import plugins

                kind = plugins.load(self._entry)
                options: object = configuration.driver_options(self._config, kind.name, kind.options)
                home = self._config.data_root / kind.name
                with named("mkdir", home):
                    home.mkdir(mode=0o700, exist_ok=True)
                self._driver = kind(home, self._session.folder, options)
            return self._driver
