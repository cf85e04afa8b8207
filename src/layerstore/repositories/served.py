"""The manifest by which an image of the store is given out: one that it is known by, or one of plain layers.

A manifest that the image came as, or was sent as, is given out again if all that it needs can be: kept, or made again
to the byte. Else its layers go out as the tars that they are, which are exact in any case; their digests are DiffIDs.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerstore.blobs import Blobs
from layerstore.blobs import Manifest as KeptManifest
from layerstore.digest import Digest, hex_of
from layerstore.errors import InvalidArchive
from layerstore.images import Image
from layerstore.repositories import manifests
from layerstore.repositories.manifests import Document


def documents_of(blobs: Blobs, image: Image, sizes: Sequence[int]) -> list[Document]:
    """The manifests of an image that can be given out, the one to prefer first. `sizes`: of the tars of its layers."""
    found = [document for kept in blobs.manifests_of(image.id) if (document := _whole(blobs, kept)) is not None]
    return [*found, *plain(image, sizes)]


def plain(image: Image, sizes: Sequence[int]) -> list[Document]:
    """The manifests of an image with plain layers, in OCI's form and in docker's."""
    layers = [(Digest(name), size) for name, size in zip(image.layers, sizes, strict=True)]
    return [manifests.of_image(image.config_bytes, layers, docker=docker) for docker in (False, True)]


def _whole(blobs: Blobs, kept: KeptManifest) -> Document | None:
    """What a kept manifest says, if all that it needs can be given out."""
    try:
        document = manifests.read(kept.data, kept.media_type)
    except InvalidArchive:
        return None
    if document.is_index or any(not _is_there(blobs, part) for part in document.parts if not part.is_foreign):
        return None
    return document


def _is_there(blobs: Blobs, part: manifests.Part) -> bool:
    return len(hex_of(part.digest)) == 64 and blobs.size(Digest(part.digest)) is not None
