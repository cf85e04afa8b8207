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
from layerstore.registry.transport.words import printable
from layerstore.values import frozen

__all__ = ["ALTERED", "Way", "image_in", "told_of", "written"]

ALTERED: Final = "It was thrown away, for it was altered on the way or in the registry. Try again, or tell its owner."
"""What to do about content that has another digest."""

_DEPTH: Final = 4
_INDEXES: Final = 100


@frozen
class Way:
    """How an image was found: the documents from what a name means down to its own manifest, and what that says."""

    documents: tuple[Manifest, ...]
    contents: Contents
    config: Descriptor


@frozen
class _Entry:
    descriptor: Descriptor
    above: tuple[Manifest, ...]


def image_in(top: Manifest, platform: Platform | None, fetch: Callable[[Descriptor], Manifest], *, what: str) -> Way:
    """The image for `platform`, or for this machine, that a manifest is or that an index leads to.

    `fetch` gives the manifest to a descriptor; `what` is the image's name. An index that has but one image without a
    platform is that image. Raises `InvalidArchive` if there is none, which says what there is, and
    `UnsupportedMediaType` for an artifact.
    """
    documents: tuple[Manifest, ...] = (top,)
    if top.is_index:
        wanted = platforms.host() if platform is None else platform
        entries = list(_entries(top, fetch, what))
        stated = [entry for entry in entries if entry.descriptor.platform is not None]
        chosen = entries[0] if len(entries) == 1 and not stated else best(stated, _platform_of, wanted, what)
        documents = (*chosen.above, fetch(chosen.descriptor))
    contents = read(documents[-1])
    if contents.artifact is not None or contents.config is None:
        raise UnsupportedMediaType(
            f"{what} is no image, but an artifact of type {printable(contents.artifact or documents[-1].media_type)}",
            remedy="`layerstore copy` takes it from place to place; a store keeps images.",
        )
    return Way(documents, contents, contents.config)


def _platform_of(entry: _Entry) -> Platform:
    return platforms.of(entry.descriptor.platform or {})


def _entries(top: Manifest, fetch: Callable[[Descriptor], Manifest], what: str) -> Iterator[_Entry]:
    """The manifests that an index lists, and those that indexes in it do; attestations are left out."""
    waiting = [_Entry(entry, (top,)) for entry in reversed(read(top).manifests)]
    indexes = 1
    while waiting:
        entry = waiting.pop()
        if entry.descriptor.is_attestation:
            continue
        if entry.descriptor.media_type in MANIFESTS:
            yield entry
        elif entry.descriptor.media_type in INDEXES:
            indexes += 1
            if len(entry.above) == _DEPTH or indexes > _INDEXES:
                raise InvalidArchive(
                    f"the indexes of {what} are nested more than {_DEPTH} deep, or more than {_INDEXES}",
                    remedy="No image needs that: name the digest of the manifest that is meant.",
                )
            index = fetch(entry.descriptor)
            waiting += [_Entry(nested, (*entry.above, index)) for nested in reversed(read(index).manifests)]


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
