"""Mounts of containers: what the rows say of them, and what the kernel says.

One container has at most one writable mount, however many processes ask for it: each gets the same mountpoint and a
hold, and the last hold to go unmounts. The kernel's answer counts; a row without a mount is void, and so is one of
another boot. The container's lock is held by whoever calls (`Containers` takes it), so one thing happens to a container
at a time.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import session
from layerstore.containers import rows
from layerstore.containers.residents import Residents
from layerstore.driver import Dialect, Layer, LayerKey
from layerstore.errors import Damaged, DriverFailed, InUse, KernelError, LayerstoreError
from layerstore.kernel.files import syncfs
from layerstore.kernel.mounts import (
    attach_clone,
    boot_id,
    clone_of,
    mount_id,
    mount_namespace,
    namespace_holds,
    unmount,
)
from layerstore.layers.attaching import attach_tree
from layerstore.segments import rows as segment_rows
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.containers.rows import Row
    from layerstore.database import Database
    from layerstore.driver import Mount
    from layerstore.layers import Storage
    from layerstore.session import Session


@frozen
class Paused:
    """A mount that is away for a moment: where it was, and in whose folder that is."""

    mountpoint: Path
    former: list[LayerKey]


_MOMENT = 0.1
"""Seconds for which a mount may be busy: somebody who looks for what is mounted has it open for a moment."""


class Mounts:
    """The mounts of a store's containers."""

    def __init__(
        self, database: Database, session: Session, storage: Storage, drop: Callable[[Sequence[LayerKey]], None]
    ) -> None:
        """`drop` removes those of some keys that no row has."""
        self._database = database
        self._session = session
        self._storage = storage
        self._drop = drop
        self.residents = Residents(database, storage)

    def mount(self, container: str, *, persistent: bool) -> tuple[Path, int]:
        """Mount it, or count one more hold on its mount. Returns the mountpoint, and the number of the hold."""
        self._database.require_writable()
        with self._database.read() as tx:
            row = rows.find(tx, container)
            place = rows.place_of(tx, container)
            parents = rows.below(tx, row).layers
        mountpoint = self._where(row, place)
        identity = mount_id(mountpoint)
        made = identity is None
        if identity is None:
            self.require_not_lent(row)
            self._require_free(row, place)
            self.require_files(row, parents)
            identity = self._attach(row, parents, mountpoint)
        try:
            with self._database.write(durable=False) as tx:
                if made or not _is_same(place, identity):
                    # Without a row it is what a process left that died before it could write one: the same tree.
                    made_here = rows.Place(mountpoint, identity, boot_id(), mount_namespace())
                    rows.put_mount(tx, container, made_here, [*(parent.key for parent in parents), row.key])
                owner = None if persistent else self._session.name
                hold = rows.add_hold(tx, container, owner)
        except BaseException:
            if made:
                unmount(mountpoint)
            raise
        return mountpoint, hold

    def _attach(self, row: Row, parents: Sequence[Layer], mountpoint: Path) -> int:
        """Attach its tree: what its processes have, so that all see the same, or else a mount that is made for it."""
        tree = self.residents.tree(row)
        if tree is None:
            return attach_tree(self._storage, row.layer, parents, mountpoint, read_only=False, ids=row.ids)
        try:
            return attach_clone(tree, mountpoint)
        finally:
            os.close(tree)

    def clone(self, row: Row) -> int | None:
        """Its tree as it is mounted here, without what is mounted in it: a detached mount. None if it is not."""
        with self._database.read() as tx:
            place = rows.place_of(tx, row.id)
        mountpoint = self._where(row, place)
        return None if mount_id(mountpoint) is None else clone_of(mountpoint)

    def release(self, container: str, hold: int) -> None:
        """Give back one hold, and unmount if it was the last."""
        with self._database.read() as tx:
            row = rows.find(tx, container)
            place = rows.place_of(tx, container)
            holds = rows.holds_of(tx, container)
        if hold not in holds:
            return
        if any(number != hold and self._is_alive(owner) for number, owner in holds.items()):
            with self._database.write(durable=False) as tx:
                rows.end_hold(tx, hold)
        else:
            self._end(row, place)

    def release_persistent(self, row: Row) -> bool:
        """Give back a hold that outlives its process. True if the container is unmounted now."""
        with self._database.read() as tx:
            holds = rows.holds_of(tx, row.id)
        for number, owner in holds.items():
            if owner is None:
                self.release(row.id, number)
                return not self.is_mounted(row)
        if not self.is_mounted(row):
            raise LayerstoreError(f"container {row.name} is not mounted")
        alive = [owner for owner in holds.values() if self._is_alive(owner)]
        if alive:
            raise InUse(
                f"container {row.name} is mounted by {len(alive)} running process{'es' if len(alive) > 1 else ''}",
                holders=[f"session {owner}" for owner in alive],
                remedy=f"Wait for it, or take it away: layerstore umount --force {row.name}",
            )
        self.end(row)
        return True

    def end(self, row: Row) -> None:
        """Unmount, whoever holds it. A process that works in it makes this an EBUSY that names it."""
        with self._database.read() as tx:
            place = rows.place_of(tx, row.id)
        self._end(row, place)

    def _end(self, row: Row, place: rows.Place | None) -> None:
        mountpoint = self._where(row, place)
        runs = bool(self.residents.settled(row, is_mounted=True))
        if mount_id(mountpoint) is not None:
            self._unmount(mountpoint, sync=not runs, patience=_MOMENT)
        is_elsewhere = place is not None and _elsewhere(place) is not None
        with self._database.write(durable=False) as tx:
            former = rows.keys_of_mount(tx, row.id)[-1:]
            rows.end_mount(tx, row.id, is_elsewhere=is_elsewhere, is_synced=not runs)
            if former not in ([], [row.key]):  # what was rolled back while it was mounted there
                former += segment_rows.sweep(tx)
        if former not in ([], [row.key]) and not is_elsewhere:
            self._drop(former)

    def _unmount(self, mountpoint: Path, *, sync: bool = True, patience: float = 0) -> None:
        driver = self._storage.driver
        deadline = time.monotonic() + patience
        while True:
            try:
                unmount(mountpoint)
                break
            except KernelError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        if sync and driver.capabilities.dialect is not Dialect.OVERLAY:
            syncfs(driver.home)  # which overlay's unmount does by itself

    def pause(self, row: Row) -> Paused | None:
        """Unmount a container that is mounted, for `resume`; None if somebody is at work in it.

        So nobody writes to it, and it is on the disk. Those who hold the mount find it again where it was.
        """
        with self._database.read() as tx:
            place = rows.place_of(tx, row.id)
            holds = rows.holds_of(tx, row.id)
            former = rows.keys_of_mount(tx, row.id)[-1:]
        mountpoint = self._where(row, place)
        if place is None or mount_id(mountpoint) is None or place.namespace != mount_namespace():
            return None
        if self.residents.settled(row, is_mounted=True):
            return None
        own = self._session.name if self._session.begun else None
        if any(owner not in (None, own) and self._is_alive(owner) for owner in holds.values()):
            return None  # it could write in the folder below the mount meanwhile
        paused = Paused(mountpoint, former)
        try:
            self._unmount(mountpoint)
        except KernelError as error:
            if error.errno == errno.EBUSY:
                return None
            if mount_id(mountpoint) is None:  # what failed came after: it could not be synced
                self.resume(row.id, paused)
            raise
        return paused

    def resume(self, container: str, paused: Paused) -> None:
        """Mount what the container is by now where it was mounted. Others hold that, so it is tried twice."""
        with self._database.read() as tx:
            row = rows.find(tx, container)
            parents = rows.below(tx, row).layers
        stack = (self._storage, row.layer, parents, paused.mountpoint)
        attach = partial(attach_tree, *stack, read_only=False, ids=row.ids)
        try:
            identity = attach()
        except KernelError:
            identity = attach()  # memory and descriptors are wanting for a moment only
        place = rows.Place(paused.mountpoint, identity, boot_id(), mount_namespace())
        with self._database.write(durable=False) as tx:
            rows.move_mount(tx, row.id, place, [*(parent.key for parent in parents), *paused.former])

    def end_abandoned(self, row: Row, _: Sequence[Layer]) -> None:
        """Unmount, unless somebody has taken hold of it."""
        with self._database.read() as tx:
            holds = rows.holds_of(tx, row.id)
        if not holds:
            self.end(row)

    def is_mounted(self, row: Row) -> bool:
        """Is it mounted in this mount namespace?"""
        with self._database.read() as tx:
            place = rows.place_of(tx, row.id)
        return mount_id(self._where(row, place)) is not None

    def is_idle(self, row: Row) -> bool:
        """Was nothing written in it since its layer was made: did nobody ever have its tree, as far as is known?"""
        return not row.touched and not row.lent and row.boot == boot_id() and self.is_unused(row)

    def is_unused(self, row: Row) -> bool:
        """Has nobody its tree, here or elsewhere: is there no mount, and no row of one or of a process?

        Most often so, and known by one read. False may mean that only a row is left.
        """
        with self._database.read() as tx:
            if rows.place_of(tx, row.id) is not None or rows.residents(tx, row.id):
                return False
        return mount_id(self._storage.driver.mountpoint(row.layer)) is None

    def _where(self, row: Row, place: rows.Place | None) -> Path:
        """Where it is, or would be, mounted: one that got a new layer while it was mounted stays where it was."""
        own = self._storage.driver.mountpoint(row.layer)
        if place is None or place.mountpoint == own or mount_id(place.mountpoint) is None:
            return own
        return place.mountpoint

    def is_used(self, row: Row) -> bool:
        """May somebody write in it now: where it is mounted, as a program that runs in it, or as whom it is lent?"""
        if row.lent:
            return True
        is_mounted = self.is_mounted(row)
        return bool(self.residents.settled(row, is_mounted=is_mounted)) or is_mounted

    def require_unmounted(self, row: Row, *, goes: bool = False) -> None:
        """Raise `InUse` if programs run in it, or it is mounted here or in another mount namespace.

        `goes`: it is asked for whoever removes it, who has it back if it was lent.
        """
        if not goes:
            self.require_not_lent(row)
        if self.is_unused(row):
            return
        self.residents.require_none(row, is_mounted=self.is_mounted(row), goes=goes)
        with self._database.read() as tx:
            place = rows.place_of(tx, row.id)
        mountpoint = self._where(row, place)
        if mount_id(mountpoint) is not None:
            raise InUse(
                f"container {row.name} is mounted at {mountpoint}",
                holders=[str(mountpoint)],
                remedy=f"Unmount it first: layerstore umount {row.name} (or remove it with --force)",
            )
        self._require_free(row, place)

    def require_not_lent(self, row: Row) -> None:
        """Raise `InUse` if others mount it: a second mount of the same layer would be undefined."""
        if row.lent:
            raise InUse(
                f"container {row.name} is lent: others mount it, and may write in it",
                holders=[row.name],
                remedy="Use it by what made it; or remove it there.",
            )

    def recipe(self, row: Row, parents: Sequence[Layer]) -> Sequence[Mount]:
        """What would have to be mounted to have its tree. Nothing is made."""
        return self._storage.driver.mounts(row.layer, parents, read_only=False)

    def lend(self, row: Row, parents: Sequence[Layer]) -> Sequence[Mount]:
        """The same, made ready for others to mount. See `Container.lend`.

        The note of it need not survive a power cut, after which nobody has it mounted.
        """
        if not row.lent:
            self.require_unmounted(row)
        self.require_files(row, parents)
        if not row.lent:
            with self._database.write(durable=False) as tx:
                rows.lend(tx, row.id)
        self._storage.driver.prepare(row.layer, parents, read_only=False)
        return self.recipe(row, parents)

    def require_files(self, row: Row, parents: Sequence[Layer]) -> None:
        """See that the container's own files are there.

        Making one is not synced: after a power cut it may have a row and no files. If it was never unmounted, nothing
        that was ever on disk is lost, and it is made once more.
        """
        files = self._storage.files
        if files.has(row.layer):
            return
        if row.touched or row.boot == boot_id():
            raise Damaged(
                f"the files of container {row.name} are missing: {files.place_of(row.layer)}",
                remedy=f"What was written in it is lost. Remove it: layerstore rm {row.name}",
                path=files.place_of(row.layer),
            )
        try:
            self._storage.driver.create(row.layer, parents, size=row.size)
        except (KernelError, DriverFailed):
            files.require(parents)
            raise

    def place_of(self, container: str) -> Path | None:
        """Where it is mounted now, if it is."""
        with self._database.read() as tx:
            place = rows.place_of(tx, container)
        return self.mountpoint_of(place)

    def mountpoint_of(self, place: rows.Place | None) -> Path | None:
        """Where the mount of this row is, if the kernel still has it."""
        return None if place is None or mount_id(place.mountpoint) is None else place.mountpoint

    def count(self, container: str) -> int:
        """How many holds there are on its mount, those of the dead not counted."""
        with self._database.read() as tx:
            holds = rows.holds_of(tx, container)
        return self.alive(holds.values())

    def alive(self, owners: Iterable[str | None]) -> int:
        """How many of these owners of holds are alive."""
        return sum(self._is_alive(owner) for owner in owners)

    def _require_free(self, row: Row, place: rows.Place | None) -> None:
        if place is None or (pid := _elsewhere(place)) is None:
            return
        raise InUse(
            f"container {row.name} is mounted at {place.mountpoint} in another mount namespace, that of process {pid}",
            holders=[f"process {pid}"],
            remedy=f"Unmount it there: nsenter --target {pid} --mount umount {place.mountpoint}",
        )

    def _is_alive(self, owner: str | None) -> bool:
        if owner is None or (self._session.begun and owner == self._session.name):
            return True
        return session.is_alive(self._session.staging, owner)


def _is_same(place: rows.Place | None, identity: int) -> bool:
    """Is the mount that is there the one that has the row? In another namespace its copy has another ID."""
    return place is not None and (place.mount_id == identity or place.namespace != mount_namespace())


def _elsewhere(place: rows.Place) -> int | None:
    """A process in whose mount namespace, not this one, the mount still is."""
    if place.namespace == mount_namespace():
        return None
    return namespace_holds(place.namespace, place.mountpoint)
