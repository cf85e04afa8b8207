"""`--cache-from` and `--cache-to`: where a cache lies, in BuildKit's words. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from layerstore import ConfigError
from layerstore.values import frozen

__all__ = ["Spec", "parse_spec"]

Kind = Literal["inline", "local", "registry", "store"]

_FROM: Final[Mapping[Kind, tuple[str, ...]]] = {
    "inline": ("ref",),
    "local": ("src",),
    "registry": ("ref",),
    "store": ("src",),
}
_TO: Final[Mapping[Kind, tuple[str, ...]]] = {
    "inline": (),
    "local": ("dest",),
    "registry": ("ref",),
    "store": ("dest",),
}
_MORE: Final = ("mode", "compression", "ignore-error")
_TAKEN_FOR_GRANTED: Final = (
    "oci-mediatypes",
    "image-manifest",
    "force-compression",
    "compression-level",
    "digest",
    "tag",
)
"""What BuildKit knows too, and what is so here in any case, or means nothing."""

_OTHERS: Final = ("azblob", "gha", "s3")


@frozen
class Spec:
    """Where a cache lies. `place` is a name in a registry, or a folder; "" of one that lies in the image itself."""

    kind: Kind
    place: str
    is_max: bool = False
    """All steps are given, not only those of the image itself."""
    compression: str | None = None
    is_optional: bool = False
    """A failure to give it is told, and fails nothing."""

    def __str__(self) -> str:
        return f"{self.kind} cache {self.place}" if self.place else f"{self.kind} cache"


def parse_spec(text: str, *, to: bool) -> Spec:
    """The value of `--cache-to` (`to`) or `--cache-from`: `type=registry,ref=NAME`, or a NAME alone.

    Raises `ConfigError`.
    """
    option = "--cache-to" if to else "--cache-from"
    if "=" not in text:
        return Spec("registry", text)
    values: dict[str, str] = {}
    for field in next(csv.reader([text]), []):
        name, equals, value = field.partition("=")
        if not equals:
            raise ConfigError(f"{option} {text}: {field!r} is not NAME=VALUE", remedy="It is type=…,NAME=VALUE,…")
        values[name.strip().lower()] = value
    asked = values.pop("type", "registry")
    known = _TO if to else _FROM
    kind = next((one for one in known if one == asked), None)
    if kind is None:
        reason = "is not supported" if asked in _OTHERS else "is not known"
        raise ConfigError(
            f"{option}: the type {asked} {reason}",
            remedy=f"The types are {', '.join(known)}." + _near(asked, known),
        )
    allowed = (*known[kind], *(_MORE if to else ()))
    for name in values:
        if name not in allowed and name not in _TAKEN_FOR_GRANTED:
            raise ConfigError(
                f"{option}: {kind} has no attribute {name!r}",
                remedy=f"It has {', '.join(allowed) or 'none'}." + _near(name, allowed),
            )
    place = values.get(known[kind][0], "") if known[kind] else ""
    if known[kind] and not place:
        raise ConfigError(f"{option}: {kind} needs {known[kind][0]}=…", remedy=f"Say type={kind},{known[kind][0]}=….")
    mode = values.get("mode", "min")
    if mode not in ("min", "max"):
        raise ConfigError(f"{option}: mode is min or max, not {mode!r}", remedy="max gives the steps of all stages.")
    if kind == "inline" and mode == "max":
        raise ConfigError(f"{option}: an image has its own steps alone", remedy="Take type=registry for mode=max.")
    compression = values.get("compression")
    if compression not in (None, "gzip", "zstd", "uncompressed"):
        raise ConfigError(f"{option}: there is no compression {compression!r}", remedy="gzip, zstd or uncompressed.")
    return Spec(
        "registry" if kind == "inline" and not to else kind,
        place,
        is_max=mode == "max",
        compression="none" if compression == "uncompressed" else compression,
        is_optional=values.get("ignore-error", "false").lower() in ("true", "1"),
    )


def _near(word: str, known: Iterable[str]) -> str:
    import difflib

    found = difflib.get_close_matches(word, list(known), 1)
    return f" Is {found[0]} meant?" if found else ""
