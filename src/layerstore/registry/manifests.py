"""Manifests as registries have them: the image for a platform, indexes that are written, errors that say what to do.

What a manifest says is read, and checked, by `layerstore.manifests`, as in archives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from layerstore import platforms
from layerstore.errors import InvalidArchive, UnsupportedMediaType
from layerstore.manifests import Contents, Descriptor, Manifest, best, read
from layerstore.manifests.media_types import INDEX_TYPE, INDEXES, MANIFESTS
from layerstore.platforms import Platform
from layerstore.registry.words import printable

__all__ = ["ALTERED", "image_in", "told_of", "written"]

ALTERED: Final = "It was thrown away, for it was altered on the way or in the registry. Try again, or tell its owner."
"""What to do about content that has another digest."""

_DEPTH: Final = 4
_INDEXES: Final = 100


def image_in(
    top: Manifest, platform: Platform | None, fetch: Callable[[Descriptor], Manifest], *, what: str
) -> Contents:
    """The image for `platform`, or for this machine, that a manifest is or that an index leads to.

    `fetch` gives the manifest to a descriptor; `what` is the image's name. An index that has but one image without a
    platform is that image. Raises `InvalidArchive` if there is none, which says what there is, and
    `UnsupportedMediaType` for an artifact.
    """
    if not top.is_index:
        return _image(top, what)
    wanted = platforms.host() if platform is None else platform
    entries = list(_entries(top, fetch, what))
    stated = [entry for entry in entries if entry.platform is not None]
    chosen = entries[0] if len(entries) == 1 and not stated else best(stated, _platform_of, wanted, what)
    return _image(fetch(chosen), what)


def _platform_of(entry: Descriptor) -> Platform:
    return platforms.of(entry.platform or {})


def _image(manifest: Manifest, what: str) -> Contents:
    contents = read(manifest)
    if (kind := contents.artifact) is not None or manifest.is_index:
        raise UnsupportedMediaType(
            f"{what} is no image, but an artifact of type {printable(kind or manifest.media_type)}",
            remedy="`layerstore copy` takes it from place to place; a store keeps images.",
        )
    return contents


def _entries(top: Manifest, fetch: Callable[[Descriptor], Manifest], what: str) -> Iterator[Descriptor]:
    """The manifests that an index lists, and those that indexes in it do; attestations are left out."""
    waiting = [(entry, 1) for entry in reversed(read(top).manifests)]
    indexes = 1
    while waiting:
        entry, depth = waiting.pop()
        if entry.is_attestation:
            continue
        if entry.media_type in MANIFESTS:
            yield entry
        elif entry.media_type in INDEXES:
            indexes += 1
            if depth == _DEPTH or indexes > _INDEXES:
                raise InvalidArchive(
                    f"the indexes of {what} are nested more than {_DEPTH} deep, or more than {_INDEXES}",
                    remedy="No image needs that: name the digest of the manifest that is meant.",
                )
            waiting += [(nested, depth + 1) for nested in reversed(read(fetch(entry)).manifests)]


def written(entries: Sequence[Descriptor]) -> Manifest:
    """An index of these manifests."""
    content = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [_fields(entry) for entry in entries]}
    return Manifest.of(INDEX_TYPE, json.dumps(content, separators=(",", ":")).encode())


def _fields(entry: Descriptor) -> dict[str, Any]:
    fields: dict[str, Any] = {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size}
    if entry.platform is not None:
        fields["platform"] = dict(entry.platform)
    if entry.artifact_type is not None:
        fields["artifactType"] = entry.artifact_type
    if entry.annotations:
        fields["annotations"] = dict(entry.annotations)
    return fields


@contextmanager
def told_of(registry: str) -> Iterator[None]:
    """While inside, what is wrong with a document is told as a registry's, not as an archive's."""
    try:
        yield
    except InvalidArchive as error:
        if error.remedy == InvalidArchive.usual_remedy:
            error.remedy = f"So has {printable(registry)} it: have the image pushed again."
        raise
