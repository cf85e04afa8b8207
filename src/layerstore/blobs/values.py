"""What is known of blobs, as values."""

from __future__ import annotations

from attrs import frozen

from layerstore.digest import DiffID, Digest, of_bytes

__all__ = ["DAY", "LARGEST_MANIFEST", "KnownBlob", "Manifest", "Place"]

DAY = 24 * 60 * 60 * 10**9
"""In ns: for so long nothing of what was put goes, although nothing refers to it yet."""

LARGEST_MANIFEST = 4 << 20
"""Bytes: what registries take at the least, and at the most (distribution-spec, "Pushing Manifests")."""


@frozen
class KnownBlob:
    """A form in which a layer is known, compressed or plain: this blob holds this tar, which was found out here once.

    `size`: the bytes of the blob. `recipe`: how its very bytes are made of the tar again, as `compression.recipes`
    writes it; None where that is not known.
    """

    digest: Digest
    diff_id: DiffID
    size: int
    media_type: str
    recipe: str | None = None


@frozen
class Place:
    """A repository in which a blob was seen: `docker.io` and `library/debian`."""

    registry: str
    repository: str


@frozen
class Manifest:
    """A manifest, or an index of such: the very bytes, whose digest is its name."""

    digest: Digest
    media_type: str
    data: bytes

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Manifest:
        """The manifest that consists of these bytes."""
        return cls(of_bytes(data), media_type, data)
