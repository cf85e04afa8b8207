"""The rows of blobs: all SQL about them, as functions of a transaction. And what keeps a blob: `needed`.

The tables are an upper floor's: a store that never saw a blob has none, and then all of it is empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from layerstore.blobs.values import DAY, KnownBlob, Place
from layerstore.database import Tables, Transaction
from layerstore.digest import DiffID, Digest, ImageID

if TYPE_CHECKING:
    from layerstore.manifests import Manifest

TABLES: Final = Tables(
    "blobs",
    (
        """
-- A form in which a layer's tar came, or was sent: this blob holds this tar.
CREATE TABLE blobs_layers (
    digest TEXT PRIMARY KEY,
    diff_id TEXT NOT NULL,
    size INTEGER NOT NULL,                  -- of the blob
    media_type TEXT NOT NULL,
    recipe TEXT,                            -- how its bytes are made of the tar again
    proved INTEGER NOT NULL,                -- it made them once
    known INTEGER NOT NULL                  -- since when, ns since the epoch
) WITHOUT ROWID;
CREATE INDEX blobs_layers_by_diff_id ON blobs_layers (diff_id);

-- Where a blob was seen: it can be had from there, and mounted into other repositories of that registry.
CREATE TABLE blobs_places (
    digest TEXT NOT NULL,
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    seen INTEGER NOT NULL,                  -- last, ns since the epoch
    PRIMARY KEY (digest, registry, repository)
) WITHOUT ROWID;

-- A blob that is kept as a file. Until `leased` nothing needs to refer to it.
CREATE TABLE blobs_files (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    leased INTEGER NOT NULL,                -- until when, ns since the epoch
    damaged INTEGER NOT NULL DEFAULT 0      -- found by check: the next that is put takes its place
) WITHOUT ROWID;

CREATE TABLE blobs_manifests (
    digest TEXT PRIMARY KEY,
    media_type TEXT NOT NULL,
    data BLOB NOT NULL,
    leased INTEGER NOT NULL
);

-- What a manifest names: a part of it (config, layer, manifest), or the subject that it is about.
CREATE TABLE blobs_links (
    manifest TEXT NOT NULL REFERENCES blobs_manifests ON DELETE CASCADE,
    target TEXT NOT NULL,
    is_subject INTEGER NOT NULL,
    PRIMARY KEY (manifest, target, is_subject)
) WITHOUT ROWID;
CREATE INDEX blobs_links_by_target ON blobs_links (target);

-- Which manifests, and indexes of such, an image came or was sent as.
CREATE TABLE blobs_images (
    image TEXT NOT NULL REFERENCES images ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    manifest TEXT NOT NULL,
    PRIMARY KEY (image, manifest)
) WITHOUT ROWID;
CREATE INDEX blobs_images_by_manifest ON blobs_images (manifest);

