"""What an image's configuration says, and how one is made: pure functions over its JSON, and what images have of it.

The bytes are the image's identity, so they are kept as they came and never written again; what is made here has one
form (sorted keys, no spaces). Format: OCI image spec, config.md, which docker's is a superset of.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerstore.digest import ChainID, DiffID, ImageID, chain_ids, short
from layerstore.digest import parse as parse_digest
from layerstore.errors import ConfigError, InvalidArchive, InvalidDigest
from layerstore.values import frozen
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.platforms import Platform

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
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

    @property
    def created_at(self) -> datetime | None:
        """`created`, to the microsecond; None if it is no time."""
        return moment(self.created)


@in_words("image {0.short_id}")
class Configured:
    """What has a config, be it an image of the store or of an attached one. It is read when it is asked for."""

    if TYPE_CHECKING:

        @property
        def id(self) -> ImageID: ...
        @property
        def config_bytes(self) -> bytes: ...
        @property
        def created(self) -> str: ...

    @property
    def short_id(self) -> str:
        """12 digits of the ID."""
        return short(self.id)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The config, read."""
        return read(self.config_bytes)

    @cached_property
    def layers(self) -> tuple[DiffID, ...]:
        """The DiffIDs, bottom to top."""
        return layers(self.config)

    @cached_property
    def chain_ids(self) -> tuple[ChainID, ...]:
        """The layers, bottom to top."""
        return tuple(chain_ids(self.layers))

    @property
    def created_at(self) -> datetime | None:
        """`created`, to the microsecond."""
        return moment(self.created)


def read(data: bytes) -> Mapping[str, Any]:
    """The configuration in `data`, with what the store relies on checked. Raises `InvalidArchive`."""
    try:
        config = json.loads(data)
        if _SURROGATE.search(data):
            config = _whole(config)
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"the image's config is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InvalidArchive("the image's config is not a JSON object")
    for key, kind in (("rootfs", dict), ("config", dict), ("history", list)):
        if config.get(key) is not None and not isinstance(config[key], kind):
            raise InvalidArchive(f"the image's config has a wrong value for {key!r}")
    for key in ("author", "architecture", "os", "variant", "comment"):
        if config.get(key) is not None and not isinstance(config[key], str):
            raise InvalidArchive(f"the image's config has a wrong value for {key!r}")
    if any(not isinstance(line, dict) for line in config.get("history") or ()):
        raise InvalidArchive("the image's config has a wrong value for 'history'")
    layers(config)
    return config


def created_of(config: Mapping[str, Any]) -> str:
    """When the image was made, as its config says it; "" if it does not."""
    return _text(config.get("created"))


def layers(config: Mapping[str, Any]) -> tuple[DiffID, ...]:
    """The DiffIDs, bottom to top."""
    rootfs = config.get("rootfs")
    if rootfs is None:
        raise InvalidArchive("the image's config has no rootfs: this is not the config of a container image")
    if rootfs.get("type") != "layers":
        raise InvalidArchive(f"the image's config has a rootfs of type {rootfs.get('type')!r}, not 'layers'")
    diff_ids = rootfs.get("diff_ids")
    try:
        if diff_ids is None:
            return ()
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
    below: Sequence[DiffID] | None = None,
    new_layer: DiffID | None,
    run_config: Mapping[str, Any],
    created: str,
    author: str | None = None,
    comment: str = "",
    created_by: str = "",
    platform: Platform | None = None,
) -> bytes:
    """The configuration of an image that adds a layer (or only metadata) to `base`, or to nothing.

    `below` are the layers that it lies on, if they are not those of `base`: what is more has an empty step each.
    `author`: None is that of `base`. `platform` is that of an image from nothing; by default this machine's.
    """
    config: dict[str, Any]
    if base is None:
        from layerstore import platforms

        config = dict((platforms.host() if platform is None else platform).fields)
        lines: Sequence[Mapping[str, Any]] = ()
    else:
        config = {key: base[key] for key in _KEPT if base.get(key) is not None}
        lines = base.get("history") or ()
        author = _text(base.get("author")) if author is None else author
    if below is None:
        below = () if base is None else layers(base)
    step = {"created": created, "created_by": created_by, "author": author, "comment": comment}
    step = {key: value for key, value in step.items() if value}
    config["created"] = created
    if author:
        config["author"] = author
    config["config"] = dict(run_config)
    config["rootfs"] = {"type": "layers", "diff_ids": [*below, *([new_layer] if new_layer else [])]}
    config["history"] = [*_complete(lines, below), step if new_layer else step | {"empty_layer": True}]
    return _written(config)


