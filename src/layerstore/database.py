"""The one source of truth: an SQLite database in WAL mode. Schema and transactions; the statements are their owners'.

A transaction is short: nothing is unpacked, mounted or synced inside one. `write` is serial over all processes, by a
short sleep of our own: SQLite's back-off starves writers (one of sixteen waits up to 1.3 s, so it waits 0.1). What is
committed `durable` survives a power cut; what is not (who holds a mount, a lease) means nothing after one.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection as Transaction
from types import TracebackType

from layerstore.errors import Damaged, KernelError, LayerstoreError, StoreClosed
from layerstore.kernel.files import fsync_folder

__all__ = ["Database", "Transaction"]

PATIENCE = 60.0
"""Seconds to wait for other writers before it is an error."""

_APPLICATION = 0x6C617972
_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- A diff as it is kept: one directory (or whatever the driver keeps) and one skeleton, both named by the key.
CREATE TABLE diffs (
    key TEXT PRIMARY KEY,
    diff_id TEXT NOT NULL,
    size INTEGER NOT NULL,                  -- of the tar
    entries INTEGER NOT NULL,
    root_opaque INTEGER NOT NULL,           -- hides every layer below
    implied TEXT NOT NULL,                  -- JSON: directories that the tar implies and does not list
    implied_digest TEXT NOT NULL,           -- what these looked like in the parents; equal: may be shared
    dependent INTEGER NOT NULL,             -- unpacked for one stack of parents, and never shared with another
    damaged INTEGER NOT NULL DEFAULT 0      -- found by check: the next load unpacks it anew
) WITHOUT ROWID;
CREATE INDEX diffs_by_diff_id ON diffs (diff_id);

CREATE TABLE layers (
    chain_id TEXT PRIMARY KEY,
    parent TEXT REFERENCES layers,
    key TEXT NOT NULL REFERENCES diffs
) WITHOUT ROWID;
CREATE INDEX layers_by_parent ON layers (parent);
CREATE INDEX layers_by_key ON layers (key);

CREATE TABLE images (
    id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    chain_id TEXT REFERENCES layers,        -- the topmost layer
    parent TEXT REFERENCES images,          -- the image that this one was committed on
    created TEXT NOT NULL,                  -- as the config says
    stored INTEGER NOT NULL                 -- ns since the epoch
);
CREATE INDEX images_by_chain ON images (chain_id);
CREATE INDEX images_by_parent ON images (parent);

CREATE TABLE tags (
    name TEXT PRIMARY KEY,                  -- in full: docker.io/library/debian:latest
    image_id TEXT NOT NULL REFERENCES images,
    tagged INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tags_by_image ON tags (image_id);

CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image_id TEXT REFERENCES images,
    image_name TEXT NOT NULL,               -- the tag it was made from, or ''
    chain_id TEXT REFERENCES layers,        -- the layer that its writable one stands on
    key TEXT NOT NULL,                      -- of the writable layer
    size INTEGER,                           -- its limit
    created INTEGER NOT NULL,               -- ns since the epoch
    boot TEXT NOT NULL,                     -- the boot it was made in
    touched INTEGER NOT NULL                -- it was mounted and unmounted: its files are on disk
) WITHOUT ROWID;
CREATE INDEX containers_by_image ON containers (image_id);
CREATE INDEX containers_by_chain ON containers (chain_id);

-- Mounts of containers. A row of another boot, or whose mount the kernel no longer has, means nothing.
CREATE TABLE mounts (
    container TEXT PRIMARY KEY REFERENCES containers ON DELETE CASCADE,
    mountpoint TEXT NOT NULL,
    mount_id INTEGER NOT NULL,              -- the kernel's, never used twice in one boot
    boot TEXT NOT NULL,
    namespace INTEGER NOT NULL,             -- the mount namespace
    keys TEXT NOT NULL                      -- of the layers that it reads
) WITHOUT ROWID;

-- One row for each time that somebody mounted; without a session: until it is unmounted by name.
CREATE TABLE holds (
    number INTEGER PRIMARY KEY,
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    session TEXT
);
CREATE INDEX holds_by_container ON holds (container);

-- What a running operation needs: an image, a layer (ChainID) or a diff (key). It ends with the session.
CREATE TABLE leases (
    number INTEGER PRIMARY KEY,
    session TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    purpose TEXT NOT NULL
);
CREATE INDEX leases_by_value ON leases (kind, value);
"""


