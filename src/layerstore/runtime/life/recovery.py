"""What dead processes and former boots left of containers that ran, put in order when a runtime is opened.

Found by two reads: the rows that say `starting` or `running`, and the list of the folders. A container is left alone if
somebody has its lock, or if it runs.
"""

from __future__ import annotations

import os
from contextlib import suppress

from attrs import evolve

from layerstore import Database, LayerstoreError, NotFound, Store
from layerstore.runtime.life import rows, traces
from layerstore.runtime.life.ending import Ender
from layerstore.runtime.life.places import Folder, Places, remove_folder
from layerstore.runtime.life.processes import ProcessId
from layerstore.runtime.life.rows import Row
from layerstore.runtime.life.saved import from_json

__all__ = ["recover"]


def recover(store: Store, database: Database, places: Places, ender: Ender) -> None:
    """Settle what has ended, undo what was broken off, remove what belongs to nobody."""
    names, kept = places.all(), places.all_kept()
    with database.read() as tx:
        unsettled = rows.unsettled(tx)
        known = rows.containers(tx) if names or kept else set()
        known_rows = {row.container: row for row in rows.every(tx)} if names else {}
    for row in unsettled:
        with suppress(LayerstoreError):
            if row.status == "starting":
                _undo(store, database, places, ender, row)
            elif row.status == "dead":
                _finish(store, places, ender, row)
            else:
                ender.settled(row)
    for name in names:
        with suppress(LayerstoreError):
            _sweep(places, ender, name, known_rows.get(name[:64]))
    for name in kept:
        if name not in known:
            remove_folder(places.kept / name)
        elif traces.are_left(places.folder(name)):
            with places.lock_at_once(name) as is_free:
                if is_free:
                    ender.erase_traces(name)
    _sweep_boots(places)


def _undo(store: Store, database: Database, places: Places, ender: Ender, row: Row) -> None:
    """A start that was broken off: what it made goes. If the program was let go by then, it is stopped with that."""
    with places.lock_at_once(row.container) as is_free:
        if not is_free:
            return
        with database.read() as tx:
            now = rows.find(tx, row.container)
        if now is None or now.status != "starting":
            return
        with suppress(NotFound):
            ender.kill_all(store.container(row.container))
        ender.clear(places.folder(row.container))
        before = evolve(now, status="exited" if now.finished else "created", owner=None, keeper=None, init=None)
        with database.write(durable=False) as tx:
            rows.put(tx, before)


def _finish(store: Store, places: Places, ender: Ender, row: Row) -> None:
    """The removal of what was to go at its end was broken off: it goes. One that somebody asked for, he asks again."""
    if not from_json(row.options).remove:
        return
    with places.lock_at_once(row.container) as is_free:
        if is_free:
            ender.remove(store.container(row.container), row, volumes=True)


def _sweep(places: Places, ender: Ender, name: str, row: Row | None) -> None:
    """Remove a folder that nobody uses: its container has ended or is gone, or who made it for a while is."""
    container, _, part = name.partition("-")
    folder = places.folder(container, part)
    if part:
        if not _is_used(folder, part):
            ender.clear(folder)
        return
    if row is not None and row.status in ("starting", "running"):
        return
    with places.lock_at_once(container) as is_free:
        if is_free:
            ender.clear(folder)


def _is_used(folder: Folder, part: str) -> bool:
    """Does the process live that made a folder for a while, or the program that it is of?"""
    pid, _, rest = part.partition(".")
    began = rest.partition(".")[0]
    if not (pid.isdecimal() and began.isdecimal()):
        return False
    return ProcessId(int(pid), int(began)).lives or folder.init() is not None


def _sweep_boots(places: Places) -> None:
    """Remove the folders of former boots."""
    try:
        others = [name for name in os.listdir(places.above) if name != places.root.name]
    except FileNotFoundError:
        return
    for name in others:
        remove_folder(places.above / name)
