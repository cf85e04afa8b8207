"""OCI image layout: `index.json` leads to manifests, these to configs and layers, each by digest and size.

Every document is verified before it is read. An index may hold an image for several platforms, attestations and other
artifacts beside images; what is chosen is an image for the platform asked for, under each name that the index gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from layerstore import platforms, reference
from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, InvalidReference, UnsupportedMediaType
from layerstore.platforms import Platform
from layerstore.transfer.choosing import Offered
from layerstore.transfer.documents import (
    Descriptor,
    Documents,
    as_descriptor,
    as_list,
    parse_object,
    read_blob,
)
from layerstore.transfer.incoming import Blob, Incoming, check_count, diff_ids_of, platform_of

INDEX: Final = "index.json"
LAYOUT: Final = "oci-layout"
LAYOUT_VERSION: Final = "1.0.0"

REF_NAME: Final = "org.opencontainers.image.ref.name"
IMAGE_NAME: Final = "io.containerd.image.name"
"""containerd's and docker's annotation for the whole name, where the other has only a tag."""

INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"

_INDEXES: Final = (INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS: Final = (MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
_CONFIGS: Final = (CONFIG_TYPE, "application/vnd.docker.container.image.v1+json")
_LAYERS: Final = frozenset(
    prefix + suffix
    for prefix, suffixes in {
        LAYER_TYPE: ("", "+gzip", "+zstd"),
        "application/vnd.oci.image.layer.nondistributable.v1.tar": ("", "+gzip", "+zstd"),
        "application/vnd.docker.image.rootfs.diff.tar": ("", ".gzip", ".zstd"),
        "application/vnd.docker.image.rootfs.foreign.diff.tar": ("", ".gzip", ".zstd"),
    }.items()
    for suffix in suffixes
)

_LAYER_PREFIXES: Final = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")

_DEPTH_LIMIT: Final = 8
_MANIFESTS_LIMIT: Final = 10_000


@frozen
class _Leaf:
    """What is no index, somewhere under `index.json`; `entry` is the entry that led to it."""

    descriptor: Descriptor
    names: tuple[str, ...]
    entry: int
    word: str = ""
    """What the index calls it, whether or not that is a name."""


@frozen
class _Offer:
    """An image manifest that is in the archive."""

    leaf: _Leaf
    manifest: dict[str, Any]
    config: Descriptor
    platform: Platform


@frozen
class Layout:
    """What a layout has: the images that are wanted, and the configs of these and of all others."""

    images: tuple[Incoming, ...] = ()
    configs: frozenset[Digest] = frozenset()


def describe(documents: Documents, platform: Platform | None, only: Collection[Digest] | None = None) -> Layout:
    """The images of a layout for `platform`, or for this machine; `only`: of those with these configs.

    Raises `InvalidArchive`.
    """
    artifacts: set[str] = set()
    images: list[Incoming] = []
    configs: set[Digest] = set()
    for offers in _all_offers(documents, artifacts):
        configs.update(offer.config.digest for offer in offers)
        if wanted := [offer for offer in offers if only is None or offer.config.digest in only]:
            images.append(_image(documents, _chosen(wanted, platform)))
    if not configs and artifacts:
        raise UnsupportedMediaType(f"the archive has no image, but {', '.join(sorted(artifacts))}")
    return Layout(tuple(images), frozenset(configs))


def offered(documents: Documents) -> list[Offered]:
    """All images of a layout, for every platform, as somebody may ask for them."""
    return [
        Offered(
            offer.config.digest,
            offer.leaf.names,
            digests=(offer.leaf.descriptor.digest,),
            words=(offer.leaf.word,) if offer.leaf.word else (),
        )
        for offers in _all_offers(documents, set())
        for offer in offers
    ]


def names_of(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """The full name that annotations give; none if they hold but a tag, or nothing that could be a name."""
    for text in (annotations.get(IMAGE_NAME, ""), annotations.get(REF_NAME, "")):
        if "/" in text or ":" in text:
            try:
                return (reference.normalise(text),)
            except InvalidReference:
                pass  # an annotation is free text
    return ()


def _word_of(annotations: Mapping[str, str]) -> str:
    return annotations.get(REF_NAME) or annotations.get(IMAGE_NAME) or ""


# --- the way to the manifests ---


def _check_layout(documents: Documents) -> None:
    data = documents.document(LAYOUT)
    version = LAYOUT_VERSION if data is None else parse_object(data, LAYOUT).get("imageLayoutVersion")
    if not isinstance(version, str) or version.partition(".")[0] != LAYOUT_VERSION.partition(".")[0]:
        raise InvalidArchive(f"{LAYOUT} has version {version!r}: {LAYOUT_VERSION} is known", path=LAYOUT)


def _leaves(documents: Documents, index: dict[str, Any]) -> Iterator[_Leaf]:
    """All that the indexes lead to, in their order, but for attestations. Nothing is visited twice for one name."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = [
        (_Leaf(descriptor, names_of(descriptor.annotations), entry, _word_of(descriptor.annotations)), 0)
        for entry, descriptor in enumerate(_entries(index, INDEX))
    ][::-1]
    while waiting:
        leaf, depth = waiting.pop()
        descriptor, names = leaf.descriptor, leaf.names
        if (descriptor.digest, names) in seen or _is_attestation(descriptor):
            continue
        seen.add((descriptor.digest, names))
        if len(seen) > _MANIFESTS_LIMIT:
            raise InvalidArchive(f"the indexes of the archive list more than {_MANIFESTS_LIMIT} manifests")
        if descriptor.media_type not in _INDEXES:
            yield leaf
            continue
        if depth == _DEPTH_LIMIT:
            raise InvalidArchive(f"the indexes of the archive are nested more than {_DEPTH_LIMIT} deep")
        nested = _entries(_document(documents, descriptor, "index"), f"index {descriptor.digest}")
        waiting += [
            (
                _Leaf(
                    child, names or names_of(child.annotations), leaf.entry, leaf.word or _word_of(child.annotations)
                ),
                depth + 1,
            )
            for child in reversed(nested)
        ]


