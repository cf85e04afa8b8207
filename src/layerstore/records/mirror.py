"""Records are kept in step with rows: after each durable transaction those that it touched, after a crash all."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from layerstore import facts
from layerstore.database import Database, Transaction
from layerstore.errors import Damaged, KernelError, LayerstoreError
from layerstore.locks import Locks, of_program
from layerstore.records import rows
from layerstore.records.files import Records
from layerstore.session import Session

__all__ = ["MISSING", "Mirror"]

MISSING = "is missing"
PATIENCE = 0.5
"""Seconds that somebody has between his commit and his records."""


class Mirror:
    """The records of one open store. Writers of all processes take turns, so that no record is older than its rows."""

    def __init__(self, database: Database, locks: Locks, session: Session, folder: Path) -> None:
        self.records = Records(folder)
        self._session = session
        self._database = database
        self._locks = locks
        self._watched: set[str] = set()

    # --- for the database, which calls these ---

    def watch(self, connection: Transaction) -> None:
        """Note what this connection touches. Called before a transaction that writes, if tables may be new."""
        with suppress(LayerstoreError):  # without room for that, too, what is removed can be
            self._session.begin()  # so that whoever finds it dead puts records in step
        rows.watch(connection, self._watched)

    def take(self, connection: Transaction, *, durable: bool) -> Sequence[rows.Touched]:
        """What was touched, before a commit; one that is durable is counted."""
        touched = rows.take_touched(connection)
        if touched and durable:
            facts.count_commit(connection)
        return touched

    def write(self, touched: Iterable[rows.Touched]) -> None:
        """Bring these in step. What cannot be written now is, by the next `open`: no commit fails for it."""
        try:
            with self._locks.one(of_program("records")):
                with self._database.read() as tx:
                    there = rows.tables_of(tx)
                    found = [(kind, name, rows.of(tx, kind, name, there)) for kind, name in touched]
                    commits = facts.commits_of(facts.all_of(tx))
                for kind, name, value in found:
                    self.records.write(kind, name, value)
                self.records.note_commits(commits)
        except (LayerstoreError, OSError, MemoryError):  # the rows are committed: whoever wrote them has more to do
            facts.ask_for_recovery(self._database, self._session.stay)

    # --- the whole ---

    def differing(self) -> list[tuple[str, str, str]]:
        """Records that are missing, damaged, or say something else than the rows: kind, name, and what it is.

        Others commit first and write then, so what differs is looked at again for as long as that may take.
        """
        found = list(self._differing())
        deadline = time.monotonic() + PATIENCE
        while any(what != MISSING for _, _, what in found) and time.monotonic() < deadline:
            time.sleep(PATIENCE / 10)
            again = set(self._differing())
            found = [one for one in found if one in again]
        return found

    def _differing(self) -> Iterator[tuple[str, str, str]]:
        files = list(self.records.every())  # before the rows, so that each of them had its row
        with self._database.read() as tx:
            wanted, tables = list(rows.every(tx)), rows.tables_of(tx)
        for kind, name in wanted:
            if (what := self._difference(kind, name, tables)) is not None:
                yield kind, name, what
        there = {self.records.path(kind, name) for kind, name in wanted}
        for kind, name in files:
            if self.records.path(kind, name) not in there:
                yield kind, name, "is about nothing that there is"

    def put_in_step(self) -> None:
        """Write what differs, and remove what is about nothing.

        One that cannot be written keeps no other from it; then its error is raised.
        """
        failures: list[LayerstoreError] = []
        with self._locks.one(of_program("records")):
            for kind, name, what in list(self._differing()):
                with self._database.read() as tx:
                    gone = what.startswith("is about nothing")
                    value = None if gone else rows.of(tx, kind, name, rows.tables_of(tx))
                try:
                    self.records.write(kind, name, value)
                except LayerstoreError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def _difference(self, kind: str, name: str, tables: Collection[str]) -> str | None:
        with self._database.read() as tx:
            value = rows.of(tx, kind, name, tables)
        if value is None:
            return None
        try:
            found = self.records.read(kind, name)
        except Damaged:
            return "is damaged"
        except KernelError as error:
            return f"cannot be read: {os.strerror(error.errno or errno.EIO)}"
        if found is None:
            return MISSING
        return None if _same(found, value) else "is not what the database says"


def _same(found: object, value: object) -> bool:
    from layerstore.records.files import packed

    return isinstance(found, dict) and isinstance(value, dict) and packed(found) == packed(value)
