"""What a 401 asks for: the `WWW-Authenticate` headers in their parts (RFC 9110, 11.6.1). Pure: what is
done about them is in `http`, `Http._admitted`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import field

from layerstore.values import frozen

__all__ = ["Challenge", "parse"]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=[\s,]|$)")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_LONGEST = 16 << 10


@frozen
class Challenge:
    """One way to be let in. `scheme` is in lower case, as the names in `parameters` are."""

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)


def parse(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of some headers, each of which may have several. What cannot be read is left out."""
    found: list[Challenge] = []
    for header in headers:
        found += _of_one(header[:_LONGEST])
    return found


def _of_one(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while at < len(text):
        # A word before `=` is a parameter, any other begins a challenge: commas part both, and are in quoted strings.
        parameter = _PARAMETER.match(text, at)
        scheme = None if parameter else _SCHEME.match(text, at)
        if parameter and found:
            name, quoted, bare = parameter.groups()
            value = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1] = Challenge(found[-1].scheme, {name.lower(): value, **found[-1].parameters})
            at = parameter.end()
        elif scheme:
            found.append(Challenge(scheme.group(1).lower()))
            at = scheme.end()
        else:
            following = text.find(",", at + 1)
            at = len(text) if following < 0 else following
    return found
