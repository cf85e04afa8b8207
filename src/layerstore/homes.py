"""Homes of drivers that the store's is not: whether one is empty, and how one goes that a migration has left.

What is kept of its layers beside it goes with it. What lies in a home and is nothing of this store is never touched.
"""

from __future__ import annotations

import json
from pathlib import Path

from layerstore import facts, plugins
from layerstore.database import Database
from layerstore.errors import LayerstoreError, named
from layerstore.kernel.files import fsync_folder
from layerstore.layers import Layers, Storage, garbage
from layerstore.layers.diffs import committed
from layerstore.locks import FORMER, Locks
from layerstore.session import Session
from layerstore.values import frozen

__all__ = ["BESIDE", "Away", "remove_former"]

BESIDE = "migration"
"""In the data-root, while there is a migration: its database, and what is kept of its layers beside the new home."""


def remove_former(data_root: Path, database: Database, locks: Locks, session: Session, layers: Layers) -> None:
    """Remove what a store that was converted has kept of its former driver. `layers`: with the one that it has now."""
    if facts.FORMER not in facts.read(database):
        return
    with locks.at_once(FORMER) as free:
        known = facts.read(database)
        if not free or facts.FORMER not in known:
            return  # another process is at it, or was
        former = json.loads(known[facts.FORMER])
        away = Away(database, session)
        away.remove_home(data_root / former["driver"], former["entry"], layers.files.beside)
        away.move(data_root / BESIDE)
        garbage.sweep(layers, session.staging)
        fsync_folder(data_root)
        with database.write() as tx:
            facts.clear(tx, [facts.FORMER])


@frozen
class Away:
    """How a home that is not that of the store's driver goes."""

    database: Database
    session: Session

    def remove_home(self, home: Path, entry: str, beside: Path) -> None:
        """Remove it, with what is kept of its layers beside it."""
        if not home.is_dir():
            return
        kind = plugins.load(entry)
        storage = Storage(
            lambda: kind(home, self.session.folder, kind.options()),
            self.session,
            beside,
            lambda: facts.ask_for_recovery(self.database, self.session.stay),
        )
        try:
            storage.files.drop(committed(garbage.own_keys(storage.driver.keys())))
            foreign = next(iter(storage.driver.keys()), None)
        finally:
            storage.close()
        if foreign is not None:
            raise LayerstoreError(
                f"{home} holds {foreign}, which is nothing of this store",
                remedy="See what it is, and move it away.",
                path=home,
            )
        self.move(home)

    def move(self, folder: Path) -> None:
        """Move a folder into staging, to be deleted."""
        target = self.session.folder / f"{self.session.new_key()}.{folder.name}"
        with named("rename", folder):
            try:
                folder.rename(target)
            except FileNotFoundError:
                return
        self.session.discard(target)
