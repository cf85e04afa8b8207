"""What manifests and indexes say, checked: of an archive, of a registry, of a client that pushes.

A manifest that could be read as an index, or an index as a manifest, is refused, as is one whose own media type is not
the one it was announced with (CVE-2021-41190).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import field

from layerstore import digest
from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, UnsupportedMediaType
from layerstore.manifests.fields import as_digest, as_list, as_object, as_text, parse_object
from layerstore.manifests.media_types import (
    CONFIGS,
    INDEX_TYPE,
    INDEXES,
    LAYER_PREFIXES,
    LAYERS,
    MANIFEST_TYPE,
    MANIFESTS,
    SCHEMA_1,
)
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.platforms import Platform

Offer = TypeVar("Offer")

_ENTRIES_LIMIT: Final = 10_000


@frozen
class Descriptor:
    """A pointer to a blob (OCI image spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(factory=dict)
    platform: Mapping[str, Any] | None = None
    artifact_type: str | None = None
    urls: tuple[str, ...] = ()
    """Where else the blob is, as the manifest claims."""
    data: bytes | None = field(default=None, repr=False)
    """The blob itself, where the manifest has it embedded: what is not the blob is not kept here."""

    @property
    def is_attestation(self) -> bool:
        """Is it what BuildKit lists beside an image: provenance and the like, for a platform that is not known?"""
        if self.annotations.get("vnd.docker.reference.type") == "attestation-manifest":
            return True
        if self.platform is None:
            return False
        from layerstore import platforms

        return platforms.of(self.platform).is_unknown


@frozen
class Manifest:
    """A manifest or an index as it came. `digest` is that of `data`, `media_type` what it was announced with."""

    digest: Digest
    media_type: str
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Manifest:
        """The manifest that consists of these bytes."""
        return cls(digest.of_bytes(data), media_type, data)

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.data)

    @property
    def is_index(self) -> bool:
        """Does it list manifests, and no layers?"""
        return self.media_type in INDEXES

    @property
    def descriptor(self) -> Descriptor:
        """What points to it."""
        return Descriptor(self.media_type, self.digest, self.size)


@frozen
class Contents:
    """What a manifest or index says. An index has `manifests`; a manifest has `config` and `layers`."""

    manifest: Manifest
    manifests: tuple[Descriptor, ...] = ()
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    """What it is about, if it is a signature, an SBOM or the like."""
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(factory=dict)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The config and the layers."""
        return (() if self.config is None else (self.config,)) + self.layers

    @property
    def artifact(self) -> str | None:
        """The kind of a manifest that is no image (OCI image spec, manifest.md, "Guidelines for Artifact Usage")."""
        if self.config is None:
            return self.artifact_type
        if self.config.media_type not in CONFIGS:
            return self.artifact_type or self.config.media_type
        types = [layer.media_type for layer in self.layers]
        if types and not any(media_type.startswith(LAYER_PREFIXES) for media_type in types):
            return types[0]
        return None


def read(manifest: Manifest, what: str | None = None) -> Contents:
    """What `manifest` says. `what` names it in errors. Raises `InvalidArchive`; `UnsupportedMediaType`: schema 1."""
    kind = "index" if manifest.is_index else "manifest"
    title = what or f"{kind} {manifest.digest}"
    fields = parse_object(manifest.data, title)
    if manifest.media_type.startswith(SCHEMA_1) or fields.get("schemaVersion") == 1:
        raise UnsupportedMediaType(
            f"{title} has schema 1, which no registry should give out any more",
            remedy="Have the image pushed again by a docker, podman, skopeo or layerstore of today.",
        )
    if fields.get("mediaType", manifest.media_type) != manifest.media_type:
        raise InvalidArchive(
            f"{title} has media type {fields['mediaType']!r}, but is announced as {manifest.media_type!r}"
        )
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise InvalidArchive(f"{title} is an index and a manifest at once")
    artifact_type = fields.get("artifactType")
    subject = fields.get("subject")
    common: dict[str, Any] = {
        "manifest": manifest,
        "subject": None if subject is None else as_descriptor(subject, f"{title}: subject"),
        "artifact_type": artifact_type if isinstance(artifact_type, str) and artifact_type else None,
        "annotations": _texts(fields.get("annotations"), f"{title}: annotations"),
    }
    if manifest.is_index:
        return Contents(manifests=_descriptors(fields, "manifests", title), **common)
    return Contents(
        config=as_descriptor(fields.get("config"), f"{title}: config"),
        layers=_descriptors(fields, "layers", title),
        **common,
    )


def media_type_of(data: bytes, announced: str | None, what: str) -> str:
    """The media type of a manifest: as it was announced, else as it says itself, else as its fields show."""
    known = (*INDEXES, *MANIFESTS)
    bare = (announced or "").partition(";")[0].strip().lower()
    if bare in known or bare.startswith(SCHEMA_1):
        return bare
    fields = parse_object(data, what)
    stated = fields.get("mediaType")
    if isinstance(stated, str) and stated in known:
        return stated
    if fields.get("schemaVersion") == 1:
        return f"{SCHEMA_1}+json"
    if stated is None and "manifests" in fields:
        return INDEX_TYPE
    if stated is None and "config" in fields:
        return MANIFEST_TYPE
    shown = stated if isinstance(stated, str) else announced
    raise UnsupportedMediaType(f"{what} has media type {shown!r}, which is neither a manifest's nor an index's")


def check_layers(layers: Sequence[Descriptor]) -> None:
    """Raise `UnsupportedMediaType` unless all of an image's layers are of kinds that can be read."""
    for layer in layers:
        if layer.media_type not in LAYERS:
            raise UnsupportedMediaType(
                f"layer {layer.digest} has media type {layer.media_type!r}, which is not known",
                remedy="Layers are tars, plain or compressed with gzip or zstd. Decrypt encrypted ones first.",
                layer=layer.digest,
            )