def _document(documents: Documents, descriptor: Descriptor, what: str) -> dict[str, Any]:
    """A verified manifest or index. One that could be read as either is refused (CVE-2021-41190)."""
    title = f"{what} {descriptor.digest}"
    fields = parse_object(read_blob(documents, descriptor, what), title)
    if fields.get("mediaType", descriptor.media_type) != descriptor.media_type:
        raise InvalidArchive(
            f"{title} has media type {fields['mediaType']!r}, but is announced as {descriptor.media_type!r}"
        )
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise InvalidArchive(f"{title} is an index and a manifest at once")
    return fields


def _entries(index: dict[str, Any], what: str) -> list[Descriptor]:
    manifests = as_list(index.get("manifests"), f"{what}: manifests")
    return [as_descriptor(value, f"{what}: manifests") for value in manifests]


def _is_attestation(descriptor: Descriptor) -> bool:
    """What BuildKit lists beside an image: provenance and the like, for a platform that is not known."""
    if descriptor.annotations.get("vnd.docker.reference.type") == "attestation-manifest":
        return True
    return descriptor.platform is not None and platforms.of(descriptor.platform).is_unknown


# --- the choice of a platform ---


def _groups(leaves: Sequence[_Leaf]) -> list[list[_Leaf]]:
    """Leaves that are one image for several platforms: what one name or one nested index leads to.

    Some tools put the platforms of a single image side by side into index.json, without a name.
    """
    groups: dict[object, list[_Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.names or leaf.entry, []).append(leaf)
    stated = [platforms.of(leaf.descriptor.platform) for leaf in leaves if leaf.descriptor.platform is not None]
    nameless = not any(leaf.names for leaf in leaves)
    if nameless and len(stated) == len(leaves) == len(set(stated)):
        return [list(leaves)]
    return list(groups.values())


def _all_offers(documents: Documents, artifacts: set[str]) -> Iterator[list[_Offer]]:
    """The image manifests of the whole layout, by group; what is no image is noted in `artifacts`."""
    data = documents.document(INDEX)
    if data is None:
        return
    _check_layout(documents)
    for group in _groups(list(_leaves(documents, parse_object(data, INDEX)))):
        if offers := _offers(documents, group, artifacts):
            yield offers


def _offers(documents: Documents, group: Sequence[_Leaf], artifacts: set[str]) -> list[_Offer]:
    """The image manifests of a group. An index may list more platforms than the archive has."""
    there = [leaf for leaf in group if documents.size(leaf.descriptor.member) is not None]
    offers = []
    for leaf in there or group[:1]:
        descriptor = leaf.descriptor
        if descriptor.media_type not in _MANIFESTS:
            artifacts.add(f"a blob of type {descriptor.media_type!r}")
            continue
        manifest = _document(documents, descriptor, "manifest")
        config = as_descriptor(manifest.get("config"), f"manifest {descriptor.digest}: config")
        if (kind := _artifact(manifest, config, descriptor)) is not None:
            artifacts.add(f"an artifact of type {kind!r}")
            continue
        if descriptor.platform is not None:
            platform = platforms.of(descriptor.platform)
        else:
            platform = platform_of(read_blob(documents, config, "config"), f"config {config.digest}")
        offers.append(_Offer(leaf, manifest, config, platform))
    return offers


def _artifact(manifest: dict[str, Any], config: Descriptor, descriptor: Descriptor) -> str | None:
    """What a manifest describes if it is no image (OCI image spec, manifest.md, "Guidelines for Artifact Usage")."""
    if config.media_type not in _CONFIGS:
        kind = manifest.get("artifactType")
        return kind if isinstance(kind, str) and kind else config.media_type
    types = [layer.media_type for layer in _layers(manifest, descriptor)]
    if types and not any(media_type.startswith(_LAYER_PREFIXES) for media_type in types):
        return types[0]
    return None


def _chosen(offers: Sequence[_Offer], platform: Platform | None) -> _Offer:
    """The image that is wanted. A single one is, whatever it is made for, unless a platform was asked for."""
    if platform is None and len(offers) == 1:
        return offers[0]
    wanted = platforms.host() if platform is None else platform
    ranked = [(rank, offer) for offer in offers if (rank := platforms.rank(wanted, offer.platform)) is not None]
    if not ranked:
        title = next(iter(offers[0].leaf.names), "the archive")
        there = ", ".join(sorted({str(offer.platform) for offer in offers}))
        raise InvalidArchive(f"{title} has no image for {wanted}", remedy=f"It has {there}: ask for one of these.")
    return min(ranked, key=lambda pair: pair[0])[1]


# --- the image ---


def _image(documents: Documents, offer: _Offer) -> Incoming:
    descriptor = offer.leaf.descriptor
    config = read_blob(documents, offer.config, "config")
    layers = _layers(offer.manifest, descriptor)
    for layer in layers:
        if layer.media_type not in _LAYERS:
            raise UnsupportedMediaType(
                f"layer {layer.digest} has media type {layer.media_type!r}, which is not known",
                remedy="Layers are tars, plain or compressed with gzip or zstd. Decrypt encrypted ones first.",
                layer=layer.digest,
            )
    diff_ids = diff_ids_of(config, f"config {offer.config.digest}")
    check_count(diff_ids, layers, f"manifest {descriptor.digest}")
    return Incoming(
        config=config,
        layers=tuple(
            Blob(layer.member, diff_id, layer.digest, layer.size)
            for layer, diff_id in zip(layers, diff_ids, strict=True)
        ),
        names=offer.leaf.names,
    )


def _layers(manifest: dict[str, Any], descriptor: Descriptor) -> list[Descriptor]:
    what = f"manifest {descriptor.digest}: layers"
    return [as_descriptor(value, what) for value in as_list(manifest.get("layers"), what)]
