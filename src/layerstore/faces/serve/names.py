"""Names in URLs: repositories as clients call them, tags, digests.

A repository is called as `layerstore images` shows it, so `team/app` is docker.io/team/app, and `debian` and
`library/debian` both are docker.io/library/debian; `quay.io/team/app` is that. A mirror's client says the registry
beside the name, as `?ns=quay.io` (distribution-spec, "Registry Proxying").
"""

from __future__ import annotations

import re
from typing import Final

from layerstore import reference
from layerstore.errors import InvalidDigest, InvalidReference
from layerstore.faces.serve.messages import Refused, Request
from layerstore.repositories import parse_digest
from layerstore.values import frozen

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST: Final = re.compile(r"[a-zA-Z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LONGEST: Final = 255


@frozen
class Name:
    """A repository: its name in the URL, and its full one. `ns`: the registry that was said beside it."""

    text: str
    full: str
    ns: str | None

    def location(self, rest: str) -> str:
        """The path of something in it, for a `Location`."""
        return f"/v2/{self.text}/{rest}" + (f"?ns={self.ns}" if self.ns else "")


def repository(text: str, request: Request) -> Name:
    """The repository that a URL names. Raises `Refused`."""
    ns = request.parameter("ns") or None
    if len(text) > _LONGEST or not _NAME.fullmatch(text) or (ns is not None and not _HOST.fullmatch(ns)):
        raise _invalid(text)
    try:
        return Name(text, reference.parse(text if ns is None else f"{ns}/{text}").name, ns)
    except InvalidReference as error:
        raise _invalid(text, error.message) from None


def shown(full: str) -> str | None:
    """The name in URLs of a repository; None if it has none but beside its registry, which has a port."""
    name = reference.parse(full).familiar_name
    return name if _NAME.fullmatch(name) else None


def is_tag(text: str) -> bool:
    """May it be a tag?"""
    return _TAG.fullmatch(text) is not None


def digest(text: str | None) -> str:
    """`text`, if it is a digest of sha256 or sha512. Raises `Refused`."""
    try:
        return parse_digest(text or "")
    except InvalidDigest:
        raise Refused(
            400,
            "DIGEST_INVALID",
            "a digest is sha256: and 64 hex digits, or sha512: and 128",
            detail=(text or "")[:300],
        ) from None


def _invalid(text: str, why: str = "a name is lower-case letters and digits, with . _ - and / between them") -> Refused:
    return Refused(400, "NAME_INVALID", why, detail=text[:300])
