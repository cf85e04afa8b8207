"""An image made of a manifest whose blobs are here: its layers are unpacked from them.

Not every manifest that has the types of an image's is one: layers may be no tars, or have other DiffIDs than the config
says. What is none is kept as it is, for who pushed it may know what it is for; why it is none is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from layerstore import platforms
from layerstore.blobs import Blobs, KnownBlob
from layerstore.database import Transaction
from layerstore.digest import DiffID, Digest, ImageID
from layerstore.errors import DepthExceeded, DigestMismatch, InvalidArchive, NotFound
from layerstore.images import Images, Loaded
from layerstore.images import config as config_of
from layerstore.layers import LayerSource
from layerstore.repositories.manifests import Document, Part
from layerstore.tar import Readable

NO_IMAGE = (InvalidArchive, DepthExceeded, NotFound)
"""What is raised for what cannot become an image."""

_PIECE = 1 << 20


def make(
    images: Images,
    blobs: Blobs,
    document: Document,
    known_as: Callable[[str], Digest | None],
    names: list[str],
    record: Callable[[Transaction, ImageID], object],
) -> Loaded:
    """Make an image of a manifest, under full names, and record it in the same transaction. Raises `NO_IMAGE`.

    `known_as`: the sha256 digest of a part.
    """
    if not document.describes_image or document.config is None:
        raise InvalidArchive(f"it is an artifact of type {document.artifact_type!r}")
    config = _config(blobs, _here(document.config, known_as))
    diff_ids = config_of.layers(config_of.read(config))
    layers = [_Layer(blobs, _here(part, known_as), part) for part in document.layers]
    if len(layers) == len(diff_ids):
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            layer.verify(diff_id)

    def remember(tx: Transaction, image: ImageID) -> None:
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if layer.is_verified:
                part = layer.part
                blobs.remember(tx, KnownBlob(layer.digest, diff_id, part.size, part.media_type))
        record(tx, image)

    return images.add(config, [layer.source for layer in layers], names, record=remember)


class _Layer:
    """A layer's blob. `is_verified`: it was seen here that it holds the tar that the config names."""

    def __init__(self, blobs: Blobs, digest: Digest, part: Part) -> None:
        self.digest = digest
        self.part = part
        self.is_verified = False
        self._blobs = blobs

    @property
    def source(self) -> LayerSource:
        """It, to be unpacked where the layer is not there: that verifies it."""
        return LayerSource(open=self._opened)

    @contextmanager
    def _opened(self) -> Iterator[Readable]:
        with self._blobs.opened(self.digest) as stream:
            yield stream
        self.is_verified = True

    def verify(self, diff_id: DiffID) -> None:
        """See whether it holds a layer that is there already, for then nobody unpacks it. Raises `DigestMismatch`."""
        if str(self.digest) == diff_id or self._blobs.known([self.digest]).get(self.digest) == diff_id:
            self.is_verified = True
        elif self._blobs.size(Digest(diff_id)) is not None:
            buffer, found = memoryview(bytearray(_PIECE)), hashlib.sha256()
            with self._blobs.opened(self.digest) as stream:
                while count := stream.readinto(buffer):
                    found.update(buffer[:count])
            if (actual := f"sha256:{found.hexdigest()}") != diff_id:
                raise DigestMismatch(f"the tar in {self.digest}", expected=diff_id, actual=actual)
            self.is_verified = True


def choose(children: list[Part]) -> Part | None:
    """The manifest of an index of which an image is made: for this machine, or the only one."""
    stated = [child for child in children if child.platform is None or not child.platform.is_unknown]
    if len(stated) == 1:
        return stated[0]
    here = platforms.host()
    ranked = [
        (rank, number)
        for number, child in enumerate(stated)
        if child.platform is not None and (rank := platforms.rank(here, child.platform)) is not None
    ]
    return stated[min(ranked)[1]] if ranked else None


def _here(part: Part, known_as: Callable[[str], Digest | None]) -> Digest:
    digest = known_as(part.digest)
    if digest is None:
        raise InvalidArchive(f"layer {part.digest} is not in the store")
    return digest


def _config(blobs: Blobs, digest: Digest) -> bytes:
    size = blobs.size(digest)
    if size is None:
        raise InvalidArchive(f"config {digest} is not in the store")
    blobs.limits.check("max-config-size", size, f"config {digest}")
    data = bytearray()
    blobs.write(digest, data.extend)
    return bytes(data)
