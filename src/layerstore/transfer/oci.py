"""OCI image layout: `index.json` leads to manifests, these to configs and layers, each by digest and size.

Every document is verified before it is read. An index may hold an image for several platforms, attestations and other
artifacts beside images; what is chosen is an image for the platform asked for, under each name that the index gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from layerstore import platforms, reference
from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, InvalidReference, UnsupportedMediaType
from layerstore.manifests import (
    Contents,
    Descriptor,
    Manifest,
    as_descriptor,
    as_list,
    best,
    check_layers,
    parse_object,
    read,
)
from layerstore.manifests.media_types import INDEXES, MANIFESTS
from layerstore.platforms import Platform
from layerstore.transfer.choosing import Offered
from layerstore.transfer.documents import Documents, member_of, read_blob
from layerstore.transfer.incoming import Blob, Incoming, check_count, diff_ids_of, platform_of
from layerstore.values import frozen

INDEX: Final = "index.json"
LAYOUT: Final = "oci-layout"
LAYOUT_VERSION: Final = "1.0.0"

REF_NAME: Final = "org.opencontainers.image.ref.name"
IMAGE_NAME: Final = "io.containerd.image.name"
"""containerd's and docker's annotation for the whole name, where the other has only a tag."""

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
    within: tuple[Digest, ...] = ()
    """The nested indexes that lead to it."""


@frozen
class _Offer:
    """An image manifest that is in the archive."""

    leaf: _Leaf
    manifest: Contents
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
            digests=(offer.leaf.descriptor.digest, *offer.leaf.within),
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


def _leaves(documents: Documents, index: Sequence[Descriptor]) -> Iterator[_Leaf]:
    """All that the indexes lead to, in their order, but for attestations. Nothing is visited twice for one name."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = [
        (_Leaf(descriptor, names_of(descriptor.annotations), entry, _word_of(descriptor.annotations)), 0)
        for entry, descriptor in enumerate(index)
    ][::-1]
    while waiting:
        leaf, depth = waiting.pop()
        descriptor, names = leaf.descriptor, leaf.names
        if (descriptor.digest, names) in seen or descriptor.is_attestation:
            continue
        seen.add((descriptor.digest, names))
        if len(seen) > _MANIFESTS_LIMIT:
            raise InvalidArchive(f"the indexes of the archive list more than {_MANIFESTS_LIMIT} manifests")
        if descriptor.media_type not in INDEXES:
            yield leaf
            continue
        if depth == _DEPTH_LIMIT:
            raise InvalidArchive(f"the indexes of the archive are nested more than {_DEPTH_LIMIT} deep")
        nested = _contents(documents, descriptor, "index").manifests
        waiting += [
            (
                _Leaf(
                    child,
                    names or names_of(child.annotations),
                    leaf.entry,
                    leaf.word or _word_of(child.annotations),
                    (*leaf.within, descriptor.digest),
                ),
                depth + 1,
            )
            for child in reversed(nested)
        ]


def _contents(documents: Documents, descriptor: Descriptor, what: str) -> Contents:
    """What a manifest or index of the archive says, verified."""
    return read(Manifest(descriptor.digest, descriptor.media_type, read_blob(documents, descriptor, what)))


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
    listed = as_list(parse_object(data, INDEX).get("manifests"), f"{INDEX}: manifests")
    entries = [as_descriptor(value, f"{INDEX}: manifests") for value in listed]
    for group in _groups(list(_leaves(documents, entries))):
        if offers := _offers(documents, group, artifacts):
            yield offers


def _offers(documents: Documents, group: Sequence[_Leaf], artifacts: set[str]) -> list[_Offer]:
    """The image manifests of a group. An index may list more platforms than the archive has."""
    there = [leaf for leaf in group if documents.size(member_of(leaf.descriptor)) is not None]
    offers = []
    for leaf in there or group[:1]:
        descriptor = leaf.descriptor
        if descriptor.media_type not in MANIFESTS:
            artifacts.add(f"a blob of type {descriptor.media_type!r}")
            continue
        manifest = _contents(documents, descriptor, "manifest")
        config = manifest.config
        if (kind := manifest.artifact) is not None or config is None:
            artifacts.add(f"an artifact of type {kind!r}")
            continue
        if descriptor.platform is not None:
            platform = platforms.of(descriptor.platform)
        else:
            platform = platform_of(read_blob(documents, config, "config"), f"config {config.digest}")
        offers.append(_Offer(leaf, manifest, config, platform))
    return offers


def _chosen(offers: Sequence[_Offer], platform: Platform | None) -> _Offer:
    """The image that is wanted. A single one is, whatever it is made for, unless a platform was asked for."""
    if platform is None and len(offers) == 1:
        return offers[0]
    wanted = platforms.host() if platform is None else platform
    return best(offers, lambda offer: offer.platform, wanted, next(iter(offers[0].leaf.names), "the archive"))


# --- the image ---


def _image(documents: Documents, offer: _Offer) -> Incoming:
    descriptor = offer.leaf.descriptor
    config = read_blob(documents, offer.config, "config")
    layers = offer.manifest.layers
    check_layers(layers)
    diff_ids = diff_ids_of(config, f"config {offer.config.digest}")
    check_count(diff_ids, layers, f"manifest {descriptor.digest}")
    return Incoming(
        config=config,
        layers=tuple(
            Blob(member_of(layer), diff_id, layer.digest, layer.size)
            for layer, diff_id in zip(layers, diff_ids, strict=True)
        ),
        names=offer.leaf.names,
    )
