"""Indexes of an image's layers, attached to it in its registry: so that others can have it before its layers are there.

They are a manifest of their own, which refers to the image's (distribution-spec, "Listing Referrers"): a blob for each
layer that can be read from within, and one for what gzip needs beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from layerstore import digest as digests
from layerstore.digest import ChainID, DiffID, Digest, short
from layerstore.errors import Damaged, DigestMismatch, InvalidArchive, NotFound
from layerstore.layers.relay import relay
from layerstore.manifests import Contents, Descriptor, Manifest, read
from layerstore.manifests.media_types import MANIFEST_TYPE, is_foreign
from layerstore.registry.client.manifests import ALTERED
from layerstore.registry.forms import compression_of
from layerstore.registry.spool import Spool
from layerstore.registry.transport.http import Body
from layerstore.seekable.index import ARTIFACT, INDEX_TYPE, WINDOWS_TYPE, LayerIndex
from layerstore.seekable.order import ORDER_TYPE, Order
from layerstore.transfer import outgoing
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.images import Image, Loose
    from layerstore.layers import Layers
    from layerstore.registry.client.repository import Repository
    from layerstore.registry.pushed import Done

__all__ = ["OF_BLOB", "AttachedIndexes", "Indexing", "attached_to", "indexes_of"]

OF_BLOB: Final = "io.layerstore.blob"
"""The annotation of an index: the digest of the blob that it is of."""

_CREATED: Final = "org.opencontainers.image.created"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_EMPTY: Final = b"{}"


class Indexing:
    """Makes the indexes of images, and attaches them. `done` is told what became of each layer."""

    def __init__(
        self, repository: Repository, layers: Layers, blobs: Blobs, done: Done | None, order: Order | None = None
    ) -> None:
        """`order`, that of a first run, is attached with them, or by itself if they are there."""
        self._order = order
        self._repository = repository
        self._layers = layers
        self._blobs = blobs
        self._done = done

    def image(self, image: Image | Loose, manifest: Manifest) -> None:
        """Have the indexes of an image there, which is there itself. Raises as a push does."""
        there = attached_to(self._repository, manifest.digest)
        parts = [] if there.indexes else self._layers_of(image, read(manifest))
        order = [] if self._order is None else self._ordered(self._order.packed(), there)
        if parts or order:
            self._attach(manifest, [*parts, *order])
        if self._order is not None and self._done is not None:
            self._done("order of a first run", "Attached" if order else "Already attached")

    def _ordered(self, data: bytes, there: AttachedIndexes) -> list[Mapping[str, Any]]:
        return [] if data == self._known_order(there) else [self._put(ORDER_TYPE, data)]

    def _known_order(self, there: AttachedIndexes) -> bytes | None:
        return None if there.order is None else self._repository.small_blob(there.order, "order of a first run")

    def _layers_of(self, image: Image | Loose, contents: Contents) -> list[Mapping[str, Any]]:
        parts: list[Mapping[str, Any]] = []
        done: set[Digest] = set()
        for blob, diff_id, chain_id in zip(contents.layers, image.layers, image.chain_ids, strict=True):
            if blob.digest in done:
                continue
            done.add(blob.digest)
            parts += [] if is_foreign(blob.media_type) else self._layer(blob, diff_id, chain_id)
        return parts

    def _attach(self, manifest: Manifest, parts: Sequence[Mapping[str, Any]]) -> None:
        subject = outgoing.descriptor(manifest.media_type, manifest.digest, manifest.size)
        fields = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT,
            "config": self._put(_EMPTY_TYPE, _EMPTY),
            "layers": parts,
            "subject": subject,
            **({} if self._order is None else {"annotations": {_CREATED: datetime.now(UTC).isoformat()}}),
        }
        made = Manifest.of(MANIFEST_TYPE, outgoing.document(fields))
        self._repository.put_manifest(made.digest, made)

    def _layer(self, blob: Descriptor, diff_id: DiffID, chain_id: ChainID) -> list[Mapping[str, Any]]:
        made = self._made(blob, diff_id, chain_id)
        self._say(diff_id, "Not indexed: it cannot be read from within" if made is None else "Indexed")
        if made is None:
            return []
        index, windows = made
        descriptor = {**self._put(INDEX_TYPE, index.packed()), "annotations": {OF_BLOB: blob.digest}}
        return [descriptor, *([self._put(WINDOWS_TYPE, windows)] if windows else [])]

    def _made(self, blob: Descriptor, diff_id: DiffID, chain_id: ChainID) -> tuple[LayerIndex, bytes] | None:
        from layerstore.seekable.making import make

        compression, folder = compression_of(blob.media_type), self._layers.session.folder
        with (
            self._bytes(blob, compression) as buffer,
            relay(lambda write: self._layers.give_out(chain_id, write)) as stream,
        ):
            return make(
                buffer, blob.digest, blob.size, compression, diff_id, stream, folder, limits=self._layers.limits
            )

    @contextmanager
    def _bytes(self, blob: Descriptor, compression: str) -> Iterator[Any]:
        """The blob, kept or made again here, else from where it was sent to. Nobody needs those of a plain one."""
        if compression == "none":
            yield b""
            return
        with Spool(self._layers.session.folder) as spool:
            try:
                self._blobs.write(blob.digest, spool.write)
            except (NotFound, Damaged):
                spool.close()
            else:
                with spool.buffer() as buffer:
                    yield buffer
                return
        with Spool(self._layers.session.folder) as spool:
            self._download(blob, spool)
            with spool.buffer() as buffer:
                yield buffer

    def _download(self, blob: Descriptor, spool: Spool) -> None:
        buffer = memoryview(bytearray(256 << 10))
        with self._repository.blob(blob.digest, blob.size) as reader:
            while count := reader.readinto(buffer):
                spool.write(buffer[:count])
        if spool.digest != blob.digest:
            raise DigestMismatch(f"the blob {blob.digest}", expected=blob.digest, actual=spool.digest, remedy=ALTERED)

    def _put(self, media_type: str, data: bytes) -> Mapping[str, Any]:
        digest = digests.of_bytes(data)
        self._repository.upload(digest, Body.of(data))
        return outgoing.descriptor(media_type, digest, len(data))

    def _say(self, diff_id: DiffID, words: str) -> None:
        if self._done is not None:
            self._done(short(diff_id), words)


@frozen
class AttachedIndexes:
    """What is attached to an image: indexes, by the blobs that they are of, and the newest order of a first run."""

    indexes: Mapping[Digest, Descriptor]
    order: Descriptor | None


def indexes_of(repository: Repository, image: Digest) -> Mapping[Digest, Descriptor]:
    """The indexes that are attached to an image, by the blobs that they are of; that of several that comes first."""
    return attached_to(repository, image).indexes


def attached_to(repository: Repository, image: Digest) -> AttachedIndexes:
    """What is attached to an image. Raises what `Repository.referrers` does."""
    found: dict[Digest, Descriptor] = {}
    orders: list[tuple[str, Descriptor]] = []
    for referrer in repository.referrers(image, ARTIFACT):
        try:
            contents = read(repository.manifest(referrer.digest, expected=referrer.digest))
        except (NotFound, InvalidArchive):
            continue
        for part in contents.blobs:
            of = part.annotations.get(OF_BLOB)
            if part.media_type == INDEX_TYPE and of is not None:
                found.setdefault(Digest(of), part)
            elif part.media_type == ORDER_TYPE:
                orders.append((contents.annotations.get(_CREATED, ""), part))
    return AttachedIndexes(found, max(orders, key=lambda one: one[0])[1] if orders else None)
