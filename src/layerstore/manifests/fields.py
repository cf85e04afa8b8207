"""JSON that others wrote, read with suspicion: sizes have limits, every field is checked before it is used.

Nothing here knows what the fields mean. Whatever is wrong becomes one `InvalidArchive` that names document and field.
"""

from __future__ import annotations

import json
from typing import Any, Final

from layerstore import digest
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, InvalidArchive, InvalidDigest

DOCUMENT_LIMIT: Final = 4 << 20
"""The most bytes that a document may have: what registries accept (distribution-spec, "Pushing Manifests")."""


def parse(data: bytes, what: str) -> Any:
    """The value of a JSON text. `what` names the document in errors."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise InvalidArchive(f"{what} is nested too deeply", path=what) from error
    except ValueError as error:
        raise InvalidArchive(f"{what} is no JSON: {error}", path=what) from error


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """The members of a JSON object."""
    return as_object(parse(data, what), what)


def as_object(value: object, what: str) -> dict[str, Any]:
    """`value`, if it is a JSON object."""
    if not isinstance(value, dict):
        raise InvalidArchive(f"{what} is no JSON object")
    return value


def as_list(value: object, what: str) -> list[Any]:
    """`value`, if it is a JSON array; null is an empty one, as Go writes it."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArchive(f"{what} is no JSON array")
    return value


def as_text(value: object, what: str) -> str:
    """`value`, if it is a JSON string, and one that can be printed and encoded."""
    if not isinstance(value, str):
        raise InvalidArchive(f"{what} is no JSON string")
    if not value.isprintable():
        raise InvalidArchive(f"{what} has characters that cannot be printed: {value!r}")
    return value


def as_digest(value: object, what: str) -> Digest:
    """`value`, if it is a sha256 digest."""
    try:
        return digest.parse(value)
    except InvalidDigest as error:
        raise InvalidArchive(f"{what}: {error.message}", remedy=error.remedy) from error


def verify(data: bytes, expected: Digest, what: str) -> None:
    """Raise `DigestMismatch` if `data` is not what `expected` announces."""
    if (actual := digest.of_bytes(data)) != expected:
        raise DigestMismatch(what, expected=expected, actual=actual)
