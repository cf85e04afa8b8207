"""The rows of what is remembered of files that were read: all SQL about it, as functions of a transaction.

All of it may be lost without harm: what is not here is read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from layerstore import Tables, Transaction

__all__ = ["TABLES", "Identity"]

Identity = tuple[bytes, bytes]
"""Device and inode of a file, and what must be the same for its content to be: mode, size, mtime, ctime."""

_MOST_FILES = 1_000_000
_MOST_SELECTIONS = 100_000
_MOST_DOWNLOADS = 20_000
_AT_ONCE = 500

TABLES = Tables(
    "build_context",
    (
        """
-- The digest of a file's content and xattrs.
CREATE TABLE build_context_files (
    place BLOB PRIMARY KEY,                 -- device and inode
    state BLOB NOT NULL,                    -- mode, size, mtime and ctime when it was read
    digest BLOB NOT NULL,
    day INTEGER NOT NULL                    -- on which it was read, since the epoch
) WITHOUT ROWID;

-- The digest of a selection of files, by the digest of what a walk has found of them.
CREATE TABLE build_context_selections (
    walk TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    day INTEGER NOT NULL
) WITHOUT ROWID;
""",
        """
-- What lay at a URL, and by which words its server tells whether it does still.
CREATE TABLE build_context_downloads (
    source TEXT PRIMARY KEY,                -- digest of the URL and of what is left out of it
    etag TEXT NOT NULL,                     -- "" where the server said none
    modified TEXT NOT NULL,
    digest TEXT NOT NULL,                   -- of its content, as a key has it
    day INTEGER NOT NULL
) WITHOUT ROWID;
""",
    ),
)


def files(tx: Transaction, places: Sequence[bytes]) -> dict[Identity, bytes]:
    """What is known of the files at these places, by their identity when they were read."""
    query = "SELECT place, state, digest FROM build_context_files WHERE place IN"
    return {(place, state): digest for place, state, digest in _each(tx, query, places)}


def add_files(tx: Transaction, new: Iterable[tuple[Identity, bytes]], day: int) -> None:
    """Remember files; those that were read longest ago go when there are too many."""
    query = "INSERT OR REPLACE INTO build_context_files (place, state, digest, day) VALUES (?, ?, ?, ?)"
    tx.executemany(query, ((*identity, digest, day) for identity, digest in new))
    _trim(tx, "build_context_files", "place", _MOST_FILES)


def selection(tx: Transaction, walk: str) -> str | None:
    """The digest of a selection, by that of a walk."""
    return selections(tx, [walk]).get(walk)


def selections(tx: Transaction, walks: Sequence[str]) -> dict[str, str]:
    """The same of several, of those that are known."""
    query = "SELECT walk, digest FROM build_context_selections WHERE walk IN"
    return {str(walk): str(digest) for walk, digest in _each(tx, query, walks)}


def add_selections(tx: Transaction, new: Iterable[tuple[str, str]], day: int) -> None:
    """Remember selections, or parts of them; the oldest go when there are too many."""
    query = "INSERT OR REPLACE INTO build_context_selections (walk, digest, day) VALUES (?, ?, ?)"
    tx.executemany(query, ((walk, digest, day) for walk, digest in new))
    _trim(tx, "build_context_selections", "walk", _MOST_SELECTIONS)


def download(tx: Transaction, source: str) -> tuple[str, str, str] | None:
    """ETag, Last-Modified and digest of what lay there."""
    query = "SELECT etag, modified, digest FROM build_context_downloads WHERE source = ?"
    found = tx.execute(query, (source,)).fetchone()
    return None if found is None else (str(found[0]), str(found[1]), str(found[2]))


def add_download(tx: Transaction, source: str, seen: tuple[str, str, str], day: int) -> None:
    """Remember what lies there now; the oldest go when there are too many."""
    query = (
        "INSERT OR REPLACE INTO build_context_downloads (source, etag, modified, digest, day) VALUES (?, ?, ?, ?, ?)"
    )
    tx.execute(query, (source, *seen, day))
    _trim(tx, "build_context_downloads", "source", _MOST_DOWNLOADS)


def _each(tx: Transaction, query: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
    """The rows for all of these values, of which `query`, which ends with IN, is asked many at a time."""
    rest = iter(values)
    while some := tuple(islice(rest, _AT_ONCE)):
        yield from tx.execute(f"{query} ({', '.join('?' * len(some))})", some)


def _trim(tx: Transaction, table: str, key: str, most: int) -> None:
    (count,) = tx.execute(f"SELECT count(*) FROM {table}").fetchone()
    if count > most:
        query = f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} ORDER BY day LIMIT ?)"
        tx.execute(query, (count - most // 2,))
