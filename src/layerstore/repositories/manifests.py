"""What a manifest or index says to who keeps it: what it needs, what it refers to, whether an image can be made of it.

Pure functions over its bytes. Formats: OCI image spec, manifest.md and image-index.md, and docker's schema 2. What is
neither an image nor an index is kept as it is, if it says in its form what it needs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field

from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, InvalidDigest
from layerstore.manifests import as_list, as_object, as_text, media_type_of, parse_object
from layerstore.manifests.media_types import (
    CONFIGS,
    DOCKER_CONFIG_TYPE,
    DOCKER_LAYER_TYPE,
    DOCKER_MANIFEST_TYPE,
    INDEXES,
    LAYER_PREFIXES,
    MANIFEST_TYPE,
    MANIFESTS,
    SCHEMA_1,
    is_foreign,
)
from layerstore.platforms import Platform
from layerstore.platforms import of as platform_of
from layerstore.transfer import outgoing
from layerstore.values import frozen

_PARTS: Final = 10_000
"""The most that a manifest may need."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_SIZE_LIMIT: Final = 1 << 63


@frozen
class Part:
    """A blob or manifest that a manifest needs: a descriptor (OCI image spec, descriptor.md), as far as it matters."""

    digest: str
    """`sha256:<hex>`, or `sha512:<hex>`."""
    size: int
    media_type: str
    platform: Platform | None = None
    is_foreign: bool = False
    """It lies elsewhere, where its URLs say, and need not be here (manifest.md, "Non-distributable layers")."""


@frozen
class Document:
    """A manifest or index, and what it says."""

    data: bytes = field(repr=False)
    media_type: str
    parts: tuple[Part, ...] = ()
    """A manifest's config and layers, or an index's manifests, in their order."""
    subject: str | None = None
    """The digest of the manifest that it is about."""
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(factory=dict)

    @property
    def is_index(self) -> bool:
        """Does it list manifests?"""
        return self.media_type in INDEXES

    @property
    def config(self) -> Part | None:
        """The config of a manifest."""
        return None if self.is_index or not self.parts else self.parts[0]

    @property
    def layers(self) -> tuple[Part, ...]:
        """The layers of a manifest."""
        return () if self.is_index else self.parts[1:]

    @property
    def describes_image(self) -> bool:
        """Is it an image's, by the types of what it needs?"""
        config = self.config
        if config is None or config.media_type not in CONFIGS:
            return False
        return all(layer.media_type.startswith(LAYER_PREFIXES) for layer in self.layers)


def digest_of(data: bytes, like: str = "sha256:") -> str:
    """The digest of `data`, by the algorithm of another digest."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def parse_digest(text: str) -> str:
    """`text`, if it is a digest of sha256 or sha512 (OCI image spec, descriptor.md). Raises `InvalidDigest`."""
    if _DIGEST.fullmatch(text):
        return text
    raise InvalidDigest(text)


def read(data: bytes, media_type: str) -> Document:
    """What `data` says, which came as `media_type`; "": the document says it itself. Raises `InvalidArchive`."""
    kind = media_type_of(data, media_type, "the manifest")
    if kind.startswith(SCHEMA_1):
        raise InvalidArchive(
            "the manifest has docker's first schema, which says neither a config nor what its layers unpack to",
            remedy="Push the image with a newer docker, podman or skopeo.",
        )
    fields = parse_object(data, "the manifest")
    if fields.get("mediaType", kind) != kind:
        raise InvalidArchive(f"the manifest has media type {fields['mediaType']!r}, but came as {kind!r}")
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        # It could be read as either (CVE-2021-41190).
        raise InvalidArchive("the manifest is an index and a manifest at once")
    if kind in INDEXES:
        parts = _parts(fields.get("manifests"), "the index: manifests")
    else:
        config = _part(as_object(fields.get("config"), "the manifest: config"), "the manifest: config")
        parts = (config, *_parts(fields.get("layers"), "the manifest: layers"))
    subject = fields.get("subject")
    return Document(
        data=data,
        media_type=kind,
        parts=parts,
        subject=None if subject is None else _part(as_object(subject, "the manifest: subject"), "subject").digest,
        artifact_type=_artifact_type(fields, kind, parts),
        annotations=_texts(fields.get("annotations"), "the manifest: annotations"),
    )


def of_image(config: bytes, layers: Sequence[tuple[Digest, int]], *, docker: bool = False) -> Document:
    """The manifest of an image with plain layers, of which digests and sizes are given: the same for the same image.

    `docker`: as docker's schema 2 has it, for who knows no other.
    """
    data = outgoing.manifest(config, [outgoing.layer("none", name, size) for name, size in layers])
    if not docker:
        return read(data, MANIFEST_TYPE)
    fields = parse_object(data, "the manifest") | {"mediaType": DOCKER_MANIFEST_TYPE}
    fields["config"]["mediaType"] = DOCKER_CONFIG_TYPE
    for layer in fields["layers"]:
        layer["mediaType"] = DOCKER_LAYER_TYPE
    return read(outgoing.document(fields), DOCKER_MANIFEST_TYPE)


def _artifact_type(fields: Mapping[str, Any], kind: str, parts: Sequence[Part]) -> str:
    """What referrers show of it (distribution-spec, "Listing Referrers")."""
    stated = fields.get("artifactType")
    if isinstance(stated, str) and stated:
        return stated
    return parts[0].media_type if kind in MANIFESTS else ""


def _parts(value: object, what: str) -> tuple[Part, ...]:
    elements = as_list(value, what)
    if len(elements) > _PARTS:
        raise InvalidArchive(f"{what} are {len(elements)}: {_PARTS} are allowed")
    return tuple(_part(as_object(element, what), what) for element in elements)


def _part(fields: Mapping[str, Any], what: str) -> Part:
    size = fields.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _SIZE_LIMIT:
        raise InvalidArchive(f"{what}: {size!r} is no size")
    name = fields.get("digest")
    if not isinstance(name, str) or not _DIGEST.fullmatch(name):
        raise InvalidArchive(f"{what}: {name!r} is no digest of sha256 or sha512")
    media_type = as_text(fields.get("mediaType", ""), f"{what}: mediaType")
    platform = fields.get("platform")
    urls = fields.get("urls")
    return Part(
        digest=name,
        size=size,
        media_type=media_type,
        platform=platform_of(platform) if isinstance(platform, dict) else None,
        is_foreign=is_foreign(media_type) and isinstance(urls, list) and bool(urls),
    )


def _texts(value: object, what: str) -> dict[str, str]:
    if value is None:
        return {}
    return {key: text for key, text in as_object(value, what).items() if isinstance(text, str)}
