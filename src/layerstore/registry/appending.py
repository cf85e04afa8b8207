"""A layer appended to an image where that lies, without a store: read from a registry or archive, written to another.

Neither root nor a container is needed: the folder becomes a tar, the image's config one with a step more, and the
layers that the image had are copied as they are, or not even that where the target has them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final

from layerstore import digest, platforms
from layerstore.compression import Stream, compressing, open_stream
from layerstore.digest import DiffID, Digest
from layerstore.images import config as config_of
from layerstore.images import growing
from layerstore.images import instructions as instructions_of
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.layers import LayerSource
from layerstore.manifests import Descriptor, Manifest, as_descriptor
from layerstore.manifests.media_types import DOCKER_LAYER_TYPE, LAYER_TYPE, MANIFEST_TYPE
from layerstore.registry.client.bodies import Source
from layerstore.registry.client.manifests import image_in
from layerstore.registry.copying import Copied, Done, transfer
from layerstore.registry.origins import Origin, PlainImage, PlainLayer
from layerstore.registry.queries import settings_of
from layerstore.registry.spool import Spool
from layerstore.transfer import outgoing

if TYPE_CHECKING:
    from layerstore.config import Config
    from layerstore.layers import Progress

__all__ = ["append"]

_PIECE: Final = 1 << 20


def append(
    image: str | None,
    source: growing.Source,
    target: str,
    at: str = "/",
    *,
    created_by: str = "",
    message: str = "",
    author: str | None = None,
    instructions: Sequence[str] = (),
    owner: tuple[int, int] | None = (0, 0),
    latest: int | None = None,
    platform: str | None = None,
    compression: str = "gzip",
    config: Config | str | Path | None = None,
    progress: Progress | None = None,
    done: Done | None = None,
    told: Callable[[str], None] | None = None,
) -> Copied:
    """Make an image with a layer more, from one place to another, without a store and without root.

    `image` and `target` are places as for `copy`; without an image: on nothing. `source` is a folder of the host, which
    comes to lie at the path `at` of the image and belongs to `owner`, or a tar, which is the layer as it is and is not
    looked into. `compression` (gzip, zstd or none) is that of the new layer; no time in it is later than `latest`, in
    ns since the epoch. The rest is as for `Image.append`, with
    one difference: the image's tree is not at hand, so a folder of `source` that the image has, too, gets the looks
    that it has in `source`, and folders above `at` are not listed in the layer.

    Raises `RegistryError`, `NotFound`, `Ambiguous`, `InvalidArchive`, `CannotRepresent`, `KernelError`, `ConfigError`.
    """
    wanted = None if platform is None else platforms.parse(platform)
    with ExitStack() as after:
        spool = after.enter_context(Spool(Path(gettempdir())))
        if isinstance(source, str | os.PathLike) and Path(source).is_dir():
            root = after.enter_context(opened(Path(source), FOLDER))
            names, when = growing.names_of(at), growing.latest_or_epoch(latest)
            layer = growing.folder_layer(root, os.fspath(source), None, names, owner, when, is_bottom=image is None)
        else:
            growing.require_root(at)
            layer = growing.tar_layer(source, settings_of(config).limits)
        diff_id = _compressed(layer, spool, compression)
        made = as_descriptor(outgoing.layer(compression, spool.digest, spool.size), "layer")

        def derived(base: bytes | None) -> bytes:
            read = None if base is None else config_of.read(base)
            return config_of.derive(
                read,
                new_layer=diff_id,
                run_config=instructions_of.apply(None if read is None else read.get("config"), instructions),
                created=config_of.now(),
                author=author,
                comment=message,
                created_by=created_by,
                platform=wanted,
            )

        def become(found: Origin | PlainImage | None) -> Origin | PlainImage:
            if isinstance(found, PlainImage):
                more = PlainLayer(diff_id, partial(_inflated, spool))
                return PlainImage(derived(found.config), (), (*found.layers, more))
            layers: list[Mapping[str, Any]] = []
            base = None
            if found is not None:
                way = image_in(found.root(), wanted, found.manifest, what="the image")
                base = found.document(way.config, "config")
                layers = [_as_oci(blob) for blob in way.contents.layers]
            layers.append(outgoing.layer(compression, made.digest, made.size))
            return _Grown(found, derived(base), made.digest, spool, layers)

        return transfer(
            image, target, become=become, platform=wanted, config=config, progress=progress, done=done, told=told
        )


def _compressed(layer: LayerSource, spool: Spool, compression: str) -> DiffID:
    """Make a layer's blob; the digest of its tar."""
    hashed, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with layer.open() as stream, compressing(spool.write, compression) as compress:
        while count := stream.readinto(buffer):
            hashed.update(buffer[:count])
            compress(buffer[:count])
    return DiffID(Digest(f"sha256:{hashed.hexdigest()}"))


def _inflated(spool: Spool) -> AbstractContextManager[Stream]:
    return open_stream(spool.open())


def _as_oci(blob: Descriptor) -> Mapping[str, Any]:
    """A layer as a manifest of OCI's names it."""
    kind = blob.media_type
    if kind.startswith(DOCKER_LAYER_TYPE):
        kind = LAYER_TYPE + kind.removeprefix(DOCKER_LAYER_TYPE).replace(".", "+")
    named: dict[str, Any] = {"mediaType": kind, "digest": blob.digest, "size": blob.size}
    return named | ({"urls": list(blob.urls)} if blob.urls else {})


class _Grown(Origin):
    """An image that consists of what `base` has, and of one layer more."""

    def __init__(
        self,
        base: Origin | None,
        config: bytes,
        layer: Digest,
        spool: Spool,
        layers: Sequence[Mapping[str, Any]],
    ) -> None:
        self.place = None if base is None else base.place
        self._base = base
        self._layer = layer
        self._spool = spool
        self._config = config
        self._manifest = Manifest.of(MANIFEST_TYPE, outgoing.manifest(config, layers))

    def root(self) -> Manifest:
        return self._manifest

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest == self._manifest.digest

    def manifest(self, descriptor: Descriptor) -> Manifest:
        return self._manifest

    def open(self, descriptor: Descriptor) -> Source:
        if descriptor.digest == digest.of_bytes(self._config):
            return BytesIO(self._config)
        if descriptor.digest == self._layer or self._base is None:
            return self._spool.open()
        return self._base.open(descriptor)

    def referrers(self, subject: Digest) -> list[Descriptor]:
        return []

    def tagged(self, tag: str) -> Manifest | None:
        return None