def now() -> str:
    """The time for something made now: SOURCE_DATE_EPOCH where it is set, to make equal things equal."""
    fixed = epoch()
    return timestamp(time.time_ns() if fixed is None else fixed)


def epoch() -> int | None:
    """The time of SOURCE_DATE_EPOCH in ns since the epoch, if it is set. Raises `ConfigError` if it is no time."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return None
    try:
        timestamp(ns := int(epoch) * 10**9)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"SOURCE_DATE_EPOCH is {epoch!r}, which is no time",
            remedy="Set it to seconds since 1970, up to the year 9999, or unset it.",
        ) from None
    return ns


def squashed(config: Mapping[str, Any], kept: int, new: DiffID | None, comment: str) -> bytes:
    """The config of an image whose layers above the first `kept` have become one, or none at all.

    All else stays, its time, too: the same layers always give the same. A step that says so, in `comment`, has the new
    layer, and those that had the old ones have none.
    """
    diff_ids = layers(config)
    steps, count = [], 0
    for line in _complete(config.get("history") or (), diff_ids):
        count += not line.get("empty_layer")
        steps.append(line if count <= kept else {**line, "empty_layer": True})
    last = {"created": created_of(config), "comment": comment}
    step = {key: value for key, value in last.items() if value}
    made = {
        **config,
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids[:kept], *([new] if new else [])]},
        "history": [*steps, step if new else step | {"empty_layer": True}],
    }
    return _written(made)


def renamed(config: Mapping[str, Any], diff_ids: Sequence[str]) -> bytes:
    """The same config with other layers in the places of its own: they say the same by other tars."""
    return _written({**config, "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}})


def timestamp(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 writes them, without zeros at the end, as Go does."""
    seconds, fraction = divmod(ns, 10**9)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}{digits}Z"


def moment(text: str) -> datetime | None:
    """The time that RFC 3339 text tells, in UTC and to the microsecond; None if it tells none.

    Go's zero time, 0001-01-01T00:00:00Z, tells none: it is how Go writes a time that was never set. A leap second is
    the first of the next minute, and what falls out of the year 9999 by its zone is that year's end.
    """
    if (match := _TIME.fullmatch(text)) is None:
        return None
    day, minute, second, fraction, zone = match.groups()
    is_leap = second == "60"
    exact = f"{'59' if is_leap else second}.{(fraction or '0')[:6]:<06}"
    try:
        then = datetime.fromisoformat(f"{day}T{minute}:{exact}{zone.upper().replace('Z', '+00:00')}")
    except ValueError:
        return None
    try:
        then = then.astimezone(UTC) + timedelta(seconds=is_leap)
    except OverflowError:
        then = _FIRST if then.year == 1 else _LAST
    return None if then == _FIRST else then


def _written(config: Mapping[str, Any]) -> bytes:
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def _complete(lines: Sequence[Mapping[str, Any]], diff_ids: Sequence[DiffID]) -> list[Mapping[str, Any]]:
    """The steps as they are, or if they do not account for every layer, one for each that they leave out."""
    count = sum(not line.get("empty_layer") for line in lines)
    return [*lines, *({} for _ in range(len(diff_ids) - count))]


def _whole(value: Any) -> Any:
    """JSON whose halves of surrogate pairs, which nothing can write as UTF-8, are U+FFFD, as Go reads them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(element) for element in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(element) for key, element in value.items()}
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
