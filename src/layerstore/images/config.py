"""What an image's configuration says, and how one is made: pure functions over its JSON.

The bytes are the image's identity, so they are kept as they came and never written again; what is made here has one
form (sorted keys, no spaces). Format: OCI image spec, config.md, which docker's is a superset of.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from layerstore import platforms
from layerstore.digest import ChainID, DiffID, ImageID, chain_ids
from layerstore.digest import parse as parse_digest
from layerstore.errors import InvalidArchive, InvalidDigest
from layerstore.platforms import Platform

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_KEPT = ("architecture", "variant", "os", "os.version", "os.features")


@frozen
class History:
    """One line of `history`: a step of the build, and the layer that it made, if any.

    `image` and `tags` are set where an image known to the store ends with this step. `size` is of the layer's tar.
    """

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    diff_id: DiffID | None = None
    chain_id: ChainID | None = None
    size: int = 0
    image: ImageID | None = None
    tags: tuple[str, ...] = ()


def read(data: bytes) -> Mapping[str, Any]:
    """The configuration in `data`, with what the store relies on checked. Raises `InvalidArchive`."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"the image's config is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InvalidArchive("the image's config is not a JSON object")
    for key, kind in (("rootfs", dict), ("config", dict), ("history", list)):
        if config.get(key) is not None and not isinstance(config[key], kind):
            raise InvalidArchive(f"the image's config has a wrong value for {key!r}")
    for key in ("created", "author", "architecture", "os", "variant", "comment"):
        if config.get(key) is not None and not isinstance(config[key], str):
            raise InvalidArchive(f"the image's config has a wrong value for {key!r}")
    if any(not isinstance(line, dict) for line in config.get("history") or ()):
        raise InvalidArchive("the image's config has a wrong value for 'history'")
    layers(config)
    return config


def layers(config: Mapping[str, Any]) -> tuple[DiffID, ...]:
    """The DiffIDs, bottom to top."""
    rootfs = config.get("rootfs")
    if rootfs is None:
        raise InvalidArchive("the image's config has no rootfs: this is not the config of a container image")
    if rootfs.get("type") != "layers":
        raise InvalidArchive(f"the image's config has a rootfs of type {rootfs.get('type')!r}, not 'layers'")
    diff_ids = rootfs.get("diff_ids") or []
    try:
        if not isinstance(diff_ids, list):
            raise InvalidDigest(diff_ids)
        return tuple(DiffID(parse_digest(diff_id)) for diff_id in diff_ids)
    except InvalidDigest as error:
        raise InvalidArchive(f"the image's config has a wrong rootfs.diff_ids: {error.message}") from error


def history(config: Mapping[str, Any]) -> tuple[History, ...]:
    """The steps, oldest first, each with its layer. Layers for which no step is given have an empty one."""
    diff_ids = layers(config)
    waiting = list(zip(diff_ids, chain_ids(diff_ids), strict=True))
    lines = config.get("history") or []
    steps = []
    for line in lines:
        empty = bool(line.get("empty_layer"))
        diff_id, chain_id = (None, None) if empty or not waiting else waiting.pop(0)
        steps.append(
            History(
                created=_text(line.get("created")),
                created_by=_text(line.get("created_by")),
                author=_text(line.get("author")),
                comment=_text(line.get("comment")),
                empty_layer=diff_id is None,
                diff_id=diff_id,
                chain_id=chain_id,
            )
        )
    steps += [History(diff_id=diff_id, chain_id=chain_id) for diff_id, chain_id in waiting]
    return tuple(steps)


def derive(
    base: Mapping[str, Any] | None,
    *,
    new_layer: DiffID | None,
    run_config: Mapping[str, Any],
    created: str,
    author: str = "",
    comment: str = "",
    created_by: str = "",
    platform: Platform | None = None,
) -> bytes:
    """The configuration of an image that adds a layer (or only metadata) to `base`, or to nothing.

    `platform` is that of an image from nothing; by default this machine's.
    """
    config: dict[str, Any] = dict((platforms.host() if platform is None else platform).fields)
    old_layers: Sequence[str] = ()
    old_history: Sequence[Mapping[str, Any]] = ()
    if base is not None:
        config = {key: base[key] for key in _KEPT if base.get(key)}
        old_layers = layers(base)
        old_history = _complete_history(base)
        author = author or _text(base.get("author"))
    step = {"created": created, "created_by": created_by, "author": author, "comment": comment}
    step = {key: value for key, value in step.items() if value}
    config["created"] = created
    if author:
        config["author"] = author
    config["config"] = dict(run_config)
    config["rootfs"] = {"type": "layers", "diff_ids": [*old_layers, *([new_layer] if new_layer else [])]}
    config["history"] = [*old_history, step if new_layer else step | {"empty_layer": True}]
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def now() -> str:
    """The time for something made now: SOURCE_DATE_EPOCH where it is set, to make equal things equal."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return timestamp(int(epoch) * 10**9 if epoch.isdecimal() else time.time_ns())


def timestamp(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 writes them, without zeros at the end, as Go does."""
    seconds, fraction = divmod(ns, 10**9)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{digits}Z"


def moment(text: str) -> datetime | None:
    """The time that RFC 3339 text tells, to the microsecond; None if it tells none."""
    if (match := _TIME.fullmatch(text)) is None:
        return None
    stem, fraction, zone = match.groups()
    try:
        return datetime.fromisoformat(f"{stem}.{(fraction or '0')[:6]:<06}{zone.replace('Z', '+00:00')}")
    except ValueError:
        return None


def _complete_history(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps as they are, or if they do not account for every layer, one for each that they leave out."""
    lines = list(config.get("history") or [])
    count = sum(not line.get("empty_layer") for line in lines)
    return lines + [{} for _ in range(len(layers(config)) - count)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
