"""`RunOptions` as JSON, as they are kept in a container's row: what is not the default, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

from attrs import asdict, fields

from layerstore.runtime.options import Device, HealthCheck, Isolation, MountOption, Port, RunOptions, Ulimit

__all__ = ["from_json", "to_json"]

_PARTS: dict[str, Any] = {
    "mounts": MountOption,
    "devices": Device,
    "ulimits": Ulimit,
    "ports": Port,
    "health": HealthCheck,
}
"""The fields whose values, or the items of whose tuples, are values of these classes."""


def to_json(options: RunOptions) -> str:
    """The options as one JSON object."""
    defaults = RunOptions()
    found = asdict(
        options,
        filter=lambda attribute, value: value != getattr(defaults, attribute.name, ...),
        value_serializer=lambda _, __, value: _plain(value),
    )
    return json.dumps(found, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return dict(value) if isinstance(value, Mapping) else value


@lru_cache(maxsize=16)
def from_json(text: str) -> RunOptions:
    """The options again. What a later version has written and this one does not know is left out."""
    known = {field.name for field in fields(RunOptions)}
    found: dict[str, Any] = {}
    for name, value in json.loads(text).items():
        if name not in known:
            continue
        part = _PARTS.get(name)
        if part is not None and value is not None:
            found[name] = tuple(_part(part, item) for item in value) if isinstance(value, list) else _part(part, value)
        elif name == "isolation":
            found[name] = Isolation(value)
        else:
            found[name] = _frozen(value)
    return RunOptions(**found)


def _part(kind: Any, value: dict[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    return kind(**{name: _frozen(item) for name, item in value.items() if name in known})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
