"""Where images are copied from: a registry or an OCI layout, manifest by manifest; a docker-archive, layer by layer.

What is read from a registry or a layout is verified against the descriptor that led to it; what an origin offers is
only looked at when somebody wants it.
"""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from io import BytesIO, FileIO
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Final

from layerstore import digest, reference
from layerstore.blobs import Place
from layerstore.compression import HEAD, Stream, open_stream, sniff
from layerstore.digest import DiffID, Digest
from layerstore.errors import Ambiguous, DigestMismatch, InvalidArchive, NotFound, named
from layerstore.kernel.files.descriptors import file_of
from layerstore.limits import USUAL, Limits
from layerstore.manifests import Descriptor, Manifest, as_descriptor, as_list, parse_object, read
from layerstore.manifests.media_types import MANIFESTS
from layerstore.reference import Reference
from layerstore.registry.client.bodies import Source
from layerstore.registry.client.repository import Repository
from layerstore.registry.spool import nameless, write_all
from layerstore.transfer import docker_archive, oci
from layerstore.transfer.archive import Archive, FolderArchive, TarArchive
from layerstore.transfer.choosing import Offered, choose, titles
from layerstore.transfer.documents import member_of, read_blob
from layerstore.transfer.incoming import Incoming
from layerstore.transfer.places import InArchive
from layerstore.values import frozen

_PIECE: Final = 1 << 20


_COSIGN: Final = re.compile(r"sha256-[0-9a-f]{64}\.(?:sig|att|sbom)")


def cosign_tags(subject: Digest) -> list[str]:
    """The tags under which cosign keeps what is about a manifest (cosign, SIGNATURE_SPEC.md)."""
    return [f"{subject.replace(':', '-')}.{kind}" for kind in ("sig", "att", "sbom")]


def is_cosign_tag(tag: str) -> bool:
    """Is it one of these?"""
    return _COSIGN.fullmatch(tag) is not None


class Origin(ABC):
    """Manifests and blobs, and one that was asked for."""

    place: Place | None = None
    """The repository, if it is one: blobs may be mounted from it."""

    names: tuple[str, ...] = ()
    """What the image is called there, in full."""

    word: str | None = None
    """What index.json calls it, if that is no such name."""

    limits = USUAL

    @abstractmethod
    def root(self) -> Manifest:
        """The manifest, or index, that was asked for. Raises `NotFound`, `Ambiguous`."""

    @abstractmethod
    def has(self, descriptor: Descriptor) -> bool:
        """Is this manifest there? An index may list more platforms than an archive has."""

    @abstractmethod
    def manifest(self, descriptor: Descriptor) -> Manifest:
        """One that another one names."""

    @abstractmethod
    def open(self, descriptor: Descriptor) -> Source:
        """The bytes of a blob, which are not verified here."""

    @abstractmethod
    def referrers(self, subject: Digest) -> list[Descriptor]:
        """The manifests that are about this one (distribution-spec, "Listing Referrers")."""

    @abstractmethod
    def tagged(self, tag: str) -> Manifest | None:
        """What has this tag beside the image: cosign keeps signatures so."""

    def document(self, descriptor: Descriptor, what: str) -> bytes:
        """A small blob, verified."""
        if descriptor.data is not None:
            return descriptor.data
        self.limits.check_document(what, descriptor.size, f"{what} {descriptor.digest}")
        source = self.open(descriptor)
        try:
            data = bytearray(descriptor.size + 1)
            view, filled = memoryview(data), 0
            while filled < len(data) and (count := source.readinto(view[filled:])):
                filled += count
        finally:
            source.close()
        found = bytes(view[:filled])
        if (actual := digest.of_bytes(found)) != descriptor.digest:
            raise DigestMismatch(f"{what} {descriptor.digest}", expected=descriptor.digest, actual=actual)
        return found


class RegistryOrigin(Origin):
    """An image of a registry."""

    def __init__(self, repository: Repository, name: Reference) -> None:
        self.place = Place(name.domain, name.path)
        self.names = (name.full,) if name.digest is None else ()
        self.limits = repository.limits
        self._repository = repository
        self._name = name

    def root(self) -> Manifest:
        if self._name.digest is not None:
            return self._repository.manifest(self._name.digest, expected=self._name.digest)
        return self._repository.manifest(self._name.tag or reference.DEFAULT_TAG)

    def has(self, descriptor: Descriptor) -> bool:
        return True

    def manifest(self, descriptor: Descriptor) -> Manifest:
        if descriptor.data is not None:
            return Manifest(descriptor.digest, descriptor.media_type, descriptor.data)
        return self._repository.manifest(descriptor.digest, expected=descriptor.digest)

    def open(self, descriptor: Descriptor) -> Source:
        if descriptor.data is not None:
            return BytesIO(descriptor.data)
        return self._repository.blob(descriptor.digest, descriptor.size, urls=descriptor.urls)

    def referrers(self, subject: Digest) -> list[Descriptor]:
        return self._repository.referrers(subject)

    def tagged(self, tag: str) -> Manifest | None:
        return None if self._repository.resolve(tag) is None else self._repository.manifest(tag)


@frozen
class _Entry:
    """An entry of index.json."""

    descriptor: Descriptor
    names: tuple[str, ...]
    word: str