class Database:
    """One connection, used by one thread at a time and never while it waits for another process.

    A second connection a thread would cost an open (0.14 ms) and gain nothing: writers are serial anyway, and a read
    takes microseconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._durable: bool | None = None
        new = _make(path)
        try:
            self._connection: Transaction | None = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        except sqlite3.Error as error:
            raise self._translated(error) from error
        deadline = 0.0
        try:
            while True:
                try:
                    self._prepare()
                    break
                except sqlite3.Error as error:
                    deadline = self._waited(error, deadline)
            if new:
                fsync_folder(path.parent)
        except BaseException:
            self._connection.close()
            raise

    def write(self, *, durable: bool = True) -> AbstractContextManager[Transaction]:
        """A transaction that may write: all of it happens, or nothing. Of use inside: no system call that can wait.

        `durable`: it survives a power cut once this returns. One that is not survives the death of the process.
        Constraints that a statement breaks are raised as they are, `sqlite3.IntegrityError`.
        """
        return _Turn(self, durable=durable)

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

    def _try_to_begin(self, connection: Transaction, *, durable: bool | None) -> None:
        if durable is None:
            connection.execute("BEGIN")
            try:
                connection.execute("SELECT 1 FROM meta LIMIT 1").fetchone()  # only now is the state chosen
            except sqlite3.Error:
                connection.execute("ROLLBACK")
                raise
            return
        if durable is not self._durable:
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        connection.execute("BEGIN IMMEDIATE")

    def _end(self, connection: Transaction, error: BaseException | None) -> None:
        """End the transaction: well, or after an error."""
        try:
            if error is None:
                connection.execute("COMMIT")
        except sqlite3.Error as failure:
            raise self._translated(failure) from failure
        finally:
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            finally:
                self._lock.release()
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            raise self._translated(error) from error

    def _waited(self, error: sqlite3.Error, deadline: float) -> float:
        """Sleep a little if `error` says that another process is in the way, but not beyond the deadline."""
        now = time.monotonic()
        deadline = deadline or now + PATIENCE
        if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or now > deadline:
            raise self._translated(error) from error
        time.sleep(0.0005)
        return deadline

    def _prepare(self) -> None:
        connection = self._current()
        connection.execute("PRAGMA foreign_keys=ON")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id={_APPLICATION}")
                    connection.execute(f"PRAGMA user_version={_VERSION}")
                    version = _VERSION
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        if version != _VERSION:
            raise LayerstoreError(
                f"{self.path} has schema version {version}, this layerstore knows {_VERSION}",
                remedy="The store was made by a later version: use that one.",
                path=self.path,
            )

    def _current(self) -> Transaction:
        if self._connection is None:
            raise StoreClosed("the store is closed")
        if self._pid != os.getpid():
            raise StoreClosed("the store was opened before a fork", remedy="Open it again in the child process.")
        return self._connection

    def _translated(self, error: sqlite3.Error) -> LayerstoreError:
        code = _code(error)
        number = _ERRNOS.get(code)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return Damaged(
                f"the database {self.path} is damaged: {error}",
                remedy="Restore it from a backup, or move the data-root away and load the images again.",
                path=self.path,
            )
        if code == sqlite3.SQLITE_BUSY:
            return KernelError(
                "sqlite",
                errno.EBUSY,
                path=self.path,
                detail=f"another process has been writing for {PATIENCE:.0f} s",
            )
        if number is None:
            return LayerstoreError(f"{self.path}: {error}", path=self.path)
        return KernelError("sqlite", number, path=self.path, detail=str(error), remedy=_REMEDIES.get(number))

    def problems(self) -> list[str]:
        """What SQLite finds wrong with its own file."""
        with self.read() as tx:
            rows = [row[0] for row in tx.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
            rows += [
                f"{row[0]} refers to a row of {row[2]} that is missing"
                for row in tx.execute("PRAGMA foreign_key_check")
            ]
        return rows

    def close(self) -> None:
        """Give the connection back. The last one of all processes folds the WAL into the database."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
                self._connection = None


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
            self._database._end(self._connection, error)


_ERRNOS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
_REMEDIES = {
    errno.ENOSPC: "Free some space on the filesystem of the data-root: `layerstore prune` may help.",
    errno.EACCES: "Run as the user that owns the data-root (usually root).",
    errno.EROFS: "The data-root must be writable.",
}


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF  # absent when the module itself raised it


def _make(path: Path) -> bool:
    """Make the file, for its owner alone, if there is none.

    Never opens one that is there: closing it again would drop the locks that another connection of this process holds.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise KernelError(
            "open", error.errno or errno.EIO, path=path, remedy=_REMEDIES.get(error.errno or 0)
        ) from error
    return True
