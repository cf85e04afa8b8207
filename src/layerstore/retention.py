"""How much builds may keep and look at: `builder` of daemon.json, in docker's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from layerstore.options import size
from layerstore.values import frozen

__all__ = ["CachePolicy", "settings_of"]

_KEEP = ("keepStorage", "reservedSpace")
"""What docker calls it now, and what it called it before."""

_LATER = ("maxUsedSpace", "minFreeSpace", "keepDuration")
"""What BuildKit has besides, and is not done here."""

_SPANS = ("unused-for", "until")
_SWITCHES = ("inuse", "private", "shared")
_TEXTS = ("description", "id", "type")
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)", re.ASCII)
_SECONDS = {"h": 3600, "m": 60, "s": 1}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@frozen
class CachePolicy:
    """What goes when a build has ended: what fits all filters, until the rest takes no more than `keep` bytes.

    `keep` None: all that fits. `all`: what images have, too, which frees no room.
    """

    keep: int | None = None
    all: bool = False
    unused_for: float = 0.0
    """Seconds for which it was not used."""
    switches: Mapping[str, frozenset[bool]] = {}
    """`inuse`, `private`, `shared`: what each may be."""
    texts: Mapping[str, tuple[str, ...]] = {}
    """`description`, `id`, `type`: one of these."""


def settings_of(builder: object) -> dict[str, Any]:
    """The settings of a `Config` that `builder` says; what else docker has there is not read.

    Raises `ValueError` in words for what is not done here, or means nothing.
    """
    if not isinstance(builder, dict) or not isinstance(collecting := builder.get("gc") or {}, dict):
        raise ValueError(
            'must be {"gc": {"enabled": true, "defaultKeepStorage": "20GB", "policy": [{"keepStorage": "10GB"}]},'
            f' "largeContext": "500MB"}}, not {builder!r}'
        )
    values: dict[str, Any] = {}
    policies = _policies(collecting.get("policy"))
    limit = collecting.get("defaultKeepStorage") or collecting.get("defaultReservedSpace")
    kept = None if limit is None else _bytes("defaultKeepStorage", limit)
    if collecting.get("enabled") is not False:
        values = {"build_policies": policies, "build_cache": kept}
    if (large := builder.get("largeContext")) is not None:
        values["large_context"] = _bytes("largeContext", large)
    return values


def _policies(told: object) -> tuple[CachePolicy, ...]:
    if told is None:
        return ()
    if not isinstance(told, list):
        raise ValueError("policy is a list")
    return tuple(_policy(entry) for entry in told)


def _policy(entry: object) -> CachePolicy:
    if not isinstance(entry, dict):
        raise ValueError('a policy is {"keepStorage": "10GB", "filter": ["unused-for=48h"], "all": false}')
    for key in entry:
        if key in _LATER:
            raise ValueError(f"{key} of a policy is not done here: it can say {', '.join((*_KEEP, 'filter', 'all'))}")
        if key not in (*_KEEP, "filter", "all"):
            raise ValueError(f"a policy says {', '.join((*_KEEP, 'filter', 'all'))}, not {key}")
    everything = entry.get("all", False)
    if not isinstance(everything, bool):
        raise ValueError(f"all is true or false, not {everything!r}")
    keep = next((_bytes(key, entry[key]) for key in _KEEP if entry.get(key) not in (None, "")), None)
    filters = list(_filters(entry.get("filter") or ()))
    if keep is None and not filters:
        raise ValueError("a policy needs a keepStorage or a filter: without, all would go after each build")
    switches: dict[str, frozenset[bool]] = {}
    texts: dict[str, tuple[str, ...]] = {}
    unused = 0.0
    for name, value in filters:
        if name in _SPANS:
            unused = max(unused, _seconds(name, value))
        elif name in _SWITCHES:
            if value.lower() not in _TRUTHS:
                raise ValueError(f"filter {name} is true or false, not {value!r}")
            switches[name] = switches.get(name, frozenset()) | {_TRUTHS[value.lower()]}
        elif name in _TEXTS:
            texts[name] = (*texts.get(name, ()), value)
        else:
            known = ", ".join(sorted((*_SPANS, *_SWITCHES, *_TEXTS)))
            raise ValueError(f"there is no filter {name!r}; there are: {known}")
    return CachePolicy(keep, everything, unused, switches, texts)


def _filters(told: object) -> Iterator[tuple[str, str]]:
    """`["unused-for=48h"]`, or docker's other form, `{"unused-for": ["48h"]}` or `{"unused-for": {"48h": true}}`."""
    if isinstance(told, dict):
        told = [f"{name}={value}" for name, values in told.items() for value in values]
    if not isinstance(told, list | tuple):
        raise ValueError('filter is a list: ["unused-for=48h"]')
    for text in told:
        name, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
        if not equals:
            raise ValueError(f"{text!r} is no filter: it has to be NAME=VALUE")
        yield name.strip().lower(), value.strip()


def _seconds(name: str, text: str) -> float:
    parts = list(_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f"filter {name} is a span (48h, 1h30m), not {text!r}")
    return sum(float(part[1]) * _SECONDS[part[2]] for part in parts)


def _bytes(name: str, value: object) -> int:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError
        found = size(value)
    except ValueError:
        found = None
    if found is None or found < 0:
        raise ValueError(f"{name} is a size (10GB), not {value!r}")
    return found
