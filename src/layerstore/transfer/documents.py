"""The documents of an archive: its small members, by name, and the blobs that descriptors point to."""

from __future__ import annotations

import re
from typing import Final, Protocol

from layerstore import digest
from layerstore.errors import InvalidArchive
from layerstore.limits import Limits
from layerstore.manifests import Descriptor, verify

BLOBS: Final = "blobs/sha256/"
"""Where an OCI layout has its blobs (OCI image spec, image-layout.md, "Blobs"); docker 25 and later does the same."""

BLOB: Final = re.compile(re.escape(BLOBS) + "([0-9a-f]{64})")


class Documents(Protocol):
    """The members of an archive by name, whatever form the archive has. Links among members are followed."""

    limits: Limits

    def document(self, name: str, kind: str = "manifest") -> bytes | None:
        """The content of a small member; None if there is none. `kind`: see `Limits.check_document`.

        Raises `LimitExceeded`.
        """
        ...

    def size(self, name: str) -> int | None:
        """The bytes of a member; None if there is no such member."""
        ...


def member_of(descriptor: Descriptor) -> str:
    """The name of a blob in a layout."""
    return BLOBS + digest.hex_of(descriptor.digest)


def read_blob(documents: Documents, descriptor: Descriptor, what: str) -> bytes:
    """The content of the small blob that `descriptor` points to, verified."""
    documents.limits.check_document(what, descriptor.size, f"{what} {descriptor.digest}")
    data = documents.document(member_of(descriptor), what)
    if data is None:
        raise InvalidArchive(
            f"{what} {descriptor.digest} is not in the archive",
            remedy="The archive is incomplete: get it again.",
            path=member_of(descriptor),
        )
    if len(data) != descriptor.size:
        raise InvalidArchive(
            f"{what} {descriptor.digest} has {len(data)} bytes, not {descriptor.size} as announced",
            path=member_of(descriptor),
        )
    verify(data, descriptor.digest, f"{what} {descriptor.digest}")
    return data
