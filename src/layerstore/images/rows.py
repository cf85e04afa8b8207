"""The rows of images and tags: all SQL about them, as functions of a transaction."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from layerstore import reference
from layerstore.database import Transaction
from layerstore.digest import ChainID, ImageID, of_bytes
from layerstore.errors import Ambiguous, InvalidReference, NotFound
from layerstore.images import config as config_of

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


def resolve(tx: Transaction, ref: str) -> tuple[ImageID, str | None]:
    """The image that `ref` means, and its tag if it was meant by one. A name goes before the beginning of an ID."""
    match = _HEX.fullmatch(ref)
    if match is None or len(match[1]) < 64:
        try:
            name = reference.parse(ref)
        except InvalidReference:
            if match is None:
                raise
        else:
            row = tx.execute("SELECT image_id FROM tags WHERE name = ?", (name.full,)).fetchone()
            if row is not None and name.digest in (None, row[0]):
                return ImageID(row[0]), name.full
    if match is not None:
        first = f"sha256:{match[1]}"
        rows = tx.execute("SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2", (first, first + "g")).fetchall()
        if len(rows) > 1:
            raise Ambiguous(f"several images have an ID that begins with {match[1]}", remedy="Give more digits.")
        if rows:
            return ImageID(rows[0][0]), None
    raise NotFound(f"no such image: {ref}", remedy="`layerstore images` shows what there is.")


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


def set_tags(tx: Transaction, image: ImageID, tags: Sequence[str]) -> None:
    """Let these names, in full, mean the image."""
    tx.executemany(
        "INSERT INTO tags (name, image_id, tagged) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id, tagged = excluded.tagged",
        [(tag, image, time.time_ns()) for tag in tags],
    )


def taken_by(tx: Transaction, image: ImageID, tags: Sequence[str]) -> dict[str, ImageID]:
    """Those of the tags that mean another image than this one, and which."""
    query = "SELECT image_id FROM tags WHERE name = ? AND image_id != ?"
    found = ((tag, tx.execute(query, (tag, image)).fetchone()) for tag in tags)
    return {tag: ImageID(row[0]) for tag, row in found if row is not None}


def tags_of(tx: Transaction, image: ImageID) -> list[str]:
    """The tags of an image, in full."""
    return [row[0] for row in tx.execute("SELECT name FROM tags WHERE image_id = ? ORDER BY name", (image,))]


def shown(tx: Transaction, image: ImageID) -> str:
    """What people call the image: a tag, or its short ID."""
    tags = tags_of(tx, image)
    return reference.familiar(tags[0]) if tags else short(image)


def short(name: str) -> str:
    """The first 12 digits of an ID."""
    return name.removeprefix("sha256:")[:12]
