"""The documents of images that go out: manifests and their descriptors, made in one place, the same bytes each time.

Archives, registries and what serves a store take them from here, so that an image of the same blobs has the same digest
wherever it goes. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from layerstore import digest, reference
from layerstore.digest import Digest
from layerstore.errors import InvalidReference
from layerstore.manifests import media_types
from layerstore.transfer import oci

LAYER_TYPES: Final = {
    "none": media_types.LAYER_TYPE,
    "gzip": media_types.LAYER_TYPE + "+gzip",
    "zstd": media_types.LAYER_TYPE + "+zstd",
}
"""The media types of layers by their compression (OCI image spec, layer.md)."""


def manifest(config: bytes, layers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str] | None = None) -> bytes:
    """The manifest of an image with this config, and layers with these descriptors, bottom to top."""
    fields: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST_TYPE,
        "config": descriptor(media_types.CONFIG_TYPE, digest.of_bytes(config), len(config)),
        "layers": list(layers),
    }
    if annotations:
        fields["annotations"] = dict(sorted(annotations.items()))
    return document(fields)


def index(entries: Sequence[Mapping[str, Any]], **fields: Any) -> bytes:
    """An index of manifests with these descriptors."""
    return document({"schemaVersion": 2, "mediaType": media_types.INDEX_TYPE, "manifests": list(entries), **fields})


def layer(compression: str, name: Digest, size: int) -> dict[str, Any]:
    """The descriptor of a layer's blob. `compression`: a key of `LAYER_TYPES`."""
    return descriptor(LAYER_TYPES[compression], name, size)


def annotations_for(name: str) -> Mapping[str, str]:
    """What an entry of index.json says of a name, or of any other word.

    As docker: the tag for those who look for one, the whole name for those who know that annotation.
    """
    try:
        full = reference.normalise(name) if "/" in name or ":" in name else None
    except InvalidReference:
        full = None
    if full is None or full != name:
        return {oci.REF_NAME: name} if full is None else {oci.IMAGE_NAME: full, oci.REF_NAME: name}
    return {oci.IMAGE_NAME: full, oci.REF_NAME: reference.split(full)[1]}


def descriptor(media_type: str, name: Digest, size: int) -> dict[str, Any]:
    """A pointer to a blob (OCI image spec, descriptor.md)."""
    return {"mediaType": media_type, "digest": name, "size": size}


def document(value: object) -> bytes:
    """JSON, without blanks."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
