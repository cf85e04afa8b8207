"""What an image's config says of how it is run, held to the types that docker knows, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layerstore import ConfigError

__all__ = ["section"]


def section(image_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of an image's config that says how it is run. Raises `ConfigError` if docker could not read it."""
    found = image_config.get("config")
    if not isinstance(found, Mapping):
        return {}
    _require(found, _FIELDS, "")
    if check := found.get("Healthcheck"):
        _require(check, _OF_CHECK, "Healthcheck.")
    return found


def _require(values: Mapping[str, Any], fields: Mapping[str, Callable[[object], bool]], above: str) -> None:
    for name, is_right in fields.items():
        value = values.get(name)
        if value is not None and not is_right(value):
            raise ConfigError(
                f"the image's config has a wrong value for '{above}{name}': {value!r:.60}",
                remedy="Build the image again with another tool: it cannot be run as it is.",
            )


def _is_text(value: object) -> bool:
    """A text that can be given to a program: with no NUL in it."""
    return isinstance(value, str) and "\0" not in value


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_command(value: object) -> bool:
    """A list; old images have a text."""
    return _is_text(value) or _are_texts(value)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


def _are_labels(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_time(value: object) -> bool:
    """In ns; 0 is the usual one. docker takes none below a millisecond, which would be checks without a pause."""
    return value == 0 or (_is_count(value) and isinstance(value, int) and value >= 10**6)


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "User": _is_text,
    "Env": _are_texts,
    "Cmd": _is_command,
    "Entrypoint": _is_command,
    "WorkingDir": _is_text,
    "Volumes": _is_table,
    "StopSignal": _is_text,
    "ExposedPorts": _is_table,
    "Labels": _are_labels,
    "Shell": _is_command,
    "Healthcheck": lambda value: isinstance(value, Mapping),
}

_OF_CHECK: Mapping[str, Callable[[object], bool]] = {
    "Test": _are_texts,
    "Interval": _is_time,
    "Timeout": _is_time,
    "StartPeriod": _is_time,
    "StartInterval": _is_time,
    "Retries": _is_count,
}
