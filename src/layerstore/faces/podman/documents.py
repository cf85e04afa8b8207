"""What containers/storage has beside its layers, as documents: `images.json`, `layers.json`, manifests.

The fields are those of containers/storage, `images.go` and `layers.go`; a reader passes over what it does not know.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

from layerstore.digest import ChainID, DiffID, hex_of, of_bytes
from layerstore.images import Image
from layerstore.values import frozen

__all__ = ["ExposedImage", "ExposedLayer", "link_of", "name_of"]

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.")

_NO_TIME = "1970-01-01T00:00:00Z"

_LINK_LENGTH = 26


@frozen
class ExposedLayer:
    """One layer, on its parent. `seen`: it and what can be seen below it, the nearest first.

    `size` is that of its tar; `users` and `groups` are all that own something in it.
    """

    chain: ChainID
    parent: ChainID | None
    diff_id: DiffID
    size: int
    seen: Sequence[ChainID]
    users: Sequence[int]
    groups: Sequence[int]

    @property
    def id(self) -> str:
        """As containers/storage has IDs: 64 digits."""
        return hex_of(self.chain)

    def row(self, created: str) -> dict[str, Any]:
        """Its entry in `layers.json`."""
        return {
            "id": self.id,
            **({} if self.parent is None else {"parent": hex_of(self.parent)}),
            "created": created,
            "compressed-diff-digest": self.diff_id,
            "compressed-size": self.size,
            "diff-digest": self.diff_id,
            "diff-size": self.size,
            "uidset": self.users,
            "gidset": self.groups,
        }

    @property
    def lower(self) -> str:
        """Its file `lower`: the links of what is below it, the nearest first."""
        return ":".join(f"l/{link_of(chain)}" for chain in self.seen[1:])


@frozen
class ExposedImage:
    """One image, and what podman reads of it: a manifest whose layers are plain tars, and the config to the byte."""

    image: Image
    layers: Sequence[ExposedLayer]

    @property
    def id(self) -> str:
        """The digest of its config, without the name of the algorithm."""
        return hex_of(self.image.id)

    @property
    def manifest(self) -> bytes:
        """An OCI image manifest (image-spec, manifest.md)."""
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": self.image.id, "size": len(self.image.config_bytes)},
            "layers": [{"mediaType": _LAYER, "digest": layer.diff_id, "size": layer.size} for layer in self.layers],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def parts(self) -> dict[str, bytes]:
        """Its "big data", by name."""
        return {
            str(self.image.id): self.image.config_bytes,
            f"manifest-{of_bytes(self.manifest)}": self.manifest,
            "manifest": self.manifest,
        }

    def row(self, names: Iterable[str]) -> dict[str, Any]:
        """Its entry in `images.json`."""
        parts = self.parts()
        return {
            "id": self.id,
            "digest": of_bytes(self.manifest),
            "names": list(names),
            **({"layer": self.layers[-1].id} if self.layers else {}),
            "metadata": "{}",
            "big-data-names": list(parts),
            "big-data-sizes": {name: len(data) for name, data in parts.items()},
            "big-data-digests": {name: of_bytes(data) for name, data in parts.items()},
            "created": self.image.created or _NO_TIME,
        }


def name_of(part: str) -> str:
    """The name of the file that has a part of an image (containers/storage, `makeBigDataBaseName`)."""
    return part if set(part) <= _PLAIN else "=" + base64.b64encode(part.encode()).decode()


def link_of(chain: ChainID) -> str:
    """The short name of a layer in folder `l`: 26 letters and digits, always the same."""
    return base64.b32encode(bytes.fromhex(hex_of(chain))).decode()[:_LINK_LENGTH]
