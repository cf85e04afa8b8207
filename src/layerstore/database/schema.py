"""What the database holds, as a sequence of steps: each version of the schema is the one before, altered by one step.

A new store takes all of them, one of an earlier version those that it lacks, in one transaction. A step is never
altered once it was released.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from attrs import field

from layerstore.errors import LayerstoreError
from layerstore.values import frozen

__all__ = ["APPLICATION", "VERSION", "Tables", "later", "raise_to", "statements"]

APPLICATION = 0x6C617972
"""What `file` and others may know the database by."""

_STEPS = (
    """
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
""",
    """
-- A path is bytes, not text.
CREATE TABLE mounts_2 (
    container TEXT PRIMARY KEY REFERENCES containers ON DELETE CASCADE,
    mountpoint BLOB NOT NULL,
    mount_id INTEGER NOT NULL,              -- the kernel's, never used twice in one boot
    boot TEXT NOT NULL,
    namespace INTEGER NOT NULL,             -- the mount namespace
    keys TEXT NOT NULL                      -- of the layers that it reads
) WITHOUT ROWID;
INSERT INTO mounts_2 SELECT container, CAST(mountpoint AS BLOB), mount_id, boot, namespace, keys FROM mounts;
DROP TABLE mounts;
ALTER TABLE mounts_2 RENAME TO mounts;
UPDATE leases SET value = CAST(value AS BLOB) WHERE kind = 'mount';

