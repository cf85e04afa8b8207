"""Saving: images become an archive, the same bytes each time.

`docker-archive` is what docker 25 and later writes: an OCI layout with plain layers, and manifest.json beside its
index, so that every reader of either format reads it; the documents come first, for those who read a stream. `oci` is
an OCI layout with compressed layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from layerstore import digest
from layerstore.compression import COMPRESSIONS, compressing
from layerstore.digest import ChainID, DiffID, Digest
from layerstore.errors import ConfigError
from layerstore.manifests import media_types
from layerstore.transfer import docker_archive, oci, outgoing
from layerstore.transfer import target as targets
from layerstore.transfer.documents import BLOBS
from layerstore.transfer.target import Target, Write
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.images import Image
    from layerstore.layers import Layers, Progress

FORMATS: Final = ("docker-archive", "oci")


@frozen
class _Outgoing:
    """An image with all the names it is to have, each in full."""

    image: Image
    names: tuple[str, ...]


def save_images(
    images: Sequence[Image],
    names: Sequence[Sequence[str]],
    target: str | Path | BinaryIO,
    *,
    layers: Layers,
    format: str,
    folder: bool | None,
    compression: str | None,
    progress: Progress | None,
    annotations: Mapping[str, str] | None = None,
) -> tuple[Digest, ...]:
    """See `layerstore.transfer.save`."""
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}", remedy=f"It is one of {', '.join(FORMATS)}.")
    if compression is not None and compression not in COMPRESSIONS:
        raise ConfigError(f"there is no compression {compression!r}", remedy=f"It is one of {', '.join(COMPRESSIONS)}.")
    if format == "docker-archive" and compression not in (None, "none"):
        raise ConfigError("a docker-archive has plain layers", remedy="Compress the whole, or take the format oci.")
    if format == "docker-archive" and annotations:
        raise ConfigError("a docker-archive has no annotations", remedy="Take the format oci.")
    wanted = _merged(images, names)
    manifests: tuple[Digest, ...] = ()
    with targets.opened(target, folder=folder, spool=layers.spool) as opened:
        source = _Source(layers, progress)
        if format == "oci":
            manifests = _save_oci(wanted, opened, source, "gzip" if compression is None else compression, annotations)
        else:
            _save_docker_archive(wanted, opened, source)
        opened.finish()
    return manifests


def _merged(images: Sequence[Image], names: Sequence[Sequence[str]]) -> list[_Outgoing]:
    """Each image once, in the order in which they were given."""
    found: dict[str, _Outgoing] = {}
    for image, given in zip(images, names, strict=True):
        known = found.get(image.id, _Outgoing(image, ()))
        found[image.id] = _Outgoing(image, tuple(dict.fromkeys((*known.names, *given))))
    return list(found.values())


class _Source:
    """The layers of the store, each of which is given out once."""

    def __init__(self, layers: Layers, progress: Progress | None) -> None:
        self._layers = layers
        self._progress = progress

    def size(self, chain_id: ChainID) -> int:
        """The bytes of a layer's tar."""
        return self._layers.size(chain_id)

    def give_out(self, diff_id: DiffID, chain_id: ChainID, write: Write) -> None:
        """A layer's tar, byte for byte, with progress."""
        if self._progress is None:
            self._layers.give_out(chain_id, write)
            return
        progress, label, total, done = self._progress, digest.short(diff_id), self.size(chain_id), 0

        def count(data: memoryview) -> None:
            nonlocal done
            write(data)
            done += len(data)
            progress(label, done, total)

        self._layers.give_out(chain_id, count)
        progress(label, total, total)


# --- the formats ---


def _save_docker_archive(images: Sequence[_Outgoing], target: Target, source: _Source) -> None:
    wanted = _layers_of(images)
    blobs: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    for item in images:
        layers = [
            outgoing.layer("none", Digest(diff_id), source.size(wanted[diff_id])) for diff_id in item.image.layers
        ]
        entries += _put_manifest(blobs, item, layers)
    listed = [
        {
            "Config": BLOBS + digest.hex_of(item.image.id),
            # In full: docker reads both forms, podman puts localhost/ before the short one.
            "RepoTags": list(item.names) or None,
            "Layers": [BLOBS + digest.hex_of(diff_id) for diff_id in item.image.layers],
        }
        for item in images
    ]
    _put_layout(target, entries)
    target.put_document(docker_archive.MANIFEST, outgoing.document(listed))
    _put_folders(target)
    for name, data in blobs.items():
        target.put_document(name, data)
    for diff_id, chain_id in wanted.items():
        name = BLOBS + digest.hex_of(diff_id)
        target.put(name, source.size(chain_id), partial(source.give_out, diff_id, chain_id))


def _save_oci(
    images: Sequence[_Outgoing],
    target: Target,
    source: _Source,
    compression: str,
    annotations: Mapping[str, str] | None,
) -> tuple[Digest, ...]:
    _put_folders(target)
    written = {
        diff_id: _put_layer(target, source, diff_id, chain_id, compression)
        for diff_id, chain_id in _layers_of(images).items()
    }
    blobs: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    manifests = []
    for item in images:
        added = _put_manifest(blobs, item, [written[diff_id] for diff_id in item.image.layers], annotations)
        manifests.append(Digest(added[0]["digest"]))
        entries += added
    for name, data in blobs.items():
        target.put_document(name, data)
    _put_layout(target, entries)
    return tuple(manifests)


def _put_layer(target: Target, source: _Source, diff_id: DiffID, chain_id: ChainID, compression: str) -> dict[str, Any]:
    """Write a layer's blob; its descriptor."""
    if compression == "none":
        size = source.size(chain_id)
        target.put(BLOBS + digest.hex_of(diff_id), size, partial(source.give_out, diff_id, chain_id))
        return outgoing.layer("none", Digest(diff_id), size)

    def produce(write: Write) -> None:
        with compressing(write, compression) as compress:
            source.give_out(diff_id, chain_id, compress)

    name, size = target.put_blob(produce)
    return outgoing.layer(compression, name, size)


def _put_manifest(
    blobs: dict[str, bytes],
    item: _Outgoing,
    layers: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Add an image's config and manifest to `blobs`; the entries of index.json, one for each of its names."""
    config = item.image.config_bytes
    manifest = outgoing.manifest(config, layers, annotations)
    blobs[BLOBS + digest.hex_of(item.image.id)] = config
    name = digest.of_bytes(manifest)
    blobs[BLOBS + digest.hex_of(name)] = manifest
    entry = outgoing.descriptor(media_types.MANIFEST_TYPE, name, len(manifest))
    named = [entry | {"annotations": outgoing.annotations_for(name)} for name in item.names]
    return named or [entry]


def _put_layout(target: Target, entries: Sequence[Mapping[str, Any]]) -> None:
    target.put_document(oci.LAYOUT, outgoing.document({"imageLayoutVersion": oci.LAYOUT_VERSION}))
    target.put_document(oci.INDEX, outgoing.index(entries))


def _put_folders(target: Target) -> None:
    target.make_folder("blobs/")
    target.make_folder(BLOBS)


def _layers_of(images: Sequence[_Outgoing]) -> dict[DiffID, ChainID]:
    """Every layer once, with one of the places where the store has it."""
    return {
        diff_id: chain_id
        for item in images
        for diff_id, chain_id in zip(item.image.layers, item.image.chain_ids, strict=True)
    }
