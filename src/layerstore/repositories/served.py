"""The manifest by which an image of the store is given out: one that it is known by, or one that is made for it.

A manifest that the image came as, or was sent as, is given out again if all that it needs can be: kept, or made again
to the byte. Else its layers go out as the tars that they are, which are exact in any case and have DiffIDs for digests;
or compressed, if that is wanted: that manifest is one of the image's from then on.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

from layerstore.blobs import Blobs, KnownBlob
from layerstore.compression import compressing
from layerstore.digest import ChainID, DiffID, Digest, ImageID, hex_of
from layerstore.errors import InvalidArchive, NotFound, ReadOnlyStore
from layerstore.images import Image, Images
from layerstore.layers import Layers
from layerstore.manifests import Manifest
from layerstore.manifests.media_types import MANIFEST_TYPE
from layerstore.repositories import manifests
from layerstore.repositories.manifests import Document
from layerstore.transfer import outgoing
from layerstore.values import frozen

_PROVED = 256 << 20
"""Bytes of tars. What a tag means is said at once; so it is found out first only for so much whether it can be made."""

_REMEMBERED = 10_000


@frozen
class _Facts:
    """What never changes of an image: its layers, and the digests of its plain manifests."""

    layers: frozenset[str]
    plain: tuple[str, ...]


class Offers:
    """What images go out as. Thread-safe."""

    def __init__(self, images: Images, layers: Layers, blobs: Blobs) -> None:
        self._images = images
        self._layers = layers
        self._blobs = blobs
        self._turn = threading.Lock()
        self._facts: dict[ImageID, _Facts] = {}

    def of(self, image: Image, compression: str = "none") -> Iterator[Document]:
        """The manifests of an image that can be given out, the one to prefer first.

        `compression`: of one that is made for it, if it has none ("gzip", "zstd" or "none").
        """
        prove = image.size <= _PROVED
        found = 0
        for kept in self._blobs.manifests_of(image.id):
            if (document := self._whole(kept, prove=prove)) is not None:
                yield document
                found += 1
        if compression != "none" and not found:
            try:
                yield self._packed(image, compression)
            except ReadOnlyStore:
                pass  # then they go out as they are
        yield from self._plain(image)

    def named(self, images: set[ImageID], digest: Digest) -> Document | None:
        """A manifest of one of these images, by its digest. Whether it can be given out is found out first."""
        if self._blobs.manifest(digest) is not None:
            for image in images:
                for kept in self._blobs.manifests_of(image):
                    if kept.digest == digest:
                        return self._whole(kept, prove=True)
        for image in images:
            facts = self._facts_of(image)
            if facts is not None and digest in facts.plain:
                return self._plain(self._images.get(image))[facts.plain.index(digest)]
        return None

    def has_part(self, images: set[ImageID], digest: Digest) -> bool:
        """Is this blob the config of one of these images, or one of its layers in any form that is known?"""
        if ImageID(digest) in images:
            return True
        diff_id = self._blobs.known([digest]).get(digest, digest)
        return any(diff_id in facts.layers for image in images if (facts := self._facts_of(image)) is not None)

    def _facts_of(self, image: ImageID) -> _Facts | None:
        if (known := self._facts.get(image)) is not None:
            return known
        try:
            found = self._images.get(image)
            plain = tuple(manifests.digest_of(document.data) for document in self._plain(found))
        except NotFound:
            return None  # it was removed this moment
        if len(self._facts) >= _REMEMBERED:
            self._facts.clear()
        facts = self._facts[image] = _Facts(frozenset(found.layers), plain)
        return facts

    def _whole(self, kept: Manifest, *, prove: bool) -> Document | None:
        """What a kept manifest says, if all that it needs can be given out."""
        try:
            document = manifests.read(kept.data, kept.media_type)
        except InvalidArchive:
            return None
        if document.is_index or not all(self._is_there(part, prove=prove) for part in document.parts):
            return None
        return document

    def _is_there(self, part: manifests.Part, *, prove: bool) -> bool:
        digest = Digest(part.digest)
        if part.is_foreign or len(hex_of(digest)) != 64:
            return part.is_foreign
        if self._blobs.size(digest) is not None:
            return True
        if not prove:
            return False
        with self._turn:  # who waits for it, need not do it again
            return self._blobs.size(digest, prove=True) is not None

    def _plain(self, image: Image) -> list[Document]:
        """Its manifests with plain layers, in OCI's form and in docker's."""
        layers = [
            (Digest(name), self._layers.size(chain)) for name, chain in zip(image.layers, image.chain_ids, strict=True)
        ]
        return [manifests.of_image(image.config_bytes, layers, docker=docker) for docker in (False, True)]

    def _packed(self, image: Image, compression: str) -> Document:
        """Its manifest with layers that are compressed in the way of ours; kept, for who asks again."""
        with self._turn:
            layers = [
                self._packed_layer(diff_id, chain, compression)
                for diff_id, chain in zip(image.layers, image.chain_ids, strict=True)
            ]
            data = outgoing.manifest(image.config_bytes, layers)
            self._blobs.put_manifest(MANIFEST_TYPE, data, images=[image.id])
        return manifests.read(data, MANIFEST_TYPE)

    def _packed_layer(self, diff_id: DiffID, chain: ChainID, compression: str) -> dict[str, object]:
        from layerstore.compression.recipes import own

        recipe = str(own(compression))
        for form in self._blobs.forms_of(diff_id):
            if form.recipe == recipe and form.is_proved:
                return outgoing.layer(compression, form.digest, form.size)
        size, hashed = 0, hashlib.sha256()

        def count(data: memoryview) -> None:
            nonlocal size
            size += len(data)
            hashed.update(data)

        with compressing(count, compression) as feed:
            self._layers.give_out(chain, feed)
        descriptor = outgoing.layer(compression, Digest(f"sha256:{hashed.hexdigest()}"), size)
        blob = KnownBlob(descriptor["digest"], diff_id, size, str(descriptor["mediaType"]), recipe, is_proved=True)
        self._blobs.remember(None, blob)
        return descriptor
