"""The rows of what made which image: all SQL about it, as functions of a transaction."""

from __future__ import annotations

import json

from layerstore import ImageID, Tables, Transaction
from layerstore.values import frozen

__all__ = ["TABLES", "Written", "get", "put"]

TABLES = Tables(
    "build_lines",
    (
        """
CREATE TABLE build_lines_images (
    image TEXT PRIMARY KEY REFERENCES images ON DELETE CASCADE,
    file TEXT NOT NULL,                     -- the Dockerfile, as people know it: a path, a URL with a path
    lines TEXT NOT NULL                     -- JSON: first and last line of each of the image's last lines of history
) WITHOUT ROWID;
""",
    ),
)


@frozen
class Written:
    """The Dockerfile that made an image, and the lines of it that its last lines of history are, the oldest first."""

    file: str
    lines: tuple[tuple[int, int], ...]


def put(tx: Transaction, image: ImageID, written: Written) -> None:
    """Write it down, if the image is there still."""
    query = "INSERT OR REPLACE INTO build_lines_images SELECT id, ?, ? FROM images WHERE id = ?"
    file = written.file.encode(errors="surrogateescape").decode(errors="replace")
    tx.execute(query, (file, json.dumps(written.lines), image))


def get(tx: Transaction, image: ImageID) -> Written | None:
    """What is written of an image."""
    for file, lines in tx.execute("SELECT file, lines FROM build_lines_images WHERE image = ?", (image,)):
        return Written(str(file), tuple((int(first), int(last)) for first, last in json.loads(lines)))
    return None
