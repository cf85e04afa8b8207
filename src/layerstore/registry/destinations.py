"""Where images are copied to: a registry, an OCI layout, a docker-archive.

A manifest is given after all that it names, so that what is there is whole at any moment; an archive takes its name
only when it is complete.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from layerstore import digest, reference
from layerstore.blobs import Place
from layerstore.digest import DiffID, Digest
from layerstore.errors import DigestMismatch, InvalidReference
from layerstore.manifests import Descriptor, Manifest
from layerstore.manifests.media_types import MANIFEST_TYPE, is_foreign
from layerstore.reference import Reference
from layerstore.registry.client.bodies import Counted, Source, body_of
from layerstore.registry.client.repository import Repository
from layerstore.registry.client.uploads import Sent
from layerstore.registry.origins import PlainImage, PlainLayer
from layerstore.registry.tasks import Tasks
from layerstore.transfer import docker_archive, oci, outgoing
from layerstore.transfer.documents import BLOBS, member_of
from layerstore.transfer.target import Target, Write

_PIECE: Final = 1 << 20


class Destination(ABC):
    """Takes blobs, and manifests after what they name."""

    is_parallel = False
    """Does it take several blobs at once?"""

    @abstractmethod
    def has(self, manifest: Manifest) -> bool:
        """Is this manifest there, with all that it names?"""

    @abstractmethod
    def put(self, blob: Descriptor, open: Callable[[], Source], counted: Counted, origin: Place | None) -> str:
        """Have a blob there. What became of it, in docker's words. `origin`: where it is now, if in a registry."""

    @abstractmethod
    def put_manifest(self, manifest: Manifest, tag: str | None = None, *, is_root: bool = False) -> None:
        """Have a manifest there. `is_root`: it is what was asked for; `tag`: it has this one beside it."""

    def put_referrer(self, manifest: Manifest) -> None:
        """Have a manifest there that is about another one, so that it is found by that."""
        self.put_manifest(manifest)

    def finish(self) -> None:
        """All is there."""


class RegistryDestination(Destination):
    """A repository. What was asked for gets the tag that the name has, or is there by its digest."""

    is_parallel = True

    def __init__(self, repository: Repository, name: Reference, tasks: Tasks) -> None:
        self._repository = repository
        self._name = name
        self._place = Place(name.domain, name.path)
        self._tasks = tasks

    def has(self, manifest: Manifest) -> bool:
        return self._repository.resolve(manifest.digest) is not None

    def put(self, blob: Descriptor, open: Callable[[], Source], counted: Counted, origin: Place | None) -> str:
        if is_foreign(blob.media_type) and blob.urls:
            return "Skipped foreign layer"
        is_mountable = origin is not None and origin.registry == self._place.registry and origin != self._place
        mounts = [origin.repository] if origin is not None and is_mountable else []
        body = body_of(blob, open, tasks=self._tasks, counted=counted)
        match self._repository.upload(blob.digest, body, mount_from=mounts):
            case Sent.PRESENT:
                return "Already exists"
            case Sent.MOUNTED:
                return f"Mounted from {mounts[0]}"
        return "Copied"

    def put_manifest(self, manifest: Manifest, tag: str | None = None, *, is_root: bool = False) -> None:
        if is_root and self._name.digest is not None and self._name.digest != manifest.digest:
            raise InvalidReference(
                f"the image has digest {manifest.digest}, so it cannot be {self._name.familiar}",
                remedy="Name a tag, or leave the digest away.",
            )
        if is_root and self._name.digest is None:
            tag = self._name.tag or reference.DEFAULT_TAG
        self._repository.put_manifest(tag or manifest.digest, manifest)


