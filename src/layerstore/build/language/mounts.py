"""`RUN --mount=type=cache,target=/root/.cache`: what it says, as one value."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any

from layerstore.build.language.flags import FlagError
from layerstore.build.language.instructions import RunMount
from layerstore.build.language.likeness import nearest

__all__ = ["mount_of"]

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_KEYS = {
    "type": "type",
    "from": "from_",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "readwrite": "readwrite",
    "rw": "readwrite",
    "id": "id",
    "sharing": "sharing",
    "required": "required",
    "size": "size",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "env": "env",
}
_SWITCHES = {"readonly", "readwrite", "required"}
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_LARGEST_ID = 2**32 - 1


def mount_of(text: str, expand: Callable[[str], str] | None = None) -> RunMount:
    """What `--mount=TEXT` says, its values passed through `expand`. Raises `FlagError`.

    Without `expand`, a mount with variables is not looked into: it has only its `from_`, and its type if that is plain.
    """
    fields = _fields(text)
    if expand is None and "$" in text:
        return _later(text, fields)
    values: dict[str, Any] = {}
    for key, value in fields:
        values = _with(values, key, value if value is None or expand is None else expand(value))
    return _checked(text, values)


def _fields(text: str) -> Sequence[tuple[str, str | None]]:
    import csv

    try:
        words = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise FlagError(f"failed to parse csv mounts: {error}") from None
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        key, equals, value = word.partition("=")
        key = key.lower()
        if not equals and _KEYS.get(key) not in _SWITCHES:
            raise FlagError(f"invalid field '{word}' must be a key=value pair", _meant_key(key))
        if key not in _KEYS:
            raise FlagError(f"unexpected key '{key}' in '{word}'", _meant_key(key))
        if key == "from" and "$" in value[:-1]:
            raise FlagError(
                "'from' doesn't support variable expansion, define alias stage instead",
                "Write FROM $NAME AS alias above, and from=alias here.",
            )
        pairs.append((key, value if equals else None))
    return pairs


def _meant_key(key: str) -> str:
    like = nearest(key, _KEYS)
    return f"Did you mean {like}=?" if like and like != key else f"Write {key}=…" if like else "See RUN --mount."


def _later(text: str, fields: Sequence[tuple[str, str | None]]) -> RunMount:
    values = {_KEYS[key]: value for key, value in fields}
    kind = values.get("type") or "bind"
    return RunMount(type=kind if "$" in kind else _type(kind), from_=values.get("from_"), text=text)


def _with(values: dict[str, Any], key: str, value: str | None) -> dict[str, Any]:
    """The values with one more."""
    name = _KEYS[key]
    if name in _SWITCHES:
        said = value is None or _truth(key, value)
        return {**values, "readonly": not said} if name == "readwrite" else {**values, name: said}
    assert value is not None
    match name:
        case "type":
            return {**values, "type": _type(value)}
        case "sharing":
            if value.lower() not in _SHARING:
                like = nearest(value, _SHARING)
                raise FlagError(
                    f'unsupported sharing value "{value}"',
                    f"Did you mean {like}?" if like else f"There are {', '.join(_SHARING)}.",
                )
            return {**values, "sharing": value.lower()}
        case "size":
            return {**values, "size": _size(key, value)}
        case "mode":
            return {**values, "mode": _number(key, value, 8, "octal digits, as in 0755")}
        case "uid" | "gid":
            return {**values, name: _number(key, value, 10, "a number")}
        case _:
            return {**values, name: value}


def _type(value: str) -> str:
    if value.lower() not in _TYPES:
        like = nearest(value, _TYPES)
        raise FlagError(
            f'unsupported mount type "{value}"',
            f"Did you mean {like}?" if like else f"There are {', '.join(_TYPES)}.",
        )
    return value.lower()


def _truth(key: str, value: str) -> bool:
    if value not in _TRUE | _FALSE:
        raise FlagError(f"invalid value for {key}: {value}", f"Write {key}, {key}=true or {key}=false.")
    return value in _TRUE


def _size(key: str, value: str) -> int:
    if (match := _SIZE.fullmatch(value)) is None:
        raise FlagError(f"invalid value for {key}: {value}", "Write bytes, or 64m, or 1g.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _number(key: str, value: str, base: int, how: str) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if not value or value.strip(digits) or (number := int(value, base)) > _LARGEST_ID:
        raise FlagError(f"invalid value {value} for {key}", f"Write {how}.")
    return number


def _checked(text: str, values: dict[str, Any]) -> RunMount:
    """The mount, its defaults filled in. Raises `FlagError` for what does not go together."""
    kind = values.setdefault("type", "bind")
    if "required" in values and kind not in ("secret", "ssh"):
        raise FlagError(f"unexpected key 'required' for mount type '{kind}'")
    if "size" in values and kind != "tmpfs":
        raise FlagError(f"unexpected key 'size' for mount type '{kind}'")
    for key in ("mode", "uid", "gid"):
        if key in values and kind not in ("secret", "ssh", "cache"):
            raise FlagError(f'{key} not allowed for "{kind}" type mounts')
    if "sharing" in values and kind != "cache":
        raise FlagError(f"invalid cache sharing set for {kind} mount")
    if "env" in values and kind != "secret":
        raise FlagError(f"unexpected key 'env' for mount type '{kind}'")
    if kind == "secret":
        _secret(values)
    elif kind == "ssh":
        values["id"] = values.get("id") or "default"
    elif kind == "cache":
        values["id"] = values.get("id") or posixpath.normpath(values.get("target", ""))
    values.setdefault("readonly", kind not in ("cache", "tmpfs"))
    return RunMount(**values, text=text)


def _secret(values: dict[str, Any]) -> None:
    if values.get("from_"):
        raise FlagError("secret mount should not have a from")
    source, target, name = values.get("source"), values.get("target"), values.get("id")
    if source and name:
        raise FlagError("both source and id can't be set")
    if not (source or target or name):
        raise FlagError("invalid secret mount. one of source, target required", "Write id=NAME.")
    identity = name or source or posixpath.basename(target or "")
    values["id"] = identity
    if not target and "env" not in values:
        values["target"] = f"/run/secrets/{posixpath.basename(identity)}"
