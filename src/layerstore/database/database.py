"""The connection of this process, and its transactions.

A transaction is short: nothing is unpacked, mounted or synced inside one. `write` is serial over all processes, by a
short sleep of our own: SQLite's back-off starves writers (one of sixteen waits up to 1.3 s, so it waits 0.1). What is
committed `durable` survives a power cut; what is not (who holds a mount, a lease) means nothing after one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from sqlite3 import Connection as Transaction
from types import TracebackType
from typing import Protocol

from layerstore.database import failures, kept, schema
from layerstore.database.schema import Tables
from layerstore.errors import FULL, Damaged, LayerstoreError, StoreClosed
from layerstore.kernel.files import fsync_folder
from layerstore.kernel.files.reserve import Reserve

__all__ = ["Database", "Transaction"]

PATIENCE = 60.0
"""Seconds to wait for other writers before it is an error."""


class Mirror(Protocol):
    """Who keeps a copy of some rows elsewhere, and so is told what transactions have touched."""

    def watch(self, connection: Transaction) -> None:
        """Note from here on what this connection touches. Called once more when there may be new tables."""

    def take(self, connection: Transaction, *, durable: bool) -> Sequence[tuple[str, str]]:
        """What was touched; called before a commit, and may write a little more."""

    def write(self, touched: Iterable[tuple[str, str]]) -> None:
        """Bring the copy in step. It may read here, and raises nothing."""


class Database:
    """One connection, used by one thread at a time and never while it waits for another process.

    A second connection a thread would cost an open (0.14 ms) and gain nothing: writers are serial anyway, and a read
    takes microseconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        reserve: Reserve | None = None,
        alone: Callable[[Callable[[], bool]], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Open it, and make it if there is none.

        `reserve` is given up when there is no room for a transaction. `alone` is entered while the schema of an earlier
        version is brought to this one: it sees to it that nobody else has the store open. It is given a function that
        tells whether that is still wanted, for another process may do it meanwhile.
        """
        self.path = path
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._durable: bool | None = None
        self._reserve = reserve
        self._alone = alone
        self._provided: set[Tables] = set()
        self._is_watched = False
        self.mirror: Mirror | None = None
        """Is told what was touched, if there is one."""
        self._connection: Transaction | None = None
        try:
            new = _make(path)
            self._kept = kept.Kept(path)
        except OSError as error:
            raise failures.refused(error, path) from error
        deadline = 0.0
        try:
            while True:
                try:
                    if self._connection is None:
                        self._fill_index()
                        self._connection = sqlite3.connect(
                            path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
                        )
                    self._prepare()
                    self._kept.hold()
                    break
                except sqlite3.Error as error:
                    deadline = self._waited(error, deadline)
            if new:
                fsync_folder(path.parent)
        except BaseException:
            self._disconnect()
            raise

    def write(self, *, durable: bool = True) -> AbstractContextManager[Transaction]:
        """A transaction that may write: all of it happens, or nothing. Of use inside: no system call that can wait.

        `durable`: it survives a power cut once this returns. One that is not survives the death of the process.
        Constraints that a statement breaks are raised as they are, `sqlite3.IntegrityError`.
        """
        return _Turn(self, durable=durable)

    def require_writable(self) -> None:
        """Raise `ReadOnlyStore` if nothing that lasts can be written: before work that would be in vain."""

    def read(self) -> AbstractContextManager[Transaction]:
        """A transaction that reads one state of the database, whatever is committed meanwhile."""
        return _Turn(self, durable=None)

    def _begin(self, *, durable: bool | None) -> tuple[Transaction, bool]:
        """Begin a transaction, and keep the lock; None is one that reads. Also tells if it is part of one begun before.

        Does so again and again while another process is in the way, without the lock in between.
        """
        deadline = 0.0
        while True:
            self._lock.acquire()
            try:
                connection = self._current()
                if durable is None and connection.in_transaction:  # of this very thread: no other has the lock
                    return connection, True
                self._try_to_begin(connection, durable=durable)
                return connection, False
            except sqlite3.Error as error:
                self._lock.release()
                deadline = self._waited(error, deadline)
            except BaseException:
                # An interrupt comes as soon as the statement is through: then there is a transaction already.
                if self._connection is not None and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._lock.release()
                raise

    def provide(self, tables: Tables) -> None:
        """See that the tables of an upper floor are there, in the version that it knows. A second time costs nothing.

        Raises `LayerstoreError` if a later version has made them.
        """
        if tables in self._provided:
            return
        with self.read() as tx:
            is_there = schema.version_of(tx, tables) == len(tables.steps)
        if not is_there:
            # Whatever is written into them lasts only with what came before; and what can only be read has a copy.
            with self.write(durable=False) as tx:
                schema.provide(tx, tables, self.path)
        self._is_watched = False
        self._provided.add(tables)

    def _try_to_begin(self, connection: Transaction, *, durable: bool | None) -> None:
        if durable is None:
            connection.execute("BEGIN")
            try:
                connection.execute("SELECT 1 FROM meta LIMIT 1").fetchone()  # only now is the state chosen
            except sqlite3.Error:
                connection.execute("ROLLBACK")
                raise
            return
        if self._reserve is not None and self._reserve.is_needed():
            # SQLite finds out at the commit only, and has undone the transaction by then.
            self._reserve.give_up()
            self._fold(connection, "PASSIVE")  # then the log begins anew, in the blocks that it has
        if durable is not self._durable:
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        if self.mirror is not None and not self._is_watched:
            self.mirror.watch(connection)
            self._is_watched = True
        connection.execute("BEGIN IMMEDIATE")

    def _end(self, connection: Transaction, error: BaseException | None, *, has_written: bool) -> None:
        """End the transaction: well, or after an error."""
        has_failed = False
        touched: Sequence[tuple[str, str]] = ()
        try:
            if error is None:
                if has_written and self.mirror is not None:
                    touched = self.mirror.take(connection, durable=bool(self._durable))
                connection.execute("COMMIT")
        except sqlite3.Error as failure:
            has_failed, touched = True, ()
            explained = self._translated(failure)
            if explained.errno in FULL and self._reserve is not None and self._reserve.give_up():
                explained.remedy = f"Some room that was set aside has been given up: try again. {explained.remedy}"
            raise explained from failure
        finally:
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if has_failed:
                    self._overwrite(connection)
            finally:
                self._lock.release()
        if touched and self.mirror is not None:
            self.mirror.write(touched)
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            raise self._translated(error) from error

    def _overwrite(self, connection: Transaction) -> None:
        """Put something else in the place of a transaction whose commit failed.

        It may be in the log, whole but for the sync, and whoever reads that anew would take it for committed; while we
        have undone what it speaks of. The next `open` puts the store in order.
        """
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA synchronous=NORMAL")
            self._durable = False
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute("DELETE FROM meta WHERE key = 'boot'")
                connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('request', hex(randomblob(8)))")
                connection.execute(f"PRAGMA user_version={_version(connection)}")  # which is always written
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _waited(self, error: sqlite3.Error, deadline: float) -> float:
        """Return if it may be tried again: after a short sleep if another process is in the way, until the deadline."""
        now = time.monotonic()
        deadline = deadline or now + PATIENCE
        if failures.is_busy(error) and now <= deadline:
            time.sleep(0.0005)
            return deadline
        explained = self._translated(error)
        if explained.errno in FULL and self._reserve is not None and self._reserve.give_up():
            return deadline
        raise explained from error

    def _fill_index(self) -> None:
        try:
            self._kept.fill_index()
        except OSError as error:
            if self._reserve is not None and self._reserve.gives_way(error):
                self._fill_index()

    def _prepare(self) -> None:
        connection = self._current()
        connection.execute("PRAGMA foreign_keys=ON")
        version = _version(connection)
        if version == 0:
            connection.execute("PRAGMA journal_mode=WAL")
            self._upgrade(connection)
        elif version > schema.VERSION:
            raise schema.later(f"the database {self.path}", version, schema.VERSION, self.path)
        elif version < schema.VERSION:
            with self._alone(lambda: _version(connection) < schema.VERSION):
                self._upgrade(connection)

    def _upgrade(self, connection: Transaction) -> None:
        connection.execute("PRAGMA synchronous=FULL")
        self._durable = True
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _version(connection)
            if version < schema.VERSION:  # another process may have been faster
                schema.raise_to(connection, version)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _current(self) -> Transaction:
        if self._connection is None:
            raise StoreClosed("the store is closed")
        if self._pid != os.getpid():
            raise StoreClosed("the store was opened before a fork", remedy="Open it again in the child process.")
        return self._connection

    def _translated(self, error: sqlite3.Error) -> LayerstoreError:
        return failures.explained(error, self.path, patience=PATIENCE)

    def version(self) -> str:
        """Another text after each commit that altered a row, of this process or any other."""
        with self.read() as tx:
            # SQLite counts in the first what other connections commit, in the second what this one alters.
            return f"{tx.execute('PRAGMA data_version').fetchone()[0]}.{tx.total_changes}"

    def problems(self) -> list[str]:
        """What SQLite finds wrong with its own file. @private"""
        rows: list[str] = []
        try:
            with self.read() as tx:
                rows += [row[0] for row in tx.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
                rows += [
                    f"{row[0]} refers to a row of {row[2]} that is missing"
                    for row in tx.execute("PRAGMA foreign_key_check")
                ]
        except Damaged as error:  # so much that it cannot look on
            rows.append(error.message)
        return rows

    def close(self) -> None:
        """Give the connection back. The files beside the database stay, for the next to open it. @private"""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                try:
                    self._tidy(self._connection)
                finally:
                    self._disconnect()

    def _tidy(self, connection: Transaction) -> None:
        """Leave a log that is short, and has room in it."""
        log = self.path.with_name(self.path.name + "-wal")
        try:
            if not kept.has_room(log) and not (self._reserve is not None and self._reserve.is_needed()):
                self._fold(connection, "TRUNCATE")
                kept.provide(log)
        except OSError:
            pass  # nobody waits for this

    def _fold(self, connection: Transaction, how: str) -> None:
        """Write what the log has into the database, if nobody is in the way: nothing is lost without."""
        try:
            connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        except sqlite3.Error:
            pass

    def _disconnect(self) -> None:
        try:
            if self._connection is not None:
                self._connection.close()
        finally:
            self._connection = None
            self._kept.release()


class _Turn:
    """One transaction, as a context manager. A class, for a generator would cost more than what most of them do."""

    __slots__ = ("_connection", "_database", "_durable", "_is_inner")

    def __init__(self, database: Database, *, durable: bool | None) -> None:
        self._database = database
        self._durable = durable

    def __enter__(self) -> Transaction:
        self._connection, self._is_inner = self._database._begin(durable=self._durable)
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_inner:
            self._database._lock.release()
        else:
            self._database._end(self._connection, error, has_written=self._durable is not None)


def _version(connection: Transaction) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _make(path: Path) -> bool:
    """Make the file, for its owner alone, if there is none.

    Never opens one that is there: closing it again would drop the locks that another connection of this process holds.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True
