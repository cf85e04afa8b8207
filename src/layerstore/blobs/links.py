"""What a manifest names, read as loosely as can be: whatever kind it is, its parts must not go before it."""

from __future__ import annotations

from typing import Any

from layerstore import digest
from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, InvalidDigest

_LISTS = ("layers", "manifests", "blobs", "fsLayers")
"""Of an image, of an index, of an artifact (image-spec 1.1-rc), of a manifest of the first schema."""


def of(data: bytes) -> tuple[list[Digest], Digest | None]:
    """The digests of its parts, and of its subject (image-spec, manifest.md). What is malformed is left out.

    Raises `InvalidArchive` if it is no JSON object.
    """
    import json

    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"the manifest is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArchive("the manifest is no JSON object")
    found = [document.get("config")]
    for name in _LISTS:
        listed = document.get(name)
        found += listed if isinstance(listed, list) else []
    parts = [part for descriptor in found if (part := _digest(descriptor)) is not None]
    return list(dict.fromkeys(parts)), _digest(document.get("subject"))


def _digest(descriptor: Any) -> Digest | None:
    if not isinstance(descriptor, dict):
        return None
    try:
        return digest.parse(descriptor.get("digest", descriptor.get("blobSum")))
    except InvalidDigest:
        return None