def best(offers: Sequence[Offer], platform_of: Callable[[Offer], Platform], wanted: Platform, what: str) -> Offer:
    """The offer that runs best on `wanted`. Raises `InvalidArchive` if none does, which says what there is."""
    from layerstore import platforms

    ranked = [(rank, offer) for offer in offers if (rank := platforms.rank(wanted, platform_of(offer))) is not None]
    if not ranked:
        there = ", ".join(sorted({str(platform_of(offer)) for offer in offers})) or "nothing"
        raise InvalidArchive(f"{what} has no image for {wanted}", remedy=f"It has {there}: ask for one of these.")
    return min(ranked, key=lambda pair: pair[0])[1]


def as_descriptor(value: object, what: str) -> Descriptor:
    """`value`, if it is a descriptor."""
    fields = as_object(value, what)
    size = fields.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise InvalidArchive(f"{what}: {size!r} is no size")
    media_type = as_text(fields.get("mediaType", ""), f"{what}: mediaType")
    name = as_digest(fields.get("digest"), what)
    platform, artifact_type, urls = (fields.get(key) for key in ("platform", "artifactType", "urls"))
    return Descriptor(
        media_type=media_type,
        digest=name,
        size=size,
        annotations=_texts(fields.get("annotations"), f"{what}: annotations"),
        platform=None if platform is None else as_object(platform, f"{what}: platform"),
        artifact_type=artifact_type if isinstance(artifact_type, str) and artifact_type else None,
        urls=tuple(url for url in urls if isinstance(url, str)) if isinstance(urls, list) else (),
        data=_embedded(fields.get("data"), name, size),
    )


def _embedded(value: object, name: Digest, size: int) -> bytes | None:
    """Embedded content (descriptor.md, "Embedded Content"). What is not the blob is none: that is fetched."""
    if not isinstance(value, str):
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError:
        return None
    return data if len(data) == size and digest.of_bytes(data) == name else None


def _descriptors(fields: Mapping[str, Any], key: str, what: str) -> tuple[Descriptor, ...]:
    values = as_list(fields.get(key), f"{what}: {key}")
    if len(values) > _ENTRIES_LIMIT:
        raise InvalidArchive(f"{what}: {key} has {len(values)} entries: {_ENTRIES_LIMIT} are allowed")
    return tuple(as_descriptor(value, f"{what}: {key}") for value in values)


def _texts(value: object, what: str) -> dict[str, str]:
    return {key: text for key, text in as_object(value or {}, what).items() if isinstance(text, str)}
