"""The rows of repositories: all SQL about them, as functions of a transaction.

A repository is there as soon as something is in it: a tag of an image, a manifest, a blob.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from layerstore.database import Tables, Transaction
from layerstore.digest import ImageID
from layerstore.values import frozen

TABLES: Final = Tables(
    "repositories",
    (
        """
-- A manifest or index that was pushed into a repository. `blobs` has its bytes.
CREATE TABLE repositories_manifests (
    repository TEXT NOT NULL,               -- in full: docker.io/library/debian
    digest TEXT NOT NULL,                   -- sha256
    media_type TEXT NOT NULL,               -- as it was pushed
    size INTEGER NOT NULL,
    subject TEXT,                           -- the digest of the manifest that it is about
    artifact_type TEXT NOT NULL,            -- what it is, for who asks for referrers; or ''
    annotations TEXT NOT NULL,              -- JSON
    pushed INTEGER NOT NULL,                -- ns since the epoch
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX repositories_manifests_by_digest ON repositories_manifests (digest);
CREATE INDEX repositories_manifests_by_subject ON repositories_manifests (repository, subject, digest);

-- What a manifest needs: blobs, and other manifests.
CREATE TABLE repositories_parts (
    manifest TEXT NOT NULL,
    part TEXT NOT NULL,
    PRIMARY KEY (manifest, part)
) WITHOUT ROWID;
CREATE INDEX repositories_parts_by_part ON repositories_parts (part);

-- A tag as it was pushed. Where it made an image, it counts for as long as the tag of the store means that image.
CREATE TABLE repositories_tags (
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest TEXT NOT NULL,
    called TEXT NOT NULL,                   -- the same manifest by the digest by which it was pushed, perhaps sha512
    image_id TEXT,                          -- the image that it made, or NULL: there is none in it
    PRIMARY KEY (repository, tag)
) WITHOUT ROWID;

-- A blob that was pushed into a repository, or mounted.
CREATE TABLE repositories_blobs (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,                   -- sha256
    linked INTEGER NOT NULL,                -- ns since the epoch
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX repositories_blobs_by_digest ON repositories_blobs (digest);

-- What is known by a digest of another algorithm.
CREATE TABLE repositories_aliases (
    alias TEXT PRIMARY KEY,                 -- sha512:…
    digest TEXT NOT NULL                    -- sha256:…
) WITHOUT ROWID;
""",
    ),
)


@frozen
class Tag:
    """A tag that was pushed: the manifest that it means, and the image that it made, if there is one in it.

    `called`: the digest of the manifest by the algorithm by which it was pushed.
    """

    digest: str
    called: str
    image: ImageID | None


@frozen
class Kept:
    """A manifest of a repository, without its bytes."""

    digest: str
    media_type: str
    size: int
    artifact_type: str
    annotations: Mapping[str, str]


def are_there(tx: Transaction) -> bool:
    """Are there these tables? There are none before the first push."""
    return tx.execute("SELECT 1 FROM schemas WHERE name = ?", (TABLES.name,)).fetchone() is not None


# --- tags of images ---


def images_in(tx: Transaction, repository: str) -> dict[str, ImageID]:
    """The tags under which the store has images in a repository, and which."""
    found = tx.execute(
        "SELECT name, image_id FROM tags WHERE name >= ? AND name < ?", (f"{repository}:", f"{repository};")
    )
    return {name[len(repository) + 1 :]: ImageID(image) for name, image in found}


def image_ids_in(tx: Transaction, repository: str) -> set[ImageID]:
    """The images that the store has in a repository."""
    found = tx.execute(
        "SELECT DISTINCT image_id FROM tags WHERE name >= ? AND name < ?", (f"{repository}:", f"{repository};")
    )
    return {ImageID(row[0]) for row in found}


def shown(tx: Transaction, repository: str, after: str, count: int) -> list[str]:
    """The tags of a repository behind `after`, at most so many, in the order of their bytes; -1 is all.

    Those that were pushed and made an image count for as long as the store has that by this name.
    """
    begin = len(repository) + 2
    listed = tx.execute(
        f"SELECT substr(name, {begin}) FROM tags WHERE name > ? AND name < ? ORDER BY name LIMIT ?",
        (f"{repository}:{after}", f"{repository};", count),
    ).fetchall()
    if are_there(tx):
        listed += tx.execute(
            "SELECT tag FROM repositories_tags WHERE repository = ? AND tag > ? AND image_id IS NULL"
            " ORDER BY tag LIMIT ?",
            (repository, after, count),
        ).fetchall()
    found = sorted({str(row[0]) for row in listed})
    return found if count < 0 else found[:count]


def image_of(tx: Transaction, repository: str, tag: str) -> ImageID | None:
    """The image that a tag of the store means."""
    row = tx.execute("SELECT image_id FROM tags WHERE name = ?", (f"{repository}:{tag}",)).fetchone()
    return None if row is None else ImageID(row[0])


def names(tx: Transaction) -> set[str]:
    """All repositories in which something is."""
    found = {str(row[0]).rpartition(":")[0] for row in tx.execute("SELECT name FROM tags")}
    if not are_there(tx):
        return found
    for table in ("manifests", "tags", "blobs"):
        found |= {str(row[0]) for row in tx.execute(f"SELECT DISTINCT repository FROM repositories_{table}")}
    return found


def is_there(tx: Transaction, repository: str) -> bool:
    """Is something in a repository?"""
    query = "SELECT 1 FROM tags WHERE name >= ? AND name < ? LIMIT 1"
    if tx.execute(query, (f"{repository}:", f"{repository};")).fetchone() is not None:
        return True
    return are_there(tx) and any(
        tx.execute(f"SELECT 1 FROM repositories_{table} WHERE repository = ? LIMIT 1", (repository,)).fetchone()
        for table in ("manifests", "blobs")
    )


# --- tags as they were pushed ---


def tags(tx: Transaction, repository: str) -> dict[str, Tag]:
    """The tags that were pushed into a repository."""
    if not are_there(tx):
        return {}
    found = tx.execute(
        "SELECT tag, digest, called, image_id FROM repositories_tags WHERE repository = ?", (repository,)
    )
    return {tag: Tag(digest, called, None if image is None else ImageID(image)) for tag, digest, called, image in found}


def tag_of(tx: Transaction, repository: str, tag: str) -> Tag | None:
    """A tag that was pushed into a repository."""
    if not are_there(tx):
        return None
    query = "SELECT digest, called, image_id FROM repositories_tags WHERE repository = ? AND tag = ?"
    row = tx.execute(query, (repository, tag)).fetchone()
    return None if row is None else Tag(row[0], row[1], None if row[2] is None else ImageID(row[2]))


def set_tag(tx: Transaction, repository: str, tag: str, meant: Tag) -> None:
    """Let a tag mean a manifest, and the image that it made. Without one, no image of the store has the name."""
    tx.execute(
        "INSERT INTO repositories_tags (repository, tag, digest, called, image_id) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (repository, tag) DO UPDATE"
        " SET digest = excluded.digest, called = excluded.called, image_id = excluded.image_id",
        (repository, tag, meant.digest, meant.called, meant.image),
    )
    if meant.image is None:
        tx.execute("DELETE FROM tags WHERE name = ?", (f"{repository}:{tag}",))


def unset_tags(tx: Transaction, repository: str, those: Iterable[str]) -> None:
    """Forget tags that were pushed."""
    tx.executemany(
        "DELETE FROM repositories_tags WHERE repository = ? AND tag = ?", [(repository, tag) for tag in those]
    )


# --- manifests ---


def keep_manifest(
    tx: Transaction,
    repository: str,
    kept: Kept,
    *,
    subject: str | None,
    parts: Collection[str],
    blobs: Collection[str],
) -> None:
    """Write down a manifest, what it needs, and that those blobs are in the repository."""
    tx.execute(
        "INSERT INTO repositories_manifests"
        " (repository, digest, media_type, size, subject, artifact_type, annotations, pushed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (repository, digest)"
        " DO UPDATE SET media_type = excluded.media_type, pushed = excluded.pushed",
        (
            repository,
            kept.digest,
            kept.media_type,
            kept.size,
            subject,
            kept.artifact_type,
            json.dumps(kept.annotations, separators=(",", ":")),
            time.time_ns(),
        ),
    )
    tx.executemany(
        "INSERT INTO repositories_parts (manifest, part) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(kept.digest, part) for part in parts],
    )
    link(tx, repository, blobs)


def manifest(tx: Transaction, repository: str, digest: str) -> Kept | None:
    """A manifest of a repository."""
    if not are_there(tx):
        return None
    found = _kept(tx, "repository = ? AND digest = ?", (repository, digest))
    return found[0] if found else None


def referrers(tx: Transaction, repository: str, subject: str, after: str) -> list[Kept]:
    """The manifests of a repository that are about another, in the order of their digests."""
    if not are_there(tx):
        return []
    return _kept(tx, "repository = ? AND subject = ? AND digest > ? ORDER BY digest", (repository, subject, after))


def _kept(tx: Transaction, where: str, values: Sequence[str]) -> list[Kept]:
    columns = "digest, media_type, size, artifact_type, annotations"
    found = tx.execute(f"SELECT {columns} FROM repositories_manifests WHERE {where}", values)
    return [
        Kept(name, media_type, size, artifact_type, json.loads(annotations))
        for name, media_type, size, artifact_type, annotations in found
    ]


def forget_manifest(tx: Transaction, repository: str, digest: str) -> None:
    """Take a manifest out of a repository."""
    tx.execute("DELETE FROM repositories_manifests WHERE repository = ? AND digest = ?", (repository, digest))
    if tx.execute("SELECT 1 FROM repositories_manifests WHERE digest = ?", (digest,)).fetchone() is None:
        tx.execute("DELETE FROM repositories_parts WHERE manifest = ?", (digest,))


def known_by(tx: Transaction, repository: str, digest: str) -> ImageID | None:
    """The image that is known by the digest of a manifest or index of this repository."""
    row = tx.execute("SELECT image_id FROM repo_digests WHERE name = ? AND digest = ?", (repository, digest)).fetchone()
    return None if row is None else ImageID(row[0])


def needing(tx: Transaction, repository: str, part: str) -> str | None:
    """A manifest of a repository that needs a blob or another manifest."""
    row = tx.execute(
        "SELECT m.digest FROM repositories_parts p JOIN repositories_manifests m ON m.digest = p.manifest"
        " WHERE p.part = ? AND m.repository = ? LIMIT 1",
        (part, repository),
    ).fetchone()
    return None if row is None else str(row[0])


# --- blobs ---


def link(tx: Transaction, repository: str, digests: Iterable[str]) -> None:
    """Put blobs into a repository, which the store has."""
    now = time.time_ns()
    tx.executemany(
        "INSERT INTO repositories_blobs (repository, digest, linked) VALUES (?, ?, ?) "
        "ON CONFLICT (repository, digest) DO UPDATE SET linked = excluded.linked",
        [(repository, digest, now) for digest in digests],
    )


def is_linked(tx: Transaction, repository: str, digest: str) -> bool:
    """Is a blob in a repository?"""
    if not are_there(tx):
        return False
    found = tx.execute("SELECT 1 FROM repositories_blobs WHERE repository = ? AND digest = ?", (repository, digest))
    return found.fetchone() is not None


def unlink(tx: Transaction, repository: str, digest: str) -> None:
    """Take a blob out of a repository."""
    tx.execute("DELETE FROM repositories_blobs WHERE repository = ? AND digest = ?", (repository, digest))


# --- other algorithms ---


def set_alias(tx: Transaction, alias: str, digest: str) -> None:
    """Let a digest of another algorithm mean what this one does."""
    tx.execute("INSERT INTO repositories_aliases (alias, digest) VALUES (?, ?) ON CONFLICT DO NOTHING", (alias, digest))


def known_as(tx: Transaction, name: str) -> str | None:
    """The sha256 digest of what has this digest."""
    if name.startswith("sha256:"):
        return name
    if not are_there(tx):
        return None
    row = tx.execute("SELECT digest FROM repositories_aliases WHERE alias = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


# --- what nobody needs ---

_LIVE = """
WITH RECURSIVE live (repository, digest) AS (
    SELECT p.repository, p.digest FROM repositories_tags p
    LEFT JOIN tags t ON t.name = p.repository || ':' || p.tag WHERE t.image_id IS p.image_id
    UNION SELECT repository, digest FROM repositories_manifests WHERE pushed > :before
    UNION SELECT name, digest FROM repo_digests
    UNION SELECT l.repository, p.part FROM live l JOIN repositories_parts p ON p.manifest = l.digest
    UNION SELECT l.repository, m.digest FROM live l
    JOIN repositories_manifests m ON m.repository = l.repository AND m.subject = l.digest
)
"""


def unneeded(tx: Transaction, before: int) -> list[tuple[str, str]]:
    """The manifests, each with its repository, that no tag means: nor is a part of such, about such, or new."""
    query = f"{_LIVE} SELECT repository, digest FROM repositories_manifests"
    query += " WHERE (repository, digest) NOT IN (SELECT repository, digest FROM live)"
    return [(repository, digest) for repository, digest in tx.execute(query, {"before": before})]


def forget_leftovers(tx: Transaction, before: int) -> None:
    """Forget tags that mean nothing any more, blobs that no manifest of their repository needs, and other names."""
    tx.execute(
        "DELETE FROM repositories_tags WHERE NOT EXISTS (SELECT 1 FROM repositories_manifests m"
        " WHERE m.repository = repositories_tags.repository AND m.digest = repositories_tags.digest)"
    )
    tx.execute(
        "DELETE FROM repositories_blobs WHERE linked <= ? AND NOT EXISTS (SELECT 1 FROM repositories_parts p"
        " JOIN repositories_manifests m ON m.digest = p.manifest"
        " WHERE p.part = repositories_blobs.digest AND m.repository = repositories_blobs.repository)",
        (before,),
    )
    tx.execute(
        "DELETE FROM repositories_aliases WHERE digest NOT IN (SELECT digest FROM repositories_blobs)"
        " AND digest NOT IN (SELECT digest FROM repositories_manifests)"
    )
