"""What a cache says of itself where it lies elsewhere: steps and layers, in the config of an image. Pure.

As an image, it can be in any registry and any OCI layout. Its layers are those that steps have made, each once; which
stands on which is in the document, so they need not be a stack. What the first of them stand on is known by its name
alone: whoever comes to such a step has the base image. In the config of an image that was built (`inline`) only the
steps are listed: their layers are the image's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from layerstore import ChainID, DiffID, InvalidArchive, StoredLayer
from layerstore.values import frozen

__all__ = ["FIELD", "CacheDocument", "Step", "config_of", "inline", "read"]

FIELD = "io.layerstore.build.cache"
"""Of the config; the image spec lets configs have fields of others."""

_VERSION = 1


@frozen
class Step:
    """What came of a step. `layer` is None if it wrote nothing; `parent`: what it stood on then."""

    key: str
    layer: ChainID | None
    description: str = ""
    parent: ChainID | None = None


@frozen
class Level:
    """A layer, and the one that it stands on."""

    diff_id: DiffID
    parent: ChainID | None


@frozen
class CacheDocument:
    """The steps that a cache has, by their keys, and the layers that these need, by their ChainIDs."""

    steps: Mapping[str, Step]
    levels: Mapping[ChainID, Level]

    def stack(self, top: ChainID) -> list[DiffID] | None:
        """The DiffIDs of a layer and all below it, bottom to top; None if one of them is missing."""
        found: list[DiffID] = []
        at: ChainID | None = top
        while at is not None:
            level = self.levels.get(at)
            if level is None or len(found) >= len(self.levels):
                return None
            found.append(level.diff_id)
            at = level.parent
        return found[::-1]


def config_of(
    steps: Iterable[Step],
    layers: Mapping[ChainID, StoredLayer],
    diff_ids: Sequence[DiffID],
    platform: Mapping[str, str],
) -> bytes:
    """The config of an image that is a cache. `layers` are all that its steps need, `diff_ids` those that it has.

    `platform` has the architecture and the system, as configs say them. The same steps give the same bytes.
    """
    levels = {
        chain: {"diff_id": layer.diff_id, **({} if layer.parent is None else {"parent": layer.parent})}
        for chain, layer in layers.items()
    }
    value = {
        **platform,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        FIELD: {"version": _VERSION, "layers": levels, "steps": _listed(steps)},
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def inline(steps: Iterable[Step]) -> dict[str, Any]:
    """What is added to the config of an image, all of whose steps' layers are its own."""
    return {FIELD: {"version": _VERSION, "steps": _listed(steps)}}


def _listed(steps: Iterable[Step]) -> list[dict[str, str]]:
    listed = []
    for step in sorted(steps, key=lambda one: one.key):
        facts = {"key": step.key, "layer": step.layer, "parent": step.parent, "description": step.description}
        listed.append({name: value for name, value in facts.items() if value})
    return listed


def read(config: bytes, what: str) -> CacheDocument:
    """The document in a config. Raises `InvalidArchive` if there is none, or it is not as it should be."""
    try:
        whole = json.loads(config)
        value = whole[FIELD]
    except (ValueError, KeyError, TypeError):
        raise InvalidArchive(
            f"{what} has no cache of builds in it",
            remedy="Export one: --cache-to, of this program. What other builders export has another form.",
        ) from None
    try:
        if value["version"] != _VERSION:
            raise InvalidArchive(
                f"the cache in {what} has version {value['version']}, this layerstore knows {_VERSION}"
            )
        listed = value.get("layers")
        levels = _chain(whole["rootfs"]["diff_ids"]) if listed is None else _levels(listed)
        steps = [
            Step(str(one["key"]), _id(one.get("layer")), str(one.get("description", "")), _id(one.get("parent")))
            for one in value["steps"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidArchive(f"the cache in {what} is not as it should be: {error!r}") from None
    return CacheDocument({step.key: step for step in steps}, levels)


def _levels(listed: Mapping[str, Mapping[str, Any]]) -> dict[ChainID, Level]:
    return {ChainID(chain): Level(DiffID(one["diff_id"]), _id(one.get("parent"))) for chain, one in listed.items()}


def _chain(diff_ids: Iterable[str]) -> dict[ChainID, Level]:
    """The layers of a stack (OCI image spec, config.md, "Layer ChainID"), and each of them by itself."""
    levels: dict[ChainID, Level] = {}
    parent: ChainID | None = None
    for diff_id in diff_ids:
        joined = f"{parent} {diff_id}".encode()
        chain = ChainID(diff_id if parent is None else f"sha256:{hashlib.sha256(joined).hexdigest()}")
        levels.setdefault(ChainID(diff_id), Level(DiffID(diff_id), None))  # on nothing: see `Cache.steps`
        levels[chain] = Level(DiffID(diff_id), parent)
        parent = chain
    return levels


def _id(value: object) -> ChainID | None:
    return None if value is None else ChainID(str(value))
