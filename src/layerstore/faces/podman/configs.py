"""Can podman read an image's config? If it cannot read one of them, it lists none of its images, and runs none.

It reads into structures of Go, OCI's (image-spec, `specs-go/v1/config.go`) and docker's (containers/image,
`manifest/docker_schema2.go`): names of fields match in any case, each time that they come, and a value of another type
is an error of the whole. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

__all__ = ["wrong_with"]

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)
"""RFC 3339, as Go reads it: in capitals, and no second is the 60th."""


class _Object(list[tuple[str, Any]]):
    """A JSON object: its members as they come."""


_Check = Callable[[Any], bool]
"""Can Go read this value? None is never an error: the field is as if it were not there."""


def _time(value: Any) -> bool:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    try:
        return found is not None and datetime.fromisoformat(found[1].replace("0000-", "2000-", 1)) is not None
    except ValueError:
        return False


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _whole(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _each(check: _Check) -> _Check:
    return lambda value: type(value) is list and all(one is None or check(one) for one in value)


def _values(check: _Check) -> _Check:
    return lambda value: isinstance(value, _Object) and all(one is None or check(one) for _, one in value)


def _anything(value: Any) -> bool:
    return isinstance(value, _Object)


def _fields(checks: Mapping[str, _Check]) -> _Check:
    def fits(value: Any) -> bool:
        return isinstance(value, _Object) and all(
            one is None or checks.get(name.lower(), lambda _: True)(one) for name, one in value
        )

    return fits


_RUN: Final = _fields(
    {
        **dict.fromkeys(("user", "workingdir", "stopsignal", "hostname", "domainname", "image", "macaddress"), _text),
        **dict.fromkeys(("env", "entrypoint", "cmd", "onbuild"), _each(_text)),
        "shell": lambda value: _text(value) or _each(_text)(value),
        **dict.fromkeys(("attachstdin", "attachstdout", "attachstderr", "tty", "openstdin", "stdinonce"), _truth),
        **dict.fromkeys(("argsescaped", "networkdisabled"), _truth),
        "exposedports": _values(_anything),
        "volumes": _values(_anything),
        "labels": _values(_text),
        "stoptimeout": _whole,
        "healthcheck": _fields(
            {"test": _each(_text), **dict.fromkeys(("interval", "timeout", "startperiod", "retries"), _whole)}
        ),
    }
)
_IMAGE: Final = {
    **dict.fromkeys(("author", "architecture", "variant", "os", "os.version", "docker_version"), _text),
    **dict.fromkeys(("id", "parent", "comment", "container"), _text),
    "created": _time,
    "os.features": _each(_text),
    "size": _whole,
    "config": _RUN,
    "container_config": _RUN,
    "rootfs": _fields({"type": _text, "diff_ids": _each(_text)}),
    "history": _each(
        _fields({"created": _time, "created_by": _text, "author": _text, "comment": _text, "empty_layer": _truth})
    ),
}


def wrong_with(config: bytes) -> str | None:
    """What podman cannot read in a config; None if it can."""
    try:
        value = json.loads(config.decode(), object_pairs_hook=_Object, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "its config is no JSON that podman reads"
    if not isinstance(value, _Object):
        return "its config is no JSON that podman reads"
    for name, one in value:
        if one is not None and not _IMAGE.get(name.lower(), lambda _: True)(one):
            return f"podman cannot read {name!r} of its config"
    return None


def _refuse(word: str) -> Any:
    raise ValueError(word)
