"""The media types of images, OCI's and docker's (OCI image spec, media-types.md; distribution, manifest-v2-2.md)."""

from __future__ import annotations

from typing import Final

INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"

DOCKER_LIST_TYPE: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar"

INDEXES: Final = (INDEX_TYPE, DOCKER_LIST_TYPE)
MANIFESTS: Final = (MANIFEST_TYPE, DOCKER_MANIFEST_TYPE)
CONFIGS: Final = (CONFIG_TYPE, DOCKER_CONFIG_TYPE)

SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1"
"""How the types begin that registries had before 2016, whose layers have no digest of their content."""

_FOREIGN: Final = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
LAYERS: Final = frozenset(
    prefix + suffix
    for prefix, suffixes in {
        LAYER_TYPE: ("", "+gzip", "+zstd"),
        _FOREIGN[0]: ("", "+gzip", "+zstd"),
        DOCKER_LAYER_TYPE: ("", ".gzip", ".zstd"),
        _FOREIGN[1]: ("", ".gzip", ".zstd"),
    }.items()
    for suffix in suffixes
)
"""The layers that can be read."""

LAYER_PREFIXES: Final = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")


def is_foreign(media_type: str) -> bool:
    """Is it a layer that must not be pushed, and lies elsewhere (OCI image spec, "Non-Distributable Layers")?"""
    return media_type.startswith(_FOREIGN)
