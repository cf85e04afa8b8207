"""docker-archive: `manifest.json`, which lists images by the members that hold their configs and layers.

Written by `docker save`, podman, skopeo, buildah, kaniko and others, who agree on that file and on nothing else: layers
are `<id>/layer.tar`, `<digest>.tar`, `<digest>.tar.gz` or `blobs/sha256/<digest>`, and may be links to each other.
There are no digests but the DiffIDs of the config, and names that look like one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from layerstore import reference
from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, InvalidReference
from layerstore.manifests import as_list, as_object, as_text, parse, verify
from layerstore.transfer.documents import BLOB, Documents
from layerstore.transfer.incoming import Blob, Incoming, check_count, diff_ids_of

MANIFEST: Final = "manifest.json"
LEGACY: Final = "repositories"
"""Before docker 1.10 there was only this."""

_CONFIG_NAME: Final = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.json)?")


def describe(documents: Documents) -> list[Incoming]:
    """The images that `manifest.json` lists. Raises `InvalidArchive`."""
    data = documents.document(MANIFEST)
    if data is None:
        return []
    items = as_list(parse(data, MANIFEST), MANIFEST)
    return [_image(documents, as_object(item, f"{MANIFEST}: image {at}")) for at, item in enumerate(items)]


def _image(documents: Documents, item: dict[str, Any]) -> Incoming:
    member = as_text(item.get("Config"), f"{MANIFEST}: Config")
    config = documents.document(member, "config")
    if config is None:
        raise InvalidArchive(f"config {member!r} is not in the archive", path=member)
    if (name := _CONFIG_NAME.fullmatch(member)) is not None:
        verify(config, Digest(f"sha256:{name[1]}"), f"config {member}")
    layers = [as_text(layer, f"{MANIFEST}: Layers") for layer in as_list(item.get("Layers"), f"{MANIFEST}: Layers")]
    diff_ids = diff_ids_of(config, f"config {member}")
    check_count(diff_ids, layers, f"{MANIFEST}: the image {member}")
    return Incoming(
        config=config,
        layers=tuple(Blob(layer, diff_id, _digest_in(layer)) for layer, diff_id in zip(layers, diff_ids, strict=True)),
        names=_names(as_list(item.get("RepoTags"), f"{MANIFEST}: RepoTags")),
    )


def _digest_in(member: str) -> Digest | None:
    """The digest of a blob of an OCI layout; other names promise nothing."""
    blob = BLOB.fullmatch(member)
    return None if blob is None else Digest(f"sha256:{blob[1]}")


def _names(tags: Sequence[object]) -> tuple[str, ...]:
    names = []
    for value in tags:
        tag = as_text(value, f"{MANIFEST}: RepoTags")
        if tag == "<none>:<none>":  # old docker's way to say that there is no tag
            continue
        try:
            names.append(reference.normalise(tag))
        except InvalidReference as error:
            raise InvalidArchive(f"{MANIFEST}: {error.message}") from error
    return tuple(dict.fromkeys(names))