-- Whatever else needs a blob or manifest, under a name of its own.
CREATE TABLE blobs_holds (
    holder TEXT PRIMARY KEY,
    digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX blobs_holds_by_digest ON blobs_holds (digest);
""",
    ),
)

_MOST_PLACES: Final = 16
"""Of one registry, for one blob: those that were seen last."""

# What a needed manifest names is needed, and so is what is about it.
_NEEDED = """
WITH RECURSIVE needed (digest) AS (
    SELECT manifest FROM blobs_images
    UNION SELECT digest FROM blobs_holds
    UNION SELECT digest FROM blobs_manifests WHERE leased > :now
    UNION SELECT digest FROM blobs_files WHERE leased > :now
    UNION SELECT b.digest FROM blobs_layers b JOIN diffs d ON d.diff_id = b.diff_id
    UNION SELECT l.target FROM needed n JOIN blobs_links l ON l.manifest = n.digest WHERE NOT l.is_subject
    UNION SELECT l.manifest FROM needed n JOIN blobs_links l ON l.target = n.digest WHERE l.is_subject
)
"""
# A file goes too where the same bytes are kept in another way: as a plain layer, as an image's config.
_GOING = """
SELECT digest,
    EXISTS (SELECT 1 FROM diffs d WHERE d.diff_id = f.digest AND NOT d.damaged)
    OR EXISTS (SELECT 1 FROM images i WHERE i.id = f.digest)
FROM blobs_files f WHERE leased <= :now
"""


def are_there(tx: Transaction) -> bool:
    """Are there these tables?"""
    return tx.execute("SELECT 1 FROM schemas WHERE name = ?", (TABLES.name,)).fetchone() is not None


# --- layers and their forms ---


def insert_known(tx: Transaction, blob: KnownBlob) -> None:
    """Remember a form of a layer; a recipe that is known stays known."""
    tx.execute(
        "INSERT INTO blobs_layers (digest, diff_id, size, media_type, recipe, proved, known)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET diff_id = excluded.diff_id,"
        " size = excluded.size, media_type = excluded.media_type,"
        " recipe = CASE WHEN excluded.recipe IS NULL OR (proved AND NOT excluded.proved)"
        " THEN recipe ELSE excluded.recipe END,"
        " proved = max(proved, excluded.proved)",
        (blob.digest, blob.diff_id, blob.size, blob.media_type, blob.recipe, blob.is_proved, time.time_ns()),
    )


def find_known(tx: Transaction, digest: Digest) -> KnownBlob | None:
    """The layer that a blob holds."""
    row = tx.execute(f"SELECT {_KNOWN} FROM blobs_layers WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else _known(row)


def forms_of(tx: Transaction, diff_id: DiffID) -> list[KnownBlob]:
    """The forms in which a layer is known, in the order in which they became so."""
    query = f"SELECT {_KNOWN} FROM blobs_layers WHERE diff_id = ? ORDER BY known, digest"
    return [_known(row) for row in tx.execute(query, (diff_id,))]


def set_recipe(tx: Transaction, digest: Digest, recipe: str | None, *, is_proved: bool) -> None:
    """A recipe made what it should, or did not; None: there is none left."""
    tx.execute("UPDATE blobs_layers SET recipe = ?, proved = ? WHERE digest = ?", (recipe, is_proved, digest))


def guesses(tx: Transaction) -> list[Digest]:
    """The blobs of layers that are there, and are no files, whose recipes were not proved, the smallest first."""
    query = (
        "SELECT digest FROM blobs_layers b WHERE recipe NOT NULL AND NOT proved"
        " AND EXISTS (SELECT 1 FROM diffs d WHERE d.diff_id = b.diff_id AND NOT d.damaged)"
        " AND digest NOT IN (SELECT digest FROM blobs_files WHERE NOT damaged) ORDER BY size, digest"
    )
    return [Digest(row[0]) for row in tx.execute(query)]


def size_of_layer(tx: Transaction, diff_id: DiffID) -> int | None:
    """The bytes of a layer's tar, if it is kept and not known to be damaged."""
    query = (
        "SELECT d.size FROM diffs d WHERE d.diff_id = ? AND NOT d.damaged"
        " AND EXISTS (SELECT 1 FROM layers l WHERE l.key = d.key) LIMIT 1"
    )
    row = tx.execute(query, (diff_id,)).fetchone()
    return None if row is None else int(row[0])


def config_of(tx: Transaction, digest: Digest) -> bytes | None:
    """The image config with this digest."""
    row = tx.execute("SELECT config FROM images WHERE id = ?", (digest,)).fetchone()
    return None if row is None else bytes(row[0])


_KNOWN = "digest, diff_id, size, media_type, recipe, proved"


def _known(row: Sequence[object]) -> KnownBlob:
    digest, diff_id, size, media_type, recipe, proved = row
    return KnownBlob(
        Digest(str(digest)),
        DiffID(str(diff_id)),
        int(str(size)),
        str(media_type),
        None if recipe is None else str(recipe),
        bool(proved),
    )


# --- places ---


def insert_places(tx: Transaction, digests: Iterable[Digest], place: Place) -> None:
    """Remember that blobs are there."""
    now = time.time_ns()
    for digest in digests:
        tx.execute(
            "INSERT INTO blobs_places (digest, registry, repository, seen) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (digest, registry, repository) DO UPDATE SET seen = excluded.seen",
            (digest, place.registry, place.repository, now),
        )
        tx.execute(
            "DELETE FROM blobs_places WHERE digest = ?1 AND registry = ?2 AND repository NOT IN ("
            " SELECT repository FROM blobs_places WHERE digest = ?1 AND registry = ?2"
            " ORDER BY repository != ?3, seen DESC LIMIT ?4)",
            (digest, place.registry, place.repository, _MOST_PLACES),
        )


def places(tx: Transaction, digest: Digest) -> list[Place]:
    """Where a blob was seen, the last first."""
    query = "SELECT registry, repository FROM blobs_places WHERE digest = ? ORDER BY seen DESC, registry, repository"
    return [Place(*row) for row in tx.execute(query, (digest,))]


# --- manifests ---


def insert_manifest(
    tx: Transaction, manifest: Manifest, parts: Iterable[Digest], subject: Digest | None, images: Iterable[ImageID]
) -> None:
    """Keep a manifest, leased for a day from now."""
    tx.execute(
        "INSERT INTO blobs_manifests (digest, media_type, data, leased) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (digest) DO UPDATE SET media_type = excluded.media_type, leased = excluded.leased",
        (manifest.digest, manifest.media_type, manifest.data, time.time_ns() + DAY),
    )
    links = [(manifest.digest, part, 0) for part in parts]
    links += [] if subject is None else [(manifest.digest, subject, 1)]
    tx.executemany("INSERT OR IGNORE INTO blobs_links (manifest, target, is_subject) VALUES (?, ?, ?)", links)
    tx.executemany(
        "INSERT OR IGNORE INTO blobs_images (image, manifest) VALUES (?, ?)",
        [(image, manifest.digest) for image in images],
    )


def find_manifest(tx: Transaction, digest: Digest) -> Manifest | None:
    """The manifest with this digest."""
    query = "SELECT digest, media_type, data FROM blobs_manifests WHERE digest = ?"
    row = tx.execute(query, (digest,)).fetchone()
    return None if row is None else _manifest(row)


def manifests_of(tx: Transaction, image: ImageID) -> list[Manifest]:
    """The manifests that an image came or was sent as, those that came first before the others."""
    query = (
        "SELECT m.digest, m.media_type, m.data FROM blobs_images i JOIN blobs_manifests m ON m.digest = i.manifest"
        " WHERE i.image = ? ORDER BY m.rowid"
    )
    return [_manifest(row) for row in tx.execute(query, (image,))]


def about(tx: Transaction, subject: Digest) -> list[Manifest]:
    """The manifests whose subject is this one."""
    query = (
        "SELECT m.digest, m.media_type, m.data FROM blobs_links l JOIN blobs_manifests m ON m.digest = l.manifest"
        " WHERE l.target = ? AND l.is_subject ORDER BY m.rowid"
    )
    return [_manifest(row) for row in tx.execute(query, (subject,))]


def _manifest(row: Sequence[Any]) -> Manifest:
    from layerstore.manifests import Manifest  # few commands need them

    return Manifest(row[0], row[1], bytes(row[2]))


def delete_manifest(tx: Transaction, digest: Digest) -> bool:
    """Forget a manifest, whoever refers to it. False if it is not there."""
    tx.execute("DELETE FROM blobs_images WHERE manifest = ?", (digest,))
    return tx.execute("DELETE FROM blobs_manifests WHERE digest = ?", (digest,)).rowcount > 0


# --- what else needs a blob ---


def hold(tx: Transaction, holder: str, digest: Digest) -> None:
    """Let a holder need this one, and no other."""
    tx.execute("INSERT OR REPLACE INTO blobs_holds (holder, digest) VALUES (?, ?)", (holder, digest))


def holds(tx: Transaction, beginning: str) -> dict[str, Digest]:
    """The holders whose names begin so, and what each needs; in order."""
    query = "SELECT holder, digest FROM blobs_holds WHERE holder >= ?1 AND holder < ?2 ORDER BY holder"
    return {row[0]: Digest(row[1]) for row in tx.execute(query, (beginning, f"{beginning}\U0010ffff"))}


def let_go(tx: Transaction, holder: str) -> bool:
    """Let a holder need nothing any more. False if it did not."""
    return tx.execute("DELETE FROM blobs_holds WHERE holder = ?", (holder,)).rowcount > 0


# --- files ---


def insert_file(tx: Transaction, digest: Digest, size: int) -> None:
    """Write the row of a file that is in its place, leased for a day from now."""
    tx.execute(
        "INSERT INTO blobs_files (digest, size, leased) VALUES (?, ?, ?)"
        " ON CONFLICT (digest) DO UPDATE SET size = excluded.size, leased = excluded.leased, damaged = 0",
        (digest, size, time.time_ns() + DAY),
    )


def size_of_file(tx: Transaction, digest: Digest) -> int | None:
    """The bytes of a kept file, if it is not known to be damaged."""
    row = tx.execute("SELECT size FROM blobs_files WHERE digest = ? AND NOT damaged", (digest,)).fetchone()
    return None if row is None else int(row[0])


def has_file(tx: Transaction, digest: Digest) -> bool:
    """Has a file a row, damaged or not?"""
    return tx.execute("SELECT 1 FROM blobs_files WHERE digest = ?", (digest,)).fetchone() is not None


def files(tx: Transaction) -> dict[Digest, int]:
    """All kept files, and the bytes that they should have."""
    return {Digest(row[0]): int(row[1]) for row in tx.execute("SELECT digest, size FROM blobs_files ORDER BY digest")}


def set_damaged(tx: Transaction, digest: Digest, *, damaged: bool) -> None:
    """Note that a file is not what it was, or is again."""
    tx.execute("UPDATE blobs_files SET damaged = ? WHERE digest = ?", (damaged, digest))


def delete_file(tx: Transaction, digest: Digest) -> bool:
    """Forget a file, whoever refers to it. False if there is none."""
    return tx.execute("DELETE FROM blobs_files WHERE digest = ?", (digest,)).rowcount > 0


def has_files(tx: Transaction) -> bool:
    """Is any file kept?"""
    return tx.execute("SELECT 1 FROM blobs_files LIMIT 1").fetchone() is not None


def unneeded(tx: Transaction) -> tuple[list[Digest], list[Digest]]:
    """The manifests, and the files, that nothing needs."""
    now = {"now": time.time_ns()}
    needed = {row[0] for row in tx.execute(f"{_NEEDED} SELECT digest FROM needed", now)}
    manifests = [Digest(row[0]) for row in tx.execute("SELECT digest FROM blobs_manifests") if row[0] not in needed]
    files = [Digest(row[0]) for row in tx.execute(_GOING, now) if row[1] or row[0] not in needed]
    return manifests, files


def release_unneeded(tx: Transaction) -> list[Digest]:
    """Delete the rows of all that nothing needs; the files of these may go after the commit."""
    manifests, files = unneeded(tx)
    for digest in manifests:
        delete_manifest(tx, digest)
    for digest in files:
        delete_file(tx, digest)
    before = {"now": time.time_ns() - DAY}
    tx.execute(
        "DELETE FROM blobs_layers WHERE known < :now AND NOT EXISTS"
        " (SELECT 1 FROM diffs d WHERE d.diff_id = blobs_layers.diff_id)"
        " AND digest NOT IN (SELECT digest FROM blobs_files) AND digest NOT IN (SELECT target FROM blobs_links)",
        before,
    )
    tx.execute(
        "DELETE FROM blobs_places WHERE seen < :now AND digest NOT IN (SELECT digest FROM blobs_layers"
        " UNION ALL SELECT digest FROM blobs_files UNION ALL SELECT digest FROM blobs_manifests"
        " UNION ALL SELECT target FROM blobs_links UNION ALL SELECT id FROM images)",
        before,
    )
    return files
