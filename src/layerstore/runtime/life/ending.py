"""How a container comes to its end: what is written down of it, and given back.

Whoever finds that a container has ended settles it, under its lock: the row says so first; then go the engine's state
and cgroups, and the folder. What is left if that is broken off, `recovery` finds by the folder.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress

from attrs import evolve

from layerstore import Container, Database, LayerstoreError, NotFound, ReadOnlyStore, Store
from layerstore.runtime.engine import cgroups
from layerstore.runtime.life import rows, traces
from layerstore.runtime.life.places import Folder, Places
from layerstore.runtime.life.processes import wait_for
from layerstore.runtime.life.rows import Row
from layerstore.runtime.life.saved import from_json
from layerstore.runtime.life.state import exit_of, has_ended

__all__ = ["Ender"]

_PATIENCE = 5.0
"""Seconds that conmon may take to end after the program that it held."""


def _unwatched(health: str) -> str:
    """The health of a container that has ended: nobody checks it, and docker calls that unhealthy."""
    return json.dumps({**json.loads(health), "Status": "unhealthy"}) if health else ""


def _ended(row: Row, code: int, moment: int | None, *, oom: bool = False, error: str = "") -> Row:
    """The row of a container that has ended."""
    return evolve(
        row,
        status="exited",
        owner=None,
        keeper=None,
        init=None,
        # A file's time lags behind the clock by up to a tick.
        finished=time.time_ns() if moment is None else max(moment, row.started),
        exit_code=code,
        oom=oom,
        error=error,
        health=_unwatched(row.health),
    )


def _end_first(folder: Folder) -> None:
    """End the first process of a container, which takes all others along, if it lives."""
    first = folder.init()
    if first is not None:
        with suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGKILL)
        wait_for(first, _PATIENCE)


class Ender:
    """Settles the containers of a store that have ended, and removes them."""

    def __init__(self, store: Store, database: Database, places: Places) -> None:
        self._store = store
        self._database = database
        self._places = places

    def settled(self, row: Row) -> Row | None:
        """The row as it is now: of what has ended, that is written down first, unless somebody is at it.

        None if the container is gone: it was to be removed at its end.
        """
        folder = self._places.folder(row.container)
        if not has_ended(row, folder):
            return row
        with self._places.lock_at_once(row.container) as is_free:
            if not is_free:
                return row
            try:
                return self.settle(row.container)
            except ReadOnlyStore:  # then it is only told
                return _ended(row, *exit_of(row, folder))

    def settle(self, container: str) -> Row | None:
        """`settled`, for a caller that has the container's lock."""
        with self._database.read() as tx:
            row = rows.find(tx, container)
        folder = self._places.folder(container)
        if row is None or not has_ended(row, folder):
            return row
        if row.keeper is not None and row.is_of_this_boot:
            wait_for(row.keeper, _PATIENCE)  # conmon, which has written the exit code, still writes the log
        code, moment = exit_of(row, folder)
        return self.end(row, code, moment=moment, oom=row.held and folder.place.oom.exists())

    def end(
        self,
        row: Row,
        code: int,
        *,
        moment: int | None = None,
        oom: bool = False,
        error: str = "",
        container: Container | None = None,
        is_clear: bool = False,
    ) -> Row | None:
        """Write down that a container has ended, and give back what it had; for a caller that has its lock.

        `moment`: when that was, in ns since the epoch; None is now. `container`: the same, from who has it. `is_clear`:
        its engine came to its own end, and has given back what it held. None is returned if it was to be removed then.
        """
        ended = _ended(row, code, moment, oom=oom, error=error)
        goes = from_json(row.options).remove
        with self._database.write(durable=False) as tx:
            rows.put(tx, evolve(ended, status="dead") if goes else ended)
        self.clear(self._places.folder(row.container), is_clear=is_clear)
        if goes:
            try:
                self._drop(container or self._store.container(row.container), ended, volumes=True, lasts=False)
            except NotFound:
                return None
            except LayerstoreError:
                return ended  # somebody has it mounted, say: it stays, and tells how it ended
            self._places.folder(row.container).remove_kept()
            return None
        self.erase_traces(row.container)
        return ended

    def erase_traces(self, container: str) -> None:
        """Take the mount points away that its tree lacked; for a caller that has its lock.

        What cannot be now is tried again when the store is opened next, or after its next run.
        """
        folder = self._places.folder(container)
        if traces.are_left(folder):
            with suppress(LayerstoreError):
                traces.erase(self._store.container(container), folder)

    def clear(self, folder: Folder, *, is_clear: bool = False) -> None:
        """Give back what an engine has for a container, and its folder. What runs in it still is killed.

        `is_clear`: the engine came to its own end. If it knows nothing of the container then, it has left nothing.
        """
        verbs = self._places.verbs(folder)
        if verbs is not None and not (is_clear and not verbs.knows(folder.name)):
            if not verbs.knows(folder.name):  # the state was in memory, or is lost
                _end_first(folder)
            with suppress(LayerstoreError):
                verbs.delete(folder.name)
            # An engine that was killed over its work, or was removed since, leaves some of it.
            cgroups.remove(folder.cgroup(), within=folder.name)
            if verbs.knows(folder.name):
                verbs.forget(folder.name)
        if folder.network.exists() or folder.pasta.exists():
            from layerstore.runtime.life.connecting import disconnect  # few have a network of their own

            disconnect(folder)
        folder.remove()

    def kill_all(self, container: Container) -> None:
        """End all processes that have a container's tree, as far as the kernel lets them end."""
        deadline = time.monotonic() + _PATIENCE
        while (left := container.processes()) and time.monotonic() < deadline:
            for process in left:
                process.kill()
            for process in left:
                with suppress(TimeoutError):
                    process.wait(max(0.0, deadline - time.monotonic()))

    def remove(self, container: Container, row: Row | None, *, volumes: bool, force: bool = False) -> None:
        """Remove a container that has ended, with its log; for a caller that has its lock."""
        if row is not None and row.status != "dead":
            with self._database.write(durable=False) as tx:
                rows.put(tx, evolve(row, status="dead"))
        self._drop(container, row, volumes=volumes, force=force)
        folder = self._places.folder(container.id)
        self.clear(folder)
        folder.remove_kept()

    def _drop(
        self, container: Container, row: Row | None, *, volumes: bool, force: bool = False, lasts: bool = True
    ) -> None:
        """Remove it from the store. If that fails, `row` says again what was true of it.

        `lasts`: False if whoever opens the store next removes it again, should it be back after a power cut.
        """
        try:
            container.remove(force=force, volumes=volumes, lasts=lasts)
        except NotFound:
            pass  # somebody else has
        except BaseException:
            if row is not None:
                with self._database.write(durable=False) as tx:
                    rows.put(tx, row)
            raise