class LayoutDestination(Destination):
    """An OCI layout."""

    def __init__(
        self, target: Target, names: Sequence[str], word: str | None, others: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """`names`: what the image is called; `word`: what index.json calls it in their place.

        `others`: the entries of an index.json that is there already, of which those with such a name are replaced.
        """
        self._target = target
        self._others = others
        self._names = [word] if word else list(names)
        self._written: set[str] = set()
        self._entries: list[dict[str, Any]] = []
        target.make_folder("blobs/")
        target.make_folder(BLOBS)

    def has(self, manifest: Manifest) -> bool:
        return manifest.digest in self._written

    def put(self, blob: Descriptor, open: Callable[[], Source], counted: Counted, origin: Place | None) -> str:
        if is_foreign(blob.media_type) and blob.urls:
            return "Skipped foreign layer"
        if blob.digest in self._written:
            return "Already exists"
        self._written.add(blob.digest)
        self._target.put(member_of(blob), blob.size, partial(_copy, open, counted))
        return "Copied"

    def put_manifest(self, manifest: Manifest, tag: str | None = None, *, is_root: bool = False) -> None:
        if manifest.digest not in self._written:
            self._written.add(manifest.digest)
            self._target.put_document(BLOBS + digest.hex_of(manifest.digest), manifest.data)
        entry = outgoing.descriptor(manifest.media_type, manifest.digest, manifest.size)
        if is_root:
            annotated = [entry | {"annotations": outgoing.annotations_for(name)} for name in self._names]
            self._entries[:0] = annotated or [entry]
        elif tag is not None:
            self._entries.append(entry | {"annotations": {oci.REF_NAME: tag}})

    def put_referrer(self, manifest: Manifest) -> None:
        self.put_manifest(manifest)
        # Nothing else in a layout leads to it.
        self._entries.append(outgoing.descriptor(manifest.media_type, manifest.digest, manifest.size))

    def finish(self) -> None:
        self._target.put_document(oci.LAYOUT, outgoing.document({"imageLayoutVersion": oci.LAYOUT_VERSION}))
        mine = {_word_of(entry) for entry in self._entries} - {None}
        others = [entry for entry in self._others if _word_of(entry) not in mine and entry not in self._entries]
        self._target.put_document(oci.INDEX, outgoing.index([*self._entries, *others]))
        self._target.finish()


def _word_of(entry: Mapping[str, Any]) -> str | None:
    return (entry.get("annotations") or {}).get(oci.REF_NAME)


def write_docker_archive(
    target: Target, image: PlainImage, names: Sequence[str], told: Callable[[DiffID, int, int | None], object]
) -> Manifest:
    """Write an image as a docker-archive: an OCI layout with plain layers, and manifest.json beside its index.

    Gives back the manifest that it has as a layout.
    """
    target.make_folder("blobs/")
    target.make_folder(BLOBS)
    made = {}
    for layer in image.layers:
        if layer.diff_id in made:
            continue

        name, size = target.put_blob(partial(_unpack, layer, told))
        if name != Digest(layer.diff_id):
            raise DigestMismatch(f"layer {layer.diff_id}", expected=layer.diff_id, actual=name, layer=layer.diff_id)
        made[layer.diff_id] = outgoing.layer("none", name, size)
        told(layer.diff_id, size, size)
    layers = [made[layer.diff_id] for layer in image.layers]
    manifest = Manifest.of(MANIFEST_TYPE, outgoing.manifest(image.config, layers))
    config = digest.of_bytes(image.config)
    target.put_document(BLOBS + digest.hex_of(config), image.config)
    target.put_document(BLOBS + digest.hex_of(manifest.digest), manifest.data)
    entry = outgoing.descriptor(manifest.media_type, manifest.digest, manifest.size)
    target.put_document(oci.LAYOUT, outgoing.document({"imageLayoutVersion": oci.LAYOUT_VERSION}))
    entries = [entry | {"annotations": outgoing.annotations_for(name)} for name in names] or [entry]
    target.put_document(oci.INDEX, outgoing.index(entries))
    listed = {
        "Config": BLOBS + digest.hex_of(config),
        "RepoTags": list(names) or None,
        "Layers": [BLOBS + digest.hex_of(layer.diff_id) for layer in image.layers],
    }
    target.put_document(docker_archive.MANIFEST, outgoing.document([listed]))
    target.finish()
    return manifest


def _unpack(layer: PlainLayer, told: Callable[[DiffID, int, int | None], object], write: Write) -> None:
    buffer, done = memoryview(bytearray(_PIECE)), 0
    with layer.open() as stream:
        while count := stream.readinto(buffer):
            write(buffer[:count])
            done += count
            told(layer.diff_id, done, None)


def _copy(open: Callable[[], Source], counted: Counted, write: Write) -> None:
    buffer, done = memoryview(bytearray(_PIECE)), 0
    source = open()
    try:
        while count := source.readinto(buffer) or 0:
            write(buffer[:count])
            done += count
            counted(done)
    finally:
        source.close()