-- Tables of upper floors, each with a version of its own.
CREATE TABLE schemas (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;
""",
    """
-- The manifests by which registries know an image, each under the name of a repository.
CREATE TABLE repo_digests (
    name TEXT NOT NULL,                     -- in full, without a tag: docker.io/library/debian
    digest TEXT NOT NULL,                   -- of the manifest, or of the index that it was chosen from
    image_id TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    PRIMARY KEY (name, digest)
) WITHOUT ROWID;
CREATE INDEX repo_digests_by_image ON repo_digests (image_id);
""",
    """
-- Processes that a container's tree was given to. One that the kernel no longer has, or of another boot, means nothing.
CREATE TABLE processes (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    pid INTEGER NOT NULL,
    started INTEGER NOT NULL,               -- the kernel's ticks since the boot
    boot TEXT NOT NULL,
    pid_namespace INTEGER NOT NULL,         -- in which that is its number
    mount_namespace INTEGER NOT NULL,       -- in which it has the tree: its number, used again,
    namespace_id INTEGER NOT NULL,          -- and its ID, never used again; 0 where the kernel has none
    root BLOB NOT NULL,                     -- where, as it writes names
    PRIMARY KEY (container, pid, started)
) WITHOUT ROWID;
""",
    """
-- A sealed piece of what containers have written, on another one, or on a chain of layers.
CREATE TABLE segments (
    key TEXT PRIMARY KEY,
    parent TEXT REFERENCES segments,
    chain_id TEXT REFERENCES layers,        -- what the lowest of its stack stands on
    number INTEGER NOT NULL,                -- of the segments in its stack, itself counted
    complete INTEGER NOT NULL,              -- it holds the whole tree, with all that is below it
    span TEXT,                              -- the key of one layer for itself and those down to `below`
    below TEXT REFERENCES segments          -- what the span stands on
) WITHOUT ROWID;
CREATE INDEX segments_by_parent ON segments (parent);
CREATE INDEX segments_by_below ON segments (below);
CREATE INDEX segments_by_chain ON segments (chain_id);

CREATE TABLE checkpoints (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    label TEXT NOT NULL,
    segment TEXT REFERENCES segments,       -- null: nothing was written in it, on that chain of layers
    image_id TEXT REFERENCES images,        -- what the container stood on, and by which name
    image_name TEXT NOT NULL,
    chain_id TEXT REFERENCES layers,
    created INTEGER NOT NULL,               -- ns since the epoch
    consistent INTEGER NOT NULL,            -- nothing was written while it was made
    PRIMARY KEY (container, label)
) WITHOUT ROWID;
CREATE INDEX checkpoints_by_segment ON checkpoints (segment);
CREATE INDEX checkpoints_by_image ON checkpoints (image_id);
CREATE INDEX checkpoints_by_chain ON checkpoints (chain_id);

ALTER TABLE containers ADD COLUMN segment TEXT REFERENCES segments;
CREATE INDEX containers_by_segment ON containers (segment);
""",
    """
-- A layer, with all below it, that is kept for an owner whom the core does not know, whatever processes and boots end.
CREATE TABLE lasting_leases (
    owner TEXT NOT NULL,                    -- a floor above: build
    name TEXT NOT NULL,                     -- what the owner knows it by
    chain_id TEXT NOT NULL REFERENCES layers,
    made INTEGER NOT NULL,                  -- ns since the epoch
    PRIMARY KEY (owner, name)
) WITHOUT ROWID;
CREATE INDEX lasting_leases_by_chain ON lasting_leases (chain_id);
""",
    """
-- From here on there are records beside the rows, which whoever opens the store first writes for all that there is.
DELETE FROM meta WHERE key = 'boot';
""",
    """
ALTER TABLE containers ADD COLUMN ids TEXT;  -- the IDs that it is mounted for, a line for each range
""",
    """
-- What is asked of one thing looks at no others, however many there are.
CREATE INDEX containers_by_key ON containers (key);
CREATE INDEX segments_by_span ON segments (span) WHERE span NOT NULL;
CREATE INDEX leases_by_session ON leases (session);
CREATE INDEX holds_by_session ON holds (session) WHERE session NOT NULL;

-- No layer has this diff any more, but somebody read it still: to be looked at again.
ALTER TABLE diffs ADD COLUMN forsaken INTEGER NOT NULL DEFAULT 0;
CREATE INDEX diffs_forsaken ON diffs (key) WHERE forsaken;
UPDATE diffs SET forsaken = 1 WHERE NOT EXISTS (SELECT 1 FROM layers l WHERE l.key = diffs.key);
""",
    """
ALTER TABLE containers ADD COLUMN lent INTEGER NOT NULL DEFAULT 0;  -- others mount it, and may write at any time

-- What a container was when it ended, kept for an owner whom the core does not know.
CREATE TABLE snapshots (
    id TEXT PRIMARY KEY,
    segment TEXT REFERENCES segments,       -- on top of that chain of layers, if there is one
    chain_id TEXT REFERENCES layers,
    holds TEXT NOT NULL,                    -- what is its own: segment, layer (the topmost), nothing
    created INTEGER NOT NULL,               -- ns since the epoch
    size INTEGER,                           -- what it occupies by itself; null: nobody has asked yet
    inodes INTEGER,
    diff_id TEXT                            -- of its diff; null: nobody has asked yet
) WITHOUT ROWID;
CREATE INDEX snapshots_by_segment ON snapshots (segment);
CREATE INDEX snapshots_by_chain ON snapshots (chain_id);
""",
    """
ALTER TABLE diffs ADD COLUMN lazy INTEGER NOT NULL DEFAULT 0;  -- not all of the tar is there yet
""",
    """
CREATE INDEX diffs_lazy ON diffs (key) WHERE lazy;
""",
)

VERSION = len(_STEPS)
"""Of the schema, `PRAGMA user_version`."""


def _is_name(_: object, __: object, value: str) -> None:
    if not (value.isidentifier() and value.isascii() and value.islower()):
        raise ValueError(f"{value!r} cannot begin the name of a table")


@frozen
class Tables:
    """The tables of one upper floor: a build cache, volumes, whatever lives by the store's transactions.

    They lie in the store's database and are read and written in its transactions. Each is called `<name>_...`, so that
    none can be taken for another's. They may refer to the core's (`image TEXT NOT NULL REFERENCES images`): then what
    is referred to cannot be removed (of an image or a container it is told who has it: the container that a column of
    that name means, or else the floor), or, with ON DELETE CASCADE, the row goes with it. A conversion to another
    driver keeps them; keys of layers change by it, ChainIDs and IDs of images and containers do not.

    `steps` are the SQL that makes version 1, that makes version 2 of version 1, and so on. A step that was released is
    never altered.
    """

    name: str = field(validator=_is_name)
    steps: tuple[str, ...]


def raise_to(connection: sqlite3.Connection, version: int) -> None:
    """Bring the core's tables from `version` to this one. Within a transaction of the caller."""
    for step in _STEPS[version:]:
        for statement in statements(step):
            connection.execute(statement)
    # The records beside the rows say what these were before: whoever opens the store now writes them anew.
    connection.execute("DELETE FROM meta WHERE key = 'boot'")
    connection.execute(f"PRAGMA application_id={APPLICATION}")
    connection.execute(f"PRAGMA user_version={VERSION}")


def provide(connection: sqlite3.Connection, tables: Tables, path: Path) -> None:
    """Make the tables of an upper floor, or bring them to their version. Within a transaction of the caller."""
    version = version_of(connection, tables)
    if version > len(tables.steps):
        raise later(f"the tables of {tables.name} in {path}", version, len(tables.steps), path)
    if version == len(tables.steps):
        return
    before = _names(connection)
    for step in tables.steps[version:]:
        for statement in statements(step):
            connection.execute(statement)
    strange = sorted(name for name in _names(connection) ^ before if not name.startswith(f"{tables.name}_"))
    if strange:
        raise ValueError(f"the tables of {tables.name} must be called {tables.name}_..., not {', '.join(strange)}")
    connection.execute(
        "INSERT INTO schemas (name, version) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET version = excluded.version",
        (tables.name, len(tables.steps)),
    )


def version_of(connection: sqlite3.Connection, tables: Tables) -> int:
    """Which version of an upper floor's tables there is; 0 if there are none."""
    row = connection.execute("SELECT version FROM schemas WHERE name = ?", (tables.name,)).fetchone()
    return 0 if row is None else int(row[0])


def later(what: str, version: int, known: int, path: Path) -> LayerstoreError:
    """The error for a schema that a later layerstore has made."""
    return LayerstoreError(
        f"{what} has schema version {version}, this layerstore knows {known}",
        remedy="The store was made or converted by a later version of layerstore: use that one.",
        path=path,
    )


def statements(script: str) -> Sequence[str]:
    """The statements of a script, one by one: `executescript` would end the transaction."""
    found, begun = [], ""
    for piece in script.split(";"):
        begun += f"{piece};"
        if sqlite3.complete_statement(begun):
            if begun.strip(" \n;"):
                found.append(begun)
            begun = ""
    return found


def _names(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    return {str(row[0]) for row in rows}
