"""podman's, buildah's, skopeo's and CRI-O's store (containers/storage), as it lies in its graph root.

`<driver>-images/images.json` names the images and their top layers, `<driver>-layers/layers.json` the layers with
what they lie on; beside these are the images' documents (their `big data`) and the layers' tar-splits. Images of
additional stores are attached by themselves. Locks are not taken: each document is replaced by a rename.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from layerstore.attached.docker import full_name, with_split
from layerstore.attached.root import Root, State
from layerstore.attached.values import MOST_CONFIG, AttachedLayer, verified
from layerstore.digest import ChainID, DiffID, ImageID, chain_id, hex_of, of_bytes
from layerstore.digest import parse as parse_digest
from layerstore.errors import ConfigError, InvalidDigest
from layerstore.values import frozen

__all__ = ["Storage"]

_HOMES: Final = {"overlay": ("overlay/{}/diff", False), "vfs": ("vfs/dir/{}", True)}
_LAYERS: Final = ("layers.json", "volatile-layers.json")
_MOST = 256 << 20
_MOST_DEEP = 1000
_HEX = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[.0-9a-z]+")


@frozen
class _Layer:
    """A row of layers.json. `diff_id` is "" where it says none."""

    driver: str
    id: str
    parent: str
    diff_id: str
    size: int
    unfit: str | None


@frozen
class _Image:
    """A row of images.json. `top`: the uppermost layer; "" if there is none."""

    driver: str
    id: str
    names: tuple[str, ...]
    top: str


class Storage:
    """See `AttachedStore`."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._read: tuple[tuple[State | None, ...], dict[ChainID, _Layer]] = ((), {})
        """What the layers were, and the state that their documents had before these were read."""

    def require(self) -> None:
        """See `AttachedStore`."""
        self.root.require(*(f"{driver}-images" for driver in _HOMES))
        if not self._drivers():
            raise ConfigError(
                f"attach {self.root.spec}: only the drivers {' and '.join(_HOMES)} of containers/storage can be read",
                path=self.root.path,
            )

    def names(self) -> Mapping[str, ImageID]:
        """See `AttachedStore`."""
        found: dict[str, ImageID] = {}
        for image in self._images():
            named = [full for name in image.names if (full := full_name(name)) is not None]
            if named and (config := self._config(image)) is not None:
                for full in named:
                    found.setdefault(full, ImageID(of_bytes(config)))
        return found

    def ids(self) -> Sequence[ImageID]:
        """See `AttachedStore`."""
        configs = (self._config(image) for image in self._images())
        return list(dict.fromkeys(ImageID(of_bytes(config)) for config in configs if config is not None))

    def config(self, image: ImageID) -> bytes | None:
        """See `AttachedStore`."""
        # podman calls most images by the digests of their configs: those that are called so are looked at first.
        for one in sorted(self._images(), key=lambda one: one.id != hex_of(image)):
            if (config := self._config(one)) is not None and ImageID(of_bytes(config)) == image:
                return config
        return None

    def parent(self, image: ImageID) -> ImageID | None:
        """See `AttachedStore`. It is not noted there."""
        return None

    def size(self, image: ImageID, layers: Sequence[DiffID]) -> int:
        """See `AttachedStore`: the bytes of the tars."""
        rows, total, chain = self._by_chain(), 0, None
        for diff_id in layers:
            chain = chain_id(chain, diff_id)
            total += rows[chain].size if chain in rows else 0
        return total

    def layer(self, chain: ChainID, diff_id: DiffID) -> AttachedLayer | None:
        """See `AttachedStore`."""
        row = self._by_chain().get(chain)
        if row is None:
            return None
        verified(self.root, f"{row.driver}-layers/layers.json", DiffID(parse_digest(row.diff_id)), diff_id)
        home, whole = _HOMES[row.driver]
        folder = self.root.folder(home.format(row.id))
        if folder is None:
            return None
        layer = AttachedLayer(diff_id, folder, whole, row.unfit or self._unfit(row))
        split = f"{row.driver}-layers/{row.id}.tar-split.gz"
        return with_split(self.root, layer, folder, split) if self.root.has(split) else layer

    # --- inside ---

    def _unfit(self, row: _Layer) -> str | None:
        """Why a layer's folder cannot be read as it lies, if it cannot."""
        if row.driver == "overlay":
            if self.root.has(f"overlay/{row.id}/composefs-data"):
                return "it is kept by composefs"
            if (program := self.root.read("overlay/.has-mount-program", 4096)) is not None and program != b"false":
                return "its store is written by a mount program (fuse-overlayfs)"
        return None

    def _drivers(self) -> list[str]:
        return [driver for driver in _HOMES if self.root.folder(f"{driver}-images") is not None]

    def _rows(self, name: str) -> list[dict[str, Any]]:
        said = self.root.document(name, _MOST)
        if said is None:
            return []
        if not isinstance(said, list) or not all(isinstance(row, dict) for row in said):
            raise self.root.wrong(name, "it is no list of what there is")
        return said

    def _images(self) -> list[_Image]:
        found = []
        for driver in self._drivers():
            for row in self._rows(f"{driver}-images/images.json"):
                names, top = row.get("names") or [], row.get("layer") or ""
                if isinstance(image := row.get("id"), str) and _HEX.fullmatch(image) and isinstance(names, list):
                    found.append(_Image(driver, image, tuple(map(str, names)), str(top)))
        return found

    def _config(self, image: _Image) -> bytes | None:
        """The config, which the manifest names; a manifest of docker's first schema has none."""
        manifest = self._big(image, "manifest")
        try:
            said = json.loads(manifest or b"{}")
            digest = parse_digest(said["config"]["digest"])
        except (ValueError, KeyError, TypeError, RecursionError, InvalidDigest):
            return None
        config = self._big(image, digest)
        if config is not None and of_bytes(config) != digest:
            raise self.root.wrong(f"{image.driver}-images/{image.id}", "the config is not what the manifest says")
        return config

    def _big(self, image: _Image, key: str) -> bytes | None:
        """A document of an image; how its file is called: containers/storage, `makeBigDataBaseName`."""
        name = key if _PLAIN.fullmatch(key) else f"={base64.b64encode(key.encode()).decode()}"
        return self.root.read(f"{image.driver}-images/{image.id}/{name}", MOST_CONFIG)

    def _by_chain(self) -> Mapping[ChainID, _Layer]:
        """The layers by their ChainIDs, read anew when one of the documents is another."""
        documents = [(driver, f"{driver}-layers/{name}") for driver in self._drivers() for name in _LAYERS]
        states = tuple(self.root.state(name) for _, name in documents)
        if self._read[0] != states:
            layers: dict[str, _Layer] = {}
            for driver, name in documents:
                for row in self._rows(name):
                    if (layer := _layer(driver, row)) is not None:
                        layers.setdefault(layer.id, layer)
            self._read = states, _chained(layers)
        return self._read[1]


