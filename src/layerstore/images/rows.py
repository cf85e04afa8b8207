"""The rows of images and tags: all SQL about them, as functions of a transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerstore import reference
from layerstore.digest import ChainID, Digest, ImageID, beginning, hex_of, of_bytes, short
from layerstore.errors import Ambiguous, InvalidReference, NotFound
from layerstore.images import config as config_of
from layerstore.kernel.processes.identity import Identity
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Transaction

_COLUMNS = "i.id, i.config, i.chain_id, i.parent, i.created, i.stored"


@frozen
class Row:
    """An image as the database has it. `created`: as its config says; `stored`: ns since the epoch."""

    id: ImageID
    config: bytes
    chain_id: ChainID | None
    parent: ImageID | None
    created: str
    stored: int


def resolve(tx: Transaction, ref: str) -> tuple[ImageID, str | None]:
    """The image that `ref` means, and the name by which it was meant, in full: a tag, or a name with a digest.

    A name goes before the beginning of an ID. One with a digest means what was pulled or pushed under it, whatever tag
    is between: what has that digest is the same for ever.
    """
    first = beginning(ref)
    if first is None or len(hex_of(first)) < 64:
        try:
            name = reference.parse(ref)
        except InvalidReference:
            if first is None:
                raise
        else:
            if name.pinned is not None and (image := meant_by(tx, name.pinned)) is not None:
                return image, name.pinned
            if (image := meant_by(tx, name.full)) is not None and name.digest in (None, str(image)):
                return image, name.full
    if first is not None:
        rows = tx.execute("SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2", (first, first + "g")).fetchall()
        if len(rows) > 1:
            raise Ambiguous(f"several images have an ID that begins with {hex_of(first)}")
        if rows:
            return ImageID(rows[0][0]), None
    raise NotFound(f"no such image: {ref}", remedy=_beside(tx, ref))


def _beside(tx: Transaction, ref: str) -> str | None:
    """What to say where an image is not there by this tag, but by others; None where there is none of the name."""
    try:
        wanted = reference.parse(ref)
    except InvalidReference:
        return None
    name = wanted.name
    found = tx.execute("SELECT name FROM tags WHERE name > ? AND name < ? LIMIT 4", (f"{name}:", f"{name};")).fetchall()
    if not found:
        return None
    shown = [reference.familiar(row[0]) for row in found[:3]]
    more = ", ..." if len(found) > 3 else ""
    is_bare = wanted.tag is None and wanted.digest is None
    why = f": a name without a tag means :{reference.DEFAULT_TAG}" if is_bare else ""
    return f"There is {', '.join(shown)}{more}{why}."


def meant_by(tx: Transaction, name: str) -> ImageID | None:
    """The image that has exactly this name, in full: a tag, or a name with a digest."""
    repository, at, digest = name.partition("@")
    if at:
        query = "SELECT image_id FROM repo_digests WHERE name = ? AND digest = ?"
        row = tx.execute(query, (repository, digest)).fetchone()
    else:
        row = tx.execute("SELECT image_id FROM tags WHERE name = ?", (name,)).fetchone()
    return None if row is None else ImageID(row[0])


def find(tx: Transaction, image: ImageID) -> Row | None:
    """The row of the image with this ID."""
    found = tx.execute(f"SELECT {_COLUMNS} FROM images i WHERE i.id = ?", (image,)).fetchone()
    return None if found is None else Row(*found)


def every(tx: Transaction) -> list[Row]:
    """The rows of all images, in no order."""
    return [Row(*row) for row in tx.execute(f"SELECT {_COLUMNS} FROM images i")]


def count(tx: Transaction) -> int:
    """How many images there are."""
    return int(tx.execute("SELECT count(*) FROM images").fetchone()[0])


def top_of(tx: Transaction, image: ImageID) -> ChainID | None:
    """The topmost layer of an image; None if it has none. Raises `NotFound`."""
    found = tx.execute("SELECT chain_id FROM images WHERE id = ?", (image,)).fetchone()
    if found is None:
        raise NotFound(f"no such image: {short(image)}")
    return None if found[0] is None else ChainID(found[0])


def ending_with(tx: Transaction, chain: ChainID) -> list[ImageID]:
    """The images whose topmost layer this is."""
    found = tx.execute("SELECT id FROM images WHERE chain_id = ? ORDER BY id", (chain,)).fetchall()
    return [ImageID(row[0]) for row in found]


def built_on(tx: Transaction, image: ImageID) -> list[ImageID]:
    """The images that were built on an image, the newest first."""
    found = tx.execute("SELECT id FROM images WHERE parent = ? ORDER BY stored DESC", (image,)).fetchall()
    return [ImageID(row[0]) for row in found]


@frozen
class Standing:
    """A container on an image. `is_mounted`: there is a row of a mount; `runs`: one of its processes lives."""

    name: str
    is_mounted: bool
    runs: bool


def containers_on(tx: Transaction, image: ImageID) -> list[Standing]:
    """The containers on an image, by name."""
    return _standing(tx, "c.image_id = ?", (image,))


def containers_named(tx: Transaction, names: Sequence[str]) -> list[Standing]:
    """The containers of these names, by name."""
    return _standing(tx, f"c.name IN ({', '.join('?' * len(names))})", names) if names else []


def _standing(tx: Transaction, which: str, values: Sequence[str]) -> list[Standing]:
    living: set[str] = set()
    processes = tx.execute(
        "SELECT c.name, p.pid, p.started, p.boot, p.pid_namespace, p.mount_namespace, p.namespace_id "
        f"FROM processes p JOIN containers c ON c.id = p.container WHERE {which}",
        values,
    )
    for name, *identity in processes:
        if name not in living and Identity(*identity).is_alive:
            living.add(name)
    found = tx.execute(
        "SELECT c.name, m.mountpoint FROM containers c LEFT JOIN mounts m ON m.container = c.id "
        f"WHERE {which} ORDER BY c.name",
        values,
    )
    return [Standing(name, mountpoint is not None, name in living) for name, mountpoint in found]


def checkpoints_on(tx: Transaction, image: ImageID) -> list[tuple[str, str]]:
    """The checkpoints of an image whose containers stand on another by now: names of these, and labels."""
    found = tx.execute(
        "SELECT c.name, k.label FROM checkpoints k JOIN containers c ON c.id = k.container"
        " WHERE k.image_id = ?1 AND c.image_id IS NOT ?1 ORDER BY c.name, k.created",
        (image,),
    )
    return [(name, label) for name, label in found]


def upper_floors_on(tx: Transaction, image: ImageID) -> tuple[list[str], list[str]]:
    """Who keeps an image by a table of an upper floor (`Tables`): names of containers, and of other floors."""
    containers: list[str] = []
    floors: list[str] = []
    for floor, table, column in references(tx, "images"):
        if any(row[1] == "container" for row in tx.execute(f"PRAGMA table_info({table})")):
            names = tx.execute(
                f"SELECT DISTINCT c.name FROM {table} t JOIN containers c ON c.id = t.container WHERE t.{column} = ?"
                " ORDER BY c.name",
                (image,),
            )
            containers += [row[0] for row in names]
        elif tx.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", (image,)).fetchone() is not None:
            floors.append(floor)
    return containers, floors


def references(tx: Transaction, to: str) -> list[tuple[str, str, str]]:
    """The columns of upper floors that a row of this table cannot go before: floor, table, column."""
    tables = tx.execute(
        "SELECT s.name, m.name FROM schemas s JOIN sqlite_master m ON m.type = 'table'"
        " AND substr(m.name, 1, length(s.name) + 1) = s.name || '_'"
    ).fetchall()
    return [
        (floor, table, row[3])
        for floor, table in tables
        for row in tx.execute(f"PRAGMA foreign_key_list({table})").fetchall()
        if row[2] == to and row[6] in ("NO ACTION", "RESTRICT")
    ]


def is_unneeded(tx: Transaction, image: ImageID, *, even_tagged: bool) -> bool:
    """Is there the image, without a tag (or does that not matter), container, image built on it, or lease?"""
    query = (
        "SELECT EXISTS (SELECT 1 FROM images WHERE id = ?1)"
        " AND (?2 OR NOT EXISTS (SELECT 1 FROM tags WHERE image_id = ?1))"
        " AND NOT EXISTS (SELECT 1 FROM containers WHERE image_id = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE image_id = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM images WHERE parent = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM leases WHERE kind = 'image' AND value = ?1)"
    )
    return bool(tx.execute(query, (image, even_tagged)).fetchone()[0]) and not any(upper_floors_on(tx, image))


def delete(tx: Transaction, image: ImageID) -> None:
    """Delete the row of an image that has no tags."""
    tx.execute("DELETE FROM images WHERE id = ?", (image,))


def orphan(tx: Transaction, images: Sequence[str]) -> None:
    """Let what was built on these images have been built on nothing."""
    tx.executemany("UPDATE images SET parent = NULL WHERE parent = ?", [(image,) for image in images])


def insert(tx: Transaction, config: bytes, top: ChainID | None, parent: ImageID | None, tags: Sequence[str]) -> ImageID:
    """Write the row of an image, if it has none, and its tags. Its layers have their rows."""
    image = ImageID(of_bytes(config))
    created = config_of.created_of(config_of.read(config))
    tx.execute(
        "INSERT INTO images (id, config, chain_id, parent, created, stored) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO NOTHING",
        (image, config, top, parent, created, time.time_ns()),
    )
    set_tags(tx, image, tags)
    return image


def set_config(tx: Transaction, image: ImageID, config: bytes) -> None:
    """Let an image have the config that its ID says, where a byte of it has changed."""
    tx.execute("UPDATE images SET config = ? WHERE id = ?", (config, image))


def set_tags(tx: Transaction, image: ImageID, tags: Sequence[str]) -> None:
    """Let these names, in full, mean the image."""
    tx.executemany(
        "INSERT INTO tags (name, image_id, tagged) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id, tagged = excluded.tagged",
        [(tag, image, time.time_ns()) for tag in tags],
    )


def unset_tag(tx: Transaction, tag: str) -> None:
    """Take away a tag, in full."""
    tx.execute("DELETE FROM tags WHERE name = ?", (tag,))


def has_tag(tx: Transaction, tag: str) -> bool:
    """Is there this tag, in full?"""
    return tx.execute("SELECT 1 FROM tags WHERE name = ?", (tag,)).fetchone() is not None


def all_tags(tx: Transaction) -> dict[ImageID, list[str]]:
    """The tags of each image that has some, in full."""
    found: dict[ImageID, list[str]] = {}
    for name, image in tx.execute("SELECT name, image_id FROM tags ORDER BY name"):
        found.setdefault(ImageID(image), []).append(name)
    return found


def set_digest(tx: Transaction, image: ImageID, name: str, digest: Digest) -> None:
    """Note that a registry knows an image by this digest, in the repository of this full name."""
    tx.execute(
        "INSERT INTO repo_digests (name, digest, image_id) VALUES (?, ?, ?) "
        "ON CONFLICT (name, digest) DO UPDATE SET image_id = excluded.image_id",
        (name, digest, image),
    )


def unset_digest(tx: Transaction, pinned: str) -> None:
    """Take away a name with a digest, in full."""
    name, _, digest = pinned.partition("@")
    tx.execute("DELETE FROM repo_digests WHERE name = ? AND digest = ?", (name, digest))


def all_digests(tx: Transaction) -> dict[ImageID, list[str]]:
    """The names with digests of each image that has some, in full."""
    found: dict[ImageID, list[str]] = {}
    for name, digest, image in tx.execute("SELECT name, digest, image_id FROM repo_digests ORDER BY name, digest"):
        found.setdefault(ImageID(image), []).append(f"{name}@{digest}")
    return found


def digests_of(tx: Transaction, image: ImageID) -> list[str]:
    """The names with digests of an image, in full."""
    query = "SELECT name, digest FROM repo_digests WHERE image_id = ? ORDER BY name, digest"
    return [f"{name}@{digest}" for name, digest in tx.execute(query, (image,))]


def last_tagged(tx: Transaction, image: ImageID) -> int | None:
    """When an image last got a tag, in ns since the epoch; None if it has none."""
    found: int | None = tx.execute("SELECT max(tagged) FROM tags WHERE image_id = ?", (image,)).fetchone()[0]
    return found


def taken_by(tx: Transaction, image: ImageID, tags: Sequence[str]) -> dict[str, ImageID]:
    """Those of the tags that mean another image than this one, and which."""
    query = "SELECT image_id FROM tags WHERE name = ? AND image_id != ?"
    found = ((tag, tx.execute(query, (tag, image)).fetchone()) for tag in tags)
    return {tag: ImageID(row[0]) for tag, row in found if row is not None}


def tags_of(tx: Transaction, image: ImageID) -> list[str]:
    """The tags of an image, in full."""
    return [row[0] for row in tx.execute("SELECT name FROM tags WHERE image_id = ? ORDER BY name", (image,))]


def all_shown(tx: Transaction) -> dict[ImageID, str]:
    """What people call each image, as `shown` has it."""
    tags = all_tags(tx)
    images = [ImageID(row[0]) for row in tx.execute("SELECT id FROM images")]
    return {image: reference.familiar(tags[image][0]) if image in tags else short(image) for image in images}


def shown(tx: Transaction, image: ImageID) -> str:
    """What people call the image: a tag, or its short ID."""
    tags = tags_of(tx, image)
    return reference.familiar(tags[0]) if tags else short(image)
