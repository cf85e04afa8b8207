"""The containers that a build works in, none of which outlives it.

What a build leaves that was killed goes with the next one, or with `sweep`, or at once if it ran programs for long (see
`guarding`): the row of a build is there before its first container, and a lock that dies with its process says whether
it goes on. Its layers are the cache's to keep.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Self

from layerstore import (
    ChainID,
    Container,
    Database,
    KernelError,
    LayerstoreError,
    NotFound,
    Store,
    StoredLayer,
    Transaction,
)
from layerstore.build.steps import rows
from layerstore.build.steps.guarding import Guard
from layerstore.build.steps.rows import TABLES
from layerstore.runtime import Runtime
from layerstore.runtime.life.places import Places

__all__ = ["BuildSession", "put_in_order", "sweep"]

_OWNER = "building"
"""Who leases the layers that a build needs itself, and nobody after it."""


class BuildSession:
    """See the module's text. A context manager; any thread of the build may use it."""

    def __init__(self, store: Store, warn: Callable[[str], object] | None = None) -> None:
        """`warn` is told of what cannot be removed at the end, which is no reason for a build to fail."""
        self.store = store
        self._warn = warn
        self.name = os.urandom(6).hex()
        self._database = store.tables(TABLES)
        self._numbers = itertools.count(1)
        self._lock = ExitStack()
        self.guard = Guard(store, self.name)
        """Sees to the programs of the build, should it be killed."""

    @contextmanager
    def container(self, on: ChainID | None) -> Iterator[Container]:
        """While inside: a container on these layers."""
        made = self.create(on)
        try:
            yield made
        finally:
            self.remove(made)

    def create(self, on: ChainID | None) -> Container:
        """Make one, which is removed at the end of the build at the latest, unless it is called otherwise by then."""
        return self.store.create_container(None, on=on, name=f"build-{self.name}-{next(self._numbers)}", lasts=False)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """While inside: an empty folder of this build."""
        place = _folder_of(self.store, self.name) / str(next(self._numbers))
        with _named(place):
            place.mkdir(mode=0o700, parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def hold(self, tx: Transaction, layer: StoredLayer) -> None:
        """Keep a layer until the end of this build, and no longer; for the transaction in which it is added."""
        name = f"{self.name}/{layer.chain_id}"
        self.store.lease(tx, layer.chain_id, owner=_OWNER, name=name)

    def remove(self, container: Container) -> None:
        """Remove it, with all that runs in it. What cannot be removed now is tried again at the end of the build."""
        with suppress(LayerstoreError):
            _remove(self.store, container)

    def __enter__(self) -> Self:
        with ExitStack() as lock:
            lock.enter_context(self.store.lock(_lock_of(self.name)))
            with self._database.write(durable=False) as tx:
                rows.insert(tx, self.name)
            self._lock = lock.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._lock, closing(self.guard):
            try:
                _clear(self.store, self._database, self.name)
            except LayerstoreError as problem:
                said = f"what the build needed cannot be removed, which the next one tries again: {problem.message}"
                if error is not None:
                    error.add_note(said)
                if self._warn is not None:
                    self._warn(said)


def sweep(store: Store) -> int:
    """Remove what builds have left whose processes are dead; how many there were."""
    database = store.tables(TABLES)
    with database.read() as tx:
        names = rows.every(tx)
    count = 0
    for name in names:
        with store.lock(_lock_of(name), wait=False) as is_mine:
            if is_mine:
                with suppress(LayerstoreError):  # what cannot be removed now is tried again by the next
                    _end_programs(store, database, name)
                    _clear(store, database, name)
                    count += 1
    return count


def put_in_order(store: Store, name: str) -> None:
    """The same of one build, whose process is dead, or dies now. Of one that is in order nothing is done."""
    database = store.tables(TABLES)
    with store.lock(_lock_of(name)):
        with database.read() as tx:
            if name not in rows.every(tx):
                return
        _end_programs(store, database, name)
        _clear(store, database, name)


def _end_programs(store: Store, database: Database, name: str) -> None:
    """End what still runs of a build that was killed, and give back what its engine has for it."""
    runtime = Runtime(store)
    with database.read() as tx:
        left = rows.containers(tx, name)
    for folder in runtime.places.all():
        container, _, part = folder.partition("-")
        if container in left and part:
            with suppress(NotFound):
                runtime.forget(store.container(container), runtime.places.folder(container, part))


def _lock_of(name: str) -> str:
    return f"building {name}"


def _folder_of(store: Store, name: str) -> Path:
    """What a build has on the disk besides containers."""
    return store.data_root / "building" / name


@contextmanager
def _named(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelError("mkdir", error.errno or 0, path=place) from error


def _remove(store: Store, container: Container) -> None:
    """A container, with all that runs in it, and what its runs have left beside it."""
    container.remove(force=True, volumes=True)
    Places(store).folder(container.id).remove_kept()


def _clear(store: Store, database: Database, name: str) -> None:
    """Remove all that there is of a build; its row stays if something does. Raises what is met first."""
    with database.read() as tx:
        left = rows.containers(tx, name)
    problems = []
    for container in left:
        try:
            _remove(store, store.container(container))
        except NotFound:
            pass
        except LayerstoreError as problem:
            problems.append(problem)
    shutil.rmtree(_folder_of(store, name), ignore_errors=True)
    held = [key for key in store.leases(_OWNER) if key.startswith(f"{name}/")]
    if held:
        store.end_leases(_OWNER, held)
    if problems:
        raise problems[0]
    for _ in range(2):  # a disk that is full has given up what was set aside by the second time
        with suppress(LayerstoreError):
            with database.write(durable=False) as tx:
                rows.end(tx, name)
            return
