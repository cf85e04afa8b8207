"""The processes that a container's tree was given to: what the rows say of them, and what the kernel says.

Each has a row before it executes its program. The kernel's answer counts: a process that has ended, or of another boot,
means nothing. The tree is there for as long as one of them lives, in their mount namespaces; with the last it goes, and
whoever looks at the container next, under its lock, writes that down.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layerstore.containers import rows
from layerstore.driver import Dialect
from layerstore.errors import InUse, KernelError
from layerstore.kernel.files import syncfs
from layerstore.kernel.processes.identity import Identity, identity_of, strays

if TYPE_CHECKING:
    from layerstore.containers.rows import Resident, Row
    from layerstore.database import Database
    from layerstore.layers import Storage

_MOMENT = 10.0
"""Seconds that a process has between giving back its mounts and its end. A sync of the filesystem may be among it."""


class Residents:
    """The processes in the containers of a store."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage

    def told(self, container: str) -> tuple[list[Resident], list[Resident]]:
        """Those of a container that are written down, and those of them that live, the first first."""
        with self._database.read() as tx:
            found = rows.residents(tx, container)
        return found, [resident for resident in found if resident.identity.is_alive]

    def settled(self, row: Row, *, is_mounted: bool, goes: bool = False) -> list[Identity]:
        """Those that live. If none does any more, that is written down, for a caller that has the container's lock.

        `is_mounted`: it is mounted for others still, whose unmount it is that syncs. `goes`: the container is about to
        be removed, and with it all that would be written.
        """
        with self._database.read() as tx:
            found = rows.residents(tx, row.id)
        if not found:
            return []
        left = living(found) or self._left_behind(row, found)
        if not left and not goes:
            if not is_mounted and self._storage.driver.capabilities.dialect is not Dialect.OVERLAY:
                syncfs(self._storage.driver.home)  # which overlay did when its last mount went
            with self._database.write(durable=False) as tx:
                rows.end_residents(tx, row.id, is_synced=not is_mounted)
        return left

    def require_none(self, row: Row, *, is_mounted: bool, goes: bool = False) -> None:
        """Raise `InUse` if one lives. See `settled`."""
        left = self.settled(row, is_mounted=is_mounted, goes=goes)
        if left:
            raise running(row, left)

    def tree(self, row: Row) -> int | None:
        """The container's tree as its processes have it, without what is mounted in it: a detached mount.

        None if no process lives. Raises `InUse` if none of those that do can be asked for it.
        """
        from layerstore.kernel.processes.inside import tree_of

        while left := self.settled(row, is_mounted=False):
            with self._database.read() as tx:
                roots = {found.identity: found.root for found in rows.residents(tx, row.id)}
            for identity in left:
                if identity.is_seen:
                    try:
                        return tree_of(identity.pid, row.key, roots.get(identity, b"/"))
                    except KernelError:
                        if not _is_ending(identity):
                            raise
                        break  # are there others?
            else:
                raise running(row, left)
        return None

    def _left_behind(self, row: Row, found: Iterable[Resident]) -> list[Identity]:
        """Processes that nobody wrote down, in the namespaces of those that have ended."""
        namespaces = {resident.identity.mount_namespace for resident in found if resident.identity.may_have_left}
        pids = strays(namespaces, row.key) if namespaces else []
        return [identity for pid in pids if (identity := identity_of(pid)) is not None]


def _is_ending(identity: Identity) -> bool:
    """Has it ended, or does it within a moment? Its mounts go a little before it is seen to have ended."""
    deadline = time.monotonic() + _MOMENT
    while identity.is_alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def living(found: Iterable[Resident]) -> list[Identity]:
    """Those of them that live."""
    return [resident.identity for resident in found if resident.identity.is_alive]


def running(row: Row, left: list[Identity]) -> InUse:
    """The error for what cannot be done to a container in which processes run."""
    holders = [f"process {identity.pid}" for identity in left]
    unseen = [identity for identity in left if not identity.is_seen]
    return InUse(
        f"container {row.name} is running ({', '.join(holders[:3])}{', ...' if len(holders) > 3 else ''})",
        holders=holders,
        remedy="It was started in another pid namespace: stop it from there."
        if unseen
        else f"Stop it first: layerstore stop {row.name} (or remove it with --force)",
    )
