"""What an archive offers, once it has been understood: images as values, before a byte of a layer is read."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from layerstore import digest, platforms
from layerstore.digest import DiffID, Digest
from layerstore.errors import InvalidArchive
from layerstore.manifests import as_digest, as_list, as_object, parse_object
from layerstore.platforms import Platform
from layerstore.values import frozen


@frozen
class Blob:
    """A layer as it lies in the archive. `digest` and `size` are of the member's bytes; None: nobody states them."""

    member: str
    diff_id: DiffID
    digest: Digest | None = None
    size: int | None = None


@frozen
class Incoming:
    """An image of an archive: its config, byte for byte, its layers from bottom to top, its full names."""

    config: bytes
    layers: tuple[Blob, ...]
    names: tuple[str, ...] = ()

    @property
    def id(self) -> Digest:
        """The image's ID."""
        return digest.of_bytes(self.config)


def merged(images: Sequence[Incoming]) -> list[Incoming]:
    """Each image once, with all names that it is given."""
    found: dict[Digest, Incoming] = {}
    for image in images:
        known = found.setdefault(image.id, image)
        found[image.id] = evolve(known, names=tuple(dict.fromkeys((*known.names, *image.names))))
    return list(found.values())


def diff_ids_of(config: bytes, what: str) -> list[DiffID]:
    """The DiffIDs in an image's config (OCI image spec, config.md, "rootfs")."""
    rootfs = as_object(parse_object(config, what).get("rootfs"), f"{what}: rootfs")
    if rootfs.get("type") != "layers":
        raise InvalidArchive(f"{what}: rootfs has type {rootfs.get('type')!r}, not 'layers'")
    listed = as_list(rootfs.get("diff_ids"), f"{what}: rootfs.diff_ids")
    return [DiffID(as_digest(value, f"{what}: rootfs.diff_ids")) for value in listed]


def platform_of(config: bytes, what: str) -> Platform:
    """What the image is made for, by its config."""
    return platforms.of(parse_object(config, what))


def check_count(diff_ids: Sequence[DiffID], members: Sequence[object], what: str) -> None:
    """Raise `InvalidArchive` unless there is a layer for each DiffID."""
    if len(diff_ids) != len(members):
        raise InvalidArchive(f"{what} lists {len(members)} layers, but its config has {len(diff_ids)}")
