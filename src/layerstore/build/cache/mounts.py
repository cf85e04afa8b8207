"""Folders that steps share: `RUN --mount=type=cache`. Each is a container of the store, mounted while a step has it.

A row vouches for the container of its name before that is made and until it is gone, so what a kill leaves is found
again by the next who wants it. Who uses one holds its lock: together (`shared`), or alone (`locked`, `private`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO, Literal

from layerstore import (
    Ambiguous,
    ChainID,
    ConfigError,
    Container,
    Damaged,
    InUse,
    KernelError,
    Mounted,
    NotFound,
    Store,
    open_beneath,
)
from layerstore.build.cache import PREFIX, claims, rows
from layerstore.values import frozen

__all__ = ["CacheMount", "CacheMounts", "Sharing"]

Sharing = Literal["shared", "private", "locked"]

_Call = Callable[[], object]


@frozen
class CacheMount:
    """A folder that steps share, as it was when it was looked up."""

    name: str
    """Of its container."""
    id: str
    """As Dockerfiles say."""
    number: int
    """0; or that of one that was made because those before were taken (`sharing=private`)."""
    start: str
    """What it began as: the ChainID of a layer, or owner and mode of an empty folder."""
    made: int
    """In ns since the epoch, as `used`."""
    used: int
    uses: int
    size: int
    """The bytes that it occupies on the disk."""
    in_use: bool


class CacheMounts:
    """The folders that steps of one store share."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.tables(rows.TABLES)

    @contextmanager
    def mount(
        self,
        id: str,
        *,
        sharing: Sharing = "shared",
        on: ChainID | None = None,
        source: str = "",
        owner: tuple[int, int] = (0, 0),
        mode: int = 0o755,
        waits: _Call | None = None,
        stop: _Call | None = None,
    ) -> Iterator[Path]:
        """While inside: where the folder is mounted. It is made if there is none.

        One that is `locked` is waited for (see `claims`), of `private` ones a free one is taken, or one more made. It
        begins as what the layer `on` and those below it hold, at the path `source` in them; or empty, with that owner
        and mode. As in BuildKit, folders that begin differently are different ones, whatever their ID. Raises
        `NotFound` if there is no such path.
        """
        if sharing not in ("shared", "private", "locked"):
            raise ConfigError(f"unsupported sharing value {sharing!r}", remedy="Use shared, private or locked.")
        start = str(on) if on is not None else f"{owner[0]}:{owner[1]} {mode:04o}"
        known = hashlib.sha256(json.dumps([id, start]).encode()).hexdigest()[:16]
        with ExitStack() as after:
            if sharing == "private":
                number = after.enter_context(self._free(known))
            else:
                number = 0
                lock = claims.of_mount(_name(known, 0))
                is_shared = sharing == "shared"
                after.enter_context(claims.held(self._store, lock, shared=is_shared, waits=waits, stop=stop))
            now = time.time_ns()
            row = rows.MountRow(_name(known, number), None, id, number, start, now, now)
            root = after.enter_context(self._mounted(row, on, owner, mode))
            place = root if on is None else _beneath(root, source)
            with self._database.write(durable=False) as tx:
                rows.touch_mount(tx, row.name, now)
            yield place

    @contextmanager
    def _free(self, known: str) -> Iterator[int]:
        """The number of one that nobody has, and that is this one's while inside."""
        for number in count():
            with self._store.lock(claims.of_mount(_name(known, number)), wait=False) as is_mine:
                if is_mine:
                    yield number
                    return

    def _mounted(self, wanted: rows.MountRow, on: ChainID | None, owner: tuple[int, int], mode: int) -> Mounted:
        """The container of a folder, mounted; made if there is none, and anew if a power cut has taken it."""
        with self._store.lock(f"{claims.of_mount(wanted.name)} is made"):
            try:
                return self._made(wanted, on, owner, mode).mount()
            except Damaged:  # nothing was ever synced for it
                self._drop(wanted)
                return self._made(wanted, on, owner, mode).mount()

    def _made(self, wanted: rows.MountRow, on: ChainID | None, owner: tuple[int, int], mode: int) -> Container:
        with self._database.read() as tx:
            row = rows.find_mount(tx, wanted.name)
        if row is not None and row.container is not None:
            return self._store.container(row.container)
        if row is None:
            with self._database.write(durable=False) as tx:
                rows.put_mount(tx, wanted)
        container = self._left(wanted.name)
        if container is None:
            container = self._store.create_container(None, on=on, name=wanted.name, lasts=False)
        if on is None:
            with container.mount() as root:
                try:
                    os.chown(root, *owner)
                    os.chmod(root, mode)
                except OSError as error:
                    raise KernelError("chown", error.errno or 0, path=root) from error
        with self._database.write(durable=False) as tx:
            rows.set_container(tx, wanted.name, container.id)
        return container

    def _left(self, name: str) -> Container | None:
        """The container of this name, which a row vouches for, if whoever made it came so far."""
        try:
            return self._store.container(name)
        except NotFound:
            return None

    def _drop(self, row: rows.MountRow) -> None:
        with self._database.write(durable=False) as tx:
            rows.set_container(tx, row.name, None)
        container = self._left(row.name)
        if container is not None:
            container.remove()
        with self._database.write(durable=False) as tx:
            rows.delete_mount(tx, row.name)

    # --- what there is ---

    def all(self) -> list[CacheMount]:
        """All of them, by their IDs. Those that somebody is about to make are not among them."""
        with self._database.read() as tx:
            found = rows.mounts(tx)
        return [seen for row in found if row.container is not None and (seen := self._seen(row)) is not None]

    def _seen(self, row: rows.MountRow) -> CacheMount | None:
        try:
            size = self._store.container(row.container or "").usage().size
        except NotFound:
            return None  # removed meanwhile
        in_use = not claims.is_free(self._store, claims.of_mount(row.name))
        return CacheMount(
            row.name, row.id, row.number, row.start, row.made, row.used, row.uses, size=size, in_use=in_use
        )

    def containers(self) -> set[str]:
        """The IDs of their containers."""
        with self._database.read() as tx:
            return {row.container for row in rows.mounts(tx) if row.container is not None}

    def get(self, ref: str) -> CacheMount:
        """The one of this ID, or of this name of a container. Raises `NotFound`, `Ambiguous`."""
        found = [mount for mount in self.all() if ref in (mount.id, mount.name)]
        if len(found) > 1:
            names = ", ".join(mount.name for mount in found)
            raise Ambiguous(f"several caches have the ID {ref}", remedy=f"Name one of them: {names}.")
        if not found:
            raise NotFound(f"no such cache: {ref}", remedy="`layerstore builder cache ls` shows what there is.")
        return found[0]

    # --- in and out ---

    def export(self, ref: str, write: Callable[[memoryview], object], *, waits: _Call | None = None) -> None:
        """Write what one holds as a tar. Who uses it is waited for. Raises `NotFound`, `Ambiguous`."""
        mount = self.get(ref)
        with claims.held(self._store, claims.of_mount(mount.name), waits=waits):
            self._store.container(mount.name).export(write)

    def take_in(self, ref: str, tar: BinaryIO, *, waits: _Call | None = None) -> str:
        """Put what a tar holds into one, beside and over what is there; returns the name of its container.

        If there is none of this ID, it is made. Raises `Ambiguous`, `InvalidArchive`.
        """
        try:
            mount = self.get(ref)
        except NotFound:
            with self.mount(ref, sharing="locked", waits=waits):
                pass
            mount = self.get(ref)
        with claims.held(self._store, claims.of_mount(mount.name), waits=waits):
            self._store.container(mount.name).copy_in(tar, "/", archive=True)
        return mount.name

    def remove(self, ref: str) -> CacheMount:
        """Remove one, with all that is in it. Raises `NotFound`, `Ambiguous`, `InUse`."""
        mount = self.get(ref)
        if not self.drop(mount.name):
            raise InUse(
                f"cache {mount.id} is in use by a build", holders=["a build"], remedy="Wait for the build, or stop it."
            )
        return mount

    def drop(self, name: str, *, unused_since: int | None = None) -> bool:
        """Remove one by the name of its container, unless a step has it, or has had it since then."""
        with self._store.lock(claims.of_mount(name), wait=False) as is_mine:
            if not is_mine:
                return False
            with self._database.read() as tx:
                row = rows.find_mount(tx, name)
            if row is None or (unused_since is not None and row.used >= unused_since):
                return False
            self._drop(row)
            return True

    def tidy(self) -> None:
        """Remove what was being made, or removed, by somebody who died."""
        with self._database.read() as tx:
            begun = [row for row in rows.mounts(tx) if row.container is None]
        for row in begun:
            with self._store.lock(claims.of_mount(row.name), wait=False) as is_mine:
                if is_mine:
                    self._drop(row)


def _name(known: str, number: int) -> str:
    return f"{PREFIX}{known}" + (f"-{number}" if number else "")


def _beneath(root: Path, source: str) -> Path:
    """A folder of a tree, whose symbolic links lead nowhere else. Raises `NotFound`."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inner = open_beneath(fd, source.lstrip("/") or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return Path(os.readlink(f"/proc/self/fd/{inner}"))
        finally:
            os.close(inner)
    except KernelError as error:
        raise NotFound(
            f"there is no folder {source} in what the cache begins as: {os.strerror(error.errno or 0)}", path=source
        ) from None
    finally:
        os.close(fd)
