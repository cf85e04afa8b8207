"""What is known of blobs, as values."""

from __future__ import annotations

from layerstore.digest import DiffID, Digest
from layerstore.values import frozen

__all__ = ["DAY", "KnownBlob", "Place"]

DAY = 24 * 60 * 60 * 10**9
"""In ns: for so long nothing of what was put goes, although nothing refers to it yet."""


@frozen
class KnownBlob:
    """A form in which a layer is known, compressed or plain: this blob holds this tar, which was found out here once.

    `size`: the bytes of the blob. `recipe`: how its very bytes are made of the tar again, as `compression.recipes`
    writes it; None where that is not known. `is_proved`: it made them once, to the last byte; until then it is a guess,
    which fits the beginning.
    """

    digest: Digest
    diff_id: DiffID
    size: int
    media_type: str
    recipe: str | None = None
    is_proved: bool = False


@frozen
class Place:
    """A repository in which a blob was seen: `docker.io` and `library/debian`."""

    registry: str
    repository: str
