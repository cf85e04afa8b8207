"""The rows of containers that run: all SQL about them, as functions of a transaction.

A row says what a container is to be run with, and what was last known of it. Whether it runs is the kernel's to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from layerstore import NotFound, Tables, Transaction
from layerstore.runtime.life.processes import ProcessId, boot, parsed
from layerstore.values import frozen

__all__ = ["TABLES", "Row", "every", "find", "insert", "put", "put_health", "unsettled", "use_images"]

TABLES = Tables(
    "runtime",
    (
        """
CREATE TABLE runtime_containers (
    container TEXT PRIMARY KEY REFERENCES containers ON DELETE CASCADE,
    options TEXT NOT NULL,                  -- JSON: what it is to be run with
    status TEXT NOT NULL,                   -- created, starting, running, exited, dead
    engine TEXT NOT NULL,                   -- the name of the engine that runs it, or ran it last
    held INTEGER NOT NULL,                  -- by conmon
    boot TEXT NOT NULL,                     -- in which the following processes are
    owner TEXT NOT NULL,                    -- who starts it, or waits for its end: "PID TICKS", or ''
    keeper TEXT NOT NULL,                   -- conmon, or the engine itself
    init TEXT NOT NULL,                     -- its first process
    started INTEGER NOT NULL,               -- ns since the epoch, or 0
    finished INTEGER NOT NULL,
    exit_code INTEGER NOT NULL,
    oom INTEGER NOT NULL,                   -- the kernel killed something in it for want of memory
    error TEXT NOT NULL,                    -- why it could not be started
    health TEXT NOT NULL                    -- JSON: what its health check said; or ''
) WITHOUT ROWID;
CREATE INDEX runtime_containers_by_status ON runtime_containers (status);
""",
        """
-- Images that are mounted in containers, and so are not removed.
CREATE TABLE runtime_images (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    image TEXT NOT NULL REFERENCES images,
    PRIMARY KEY (container, image)
) WITHOUT ROWID;
CREATE INDEX runtime_images_by_image ON runtime_images (image);
""",
    ),
)


@frozen
class Row:
    """A container that is made to be run. See the table."""

    container: str
    options: str
    status: str = "created"
    engine: str = ""
    held: bool = False
    boot: str = ""
    owner: ProcessId | None = None
    keeper: ProcessId | None = None
    init: ProcessId | None = None
    started: int = 0
    finished: int = 0
    exit_code: int = 0
    oom: bool = False
    error: str = ""
    health: str = ""

    @property
    def is_of_this_boot(self) -> bool:
        """Are the processes that it names of this boot?"""
        return self.boot == boot()


_COLUMNS = (
    "container, options, status, engine, held, boot, owner, keeper, init, "
    "started, finished, exit_code, oom, error, health"
)


def insert(tx: Transaction, row: Row) -> None:
    """Write down a container, in place of what was known of it. Raises `NotFound` if it was removed meanwhile."""
    if tx.execute("SELECT 1 FROM containers WHERE id = ?", (row.container,)).fetchone() is None:
        raise NotFound(f"no such container: {row.container[:12]}")
    tx.execute(
        f"INSERT OR REPLACE INTO runtime_containers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row.container, row.options, *_values(row)),
    )


def use_images(tx: Transaction, container: str, images: Iterable[str]) -> None:
    """Write down which images a container mounts. Raises `NotFound` if one was removed meanwhile."""
    for image in images:
        if tx.execute("SELECT 1 FROM images WHERE id = ?", (image,)).fetchone() is None:
            raise NotFound(f"no such image: {image}")
        tx.execute("INSERT INTO runtime_images (container, image) VALUES (?, ?)", (container, image))


def put(tx: Transaction, row: Row) -> None:
    """Write down what is known of a container now. One that was removed meanwhile stays removed."""
    tx.execute(
        "UPDATE runtime_containers SET status = ?, engine = ?, held = ?, boot = ?, owner = ?, keeper = ?, init = ?, "
        "started = ?, finished = ?, exit_code = ?, oom = ?, error = ?, health = ? WHERE container = ?",
        (*_values(row), row.container),
    )


def put_health(tx: Transaction, container: str, health: str) -> None:
    """Write down what a container's health check says, as JSON."""
    tx.execute("UPDATE runtime_containers SET health = ? WHERE container = ?", (health, container))


def find(tx: Transaction, container: str) -> Row | None:
    """The row of a container; None if it was not made to be run."""
    found = tx.execute(f"SELECT {_COLUMNS} FROM runtime_containers WHERE container = ?", (container,)).fetchone()
    return None if found is None else _row(found)


def every(tx: Transaction) -> list[Row]:
    """All of them."""
    return [_row(found) for found in tx.execute(f"SELECT {_COLUMNS} FROM runtime_containers")]


def unsettled(tx: Transaction) -> list[Row]:
    """Those that were running, or about to, or whose removal was begun, when they were last written down."""
    query = f"SELECT {_COLUMNS} FROM runtime_containers WHERE status IN ('starting', 'running', 'dead')"
    return [_row(found) for found in tx.execute(query)]


def containers(tx: Transaction) -> set[str]:
    """The IDs of all containers of the store, made to be run or not."""
    return {str(found[0]) for found in tx.execute("SELECT id FROM containers")}


def _values(row: Row) -> tuple[Any, ...]:
    return (
        *(row.status, row.engine, row.held, row.boot),
        *(str(row.owner or ""), str(row.keeper or ""), str(row.init or "")),
        *(row.started, row.finished, row.exit_code, row.oom, row.error, row.health),
    )


def _row(found: Any) -> Row:
    container, options, status, engine, held, of_boot, owner, keeper, init, *rest = found
    started, finished, exit_code, oom, error, health = rest
    return Row(
        container=container,
        options=options,
        status=status,
        engine=engine,
        held=bool(held),
        boot=of_boot,
        owner=parsed(owner),
        keeper=parsed(keeper),
        init=parsed(init),
        started=started,
        finished=finished,
        exit_code=exit_code,
        oom=bool(oom),
        error=error,
        health=health,
    )
