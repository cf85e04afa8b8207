"""The JSON of an archive, read with suspicion: sizes have limits, every field is checked before it is used.

Nothing here knows what the fields mean. Whatever is wrong becomes one `InvalidArchive` that names document and field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from attrs import frozen

from layerstore import digest
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, InvalidArchive, InvalidDigest

DOCUMENT_LIMIT: Final = 4 << 20
"""The most bytes that a document may have: what registries accept (distribution-spec, "Pushing Manifests")."""

BLOBS: Final = "blobs/sha256/"
"""Where an OCI layout has its blobs (OCI image spec, image-layout.md, "Blobs"); docker 25 and later does the same."""

BLOB: Final = re.compile(re.escape(BLOBS) + "([0-9a-f]{64})")


class Documents(Protocol):
    """The members of an archive by name, whatever form the archive has. Links among members are followed."""

    def document(self, name: str) -> bytes | None:
        """The content of a small member; None if there is none. Raises `InvalidArchive` if it is too large."""
        ...

    def size(self, name: str) -> int | None:
        """The bytes of a member; None if there is no such member."""
        ...


@frozen
class Descriptor:
    """A pointer to a blob (OCI image spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str]
    platform: Mapping[str, Any] | None

    @property
    def member(self) -> str:
        """The name of the blob in a layout."""
        return BLOBS + digest.hex_of(self.digest)


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


def as_descriptor(value: object, what: str) -> Descriptor:
    """`value`, if it is a descriptor."""
    fields = as_object(value, what)
    size = fields.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise InvalidArchive(f"{what}: {size!r} is no size")
    annotations = as_object(fields.get("annotations") or {}, f"{what}: annotations")
    platform = fields.get("platform")
    return Descriptor(
        media_type=as_text(fields.get("mediaType", ""), f"{what}: mediaType"),
        digest=as_digest(fields.get("digest"), what),
        size=size,
        annotations={key: text for key, text in annotations.items() if isinstance(text, str)},
        platform=None if platform is None else as_object(platform, f"{what}: platform"),
    )


def read_blob(documents: Documents, descriptor: Descriptor, what: str) -> bytes:
    """The content of the small blob that `descriptor` points to, verified."""
    if descriptor.size > DOCUMENT_LIMIT:
        raise InvalidArchive(f"{what} {descriptor.digest} claims {descriptor.size} bytes: {DOCUMENT_LIMIT} are allowed")
    data = documents.document(descriptor.member)
    if data is None:
        raise InvalidArchive(
            f"{what} {descriptor.digest} is not in the archive",
            remedy="The archive is incomplete: get it again.",
            path=descriptor.member,
        )
    if len(data) != descriptor.size:
        raise InvalidArchive(
            f"{what} {descriptor.digest} has {len(data)} bytes, not {descriptor.size} as announced",
            path=descriptor.member,
        )
    verify(data, descriptor.digest, f"{what} {descriptor.digest}")
    return data


def verify(data: bytes, expected: Digest, what: str) -> None:
    """Raise `DigestMismatch` if `data` is not what `expected` announces."""
    if (actual := digest.of_bytes(data)) != expected:
        raise DigestMismatch(what, expected=expected, actual=actual)