def _chained(layers: Mapping[str, _Layer]) -> dict[ChainID, _Layer]:
    """By their ChainIDs, as far as it is said what they are and what they lie on."""
    chains: dict[str, ChainID | None] = {}
    for layer in layers.values():
        path: list[str] = []
        above = layer.id
        while above and above not in chains and len(path) <= _MOST_DEEP:
            chains[above] = None  # a circle ends here
            path.append(above)
            above = layers[above].parent if above in layers else ""
        for one in reversed(path):
            chains[one] = _chain(layers, chains, one)
    found: dict[ChainID, _Layer] = {}
    for name, chain in chains.items():
        if chain is not None:
            found.setdefault(chain, layers[name])
    return found


def _chain(layers: Mapping[str, _Layer], chains: Mapping[str, ChainID | None], name: str) -> ChainID | None:
    row = layers.get(name)
    if row is None or not row.diff_id:
        return None
    if not row.parent:
        return chain_id(None, DiffID(row.diff_id))
    below = chains.get(row.parent)
    return None if below is None else chain_id(below, DiffID(row.diff_id))


def _layer(driver: str, row: Mapping[str, Any]) -> _Layer | None:
    """A row of layers.json; None for one that is no whole layer of an image."""
    name, parent, size = row.get("id"), row.get("parent") or "", row.get("diff-size") or 0
    flags = row.get("flags") or {}
    if not isinstance(name, str) or not _HEX.fullmatch(name) or not isinstance(parent, str):
        return None
    if not isinstance(flags, dict) or flags.get("incomplete"):
        return None
    try:
        diff_id = parse_digest(row.get("diff-digest"))
    except InvalidDigest:
        return None
    mapped = row.get("uidmap") or row.get("gidmap")
    return _Layer(
        driver,
        name,
        parent,
        diff_id,
        size if isinstance(size, int) and size >= 0 else 0,
        "its files have the owners of a user namespace" if mapped else None,
    )