class LayoutOrigin(Origin):
    """An image of an OCI layout."""

    def __init__(self, archive: Archive, wanted: str | None) -> None:
        """`wanted`: what index.json calls the image, a name or any word; None where it has but one."""
        self.limits = archive.limits
        self._archive = archive
        data = archive.document(oci.INDEX)
        if data is None:
            raise InvalidArchive(f"there is no {oci.INDEX}")
        self._entries = [
            _Entry(entry, oci.names_of(entry.annotations), entry.annotations.get(oci.REF_NAME, ""))
            for entry in _descriptors(parse_object(data, oci.INDEX))
        ]
        self._root = self._chosen(wanted)
        self.names = self._root.names
        self.word = self._root.word or None

    def _chosen(self, wanted: str | None) -> _Entry:
        # One image has an entry for each of its names.
        images = {entry.descriptor.digest: entry for entry in reversed(self._entries) if not self._is_about(entry)}
        offered = [
            Offered(entry.descriptor.digest, entry.names, words=(entry.word,) if entry.word else ())
            for entry in self._entries
        ]
        if wanted is not None:
            chosen = choose([wanted], offered)
            return next(entry for entry in self._entries if entry.descriptor.digest in chosen)
        if not images:
            raise NotFound("the layout lists no image")
        if len(images) > 1:
            raise Ambiguous(
                f"the layout has {len(images)} images", remedy=f"Say which, after a colon: {titles(offered)}."
            )
        return next(iter(images.values()))

    def _is_about(self, entry: _Entry) -> bool:
        """Is it a signature or the like, copied along with what it is about?"""
        if entry.descriptor.media_type not in MANIFESTS or not self.has(entry.descriptor):
            return False
        return is_cosign_tag(entry.word) or read(self.manifest(entry.descriptor)).subject is not None

    def root(self) -> Manifest:
        return self.manifest(self._root.descriptor)

    def has(self, descriptor: Descriptor) -> bool:
        return self._archive.size(member_of(descriptor)) is not None

    def manifest(self, descriptor: Descriptor) -> Manifest:
        return Manifest(descriptor.digest, descriptor.media_type, read_blob(self._archive, descriptor, "manifest"))

    def open(self, descriptor: Descriptor) -> Source:
        region = self._archive.region(member_of(descriptor))
        if region is None:
            raise InvalidArchive(
                f"blob {descriptor.digest} is not in the archive", remedy="The archive is incomplete: get it again."
            )
        return region

    def referrers(self, subject: Digest) -> list[Descriptor]:
        found = []
        for entry in self._entries:
            if entry.descriptor.media_type in MANIFESTS and self.has(entry.descriptor):
                about = read(self.manifest(entry.descriptor)).subject
                if about is not None and about.digest == subject:
                    found.append(entry.descriptor)
        return found

    def tagged(self, tag: str) -> Manifest | None:
        return next((self.manifest(entry.descriptor) for entry in self._entries if entry.word == tag), None)


@frozen
class PlainLayer:
    """A layer that is known by its content. `open` gives its tar."""

    diff_id: DiffID
    open: Callable[[], AbstractContextManager[Stream]]


@frozen
class PlainImage:
    """An image without a manifest: a config and layers, as a docker-archive has it."""

    config: bytes
    names: tuple[str, ...]
    layers: tuple[PlainLayer, ...]


def plain_image(archive: Archive, place: InArchive | None) -> PlainImage:
    """The image of a docker-archive. Raises `NotFound`, `Ambiguous` if there are several and it is not said which."""
    listed = docker_archive.describe(archive)
    image = _listed(listed, place)
    layers = [PlainLayer(blob.diff_id, partial(archive.layer, blob.member, blob.digest)) for blob in image.layers]
    return PlainImage(image.config, image.names, tuple(layers))


def _listed(listed: Sequence[Incoming], place: InArchive | None) -> Incoming:
    offered = [Offered(image.id, image.names) for image in listed]
    if place is not None and place.index is not None:
        if place.index >= len(listed):
            raise NotFound(f"the archive has {len(listed)} images, and so no @{place.index}", remedy="The first is @0.")
        return listed[place.index]
    if place is not None and place.name is not None:
        chosen = choose([place.name], offered)
        return next(image for image in listed if image.id in chosen)
    if len(listed) != 1:
        raise Ambiguous(f"the archive has {len(listed)} images", remedy=f"Say which, after a colon: {titles(offered)}.")
    return listed[0]


@contextmanager
def opened(path: str, limits: Limits) -> Iterator[Archive]:
    """The archive at a path: a folder, or a tar. One that is compressed, or a pipe, is unpacked into a file first."""
    with ExitStack() as undo:
        with named("open", path):
            if Path(path).is_dir():
                yield undo.enter_context(FolderArchive(Path(path), limits=limits))
                return
            file = undo.enter_context(file_of(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or sniff(os.pread(file.fileno(), HEAD, 0)) is not None:
            file = undo.enter_context(_inflated(file, path, limits))
        yield undo.enter_context(TarArchive(file.fileno(), path, limits=limits))


def _inflated(file: FileIO, path: str, limits: Limits) -> FileIO:
    """All of a stream, in a file without a name."""
    buffer = memoryview(bytearray(_PIECE))
    with named("write", gettempdir()):
        out = FileIO(nameless(Path(gettempdir())), "r+")
    try:
        with open_stream(file, limits=limits) as stream, named("read", path):
            while count := stream.readinto(buffer):
                write_all(out.fileno(), buffer[:count])
    except BaseException:
        out.close()
        raise
    return out


def _descriptors(index: Mapping[str, Any]) -> list[Descriptor]:
    return [as_descriptor(value, oci.INDEX) for value in as_list(index.get("manifests"), oci.INDEX)]
