"""Names of content: DiffID, ChainID, image ID, and the rule that makes a ChainID.

A digest is a string, `sha256:<64 hex digits>`, exactly as the OCI image spec writes it, so that it can be compared,
stored and printed as it is. The NewTypes keep one kind from being passed for another. What comes from outside goes
through `parse` once; what is computed here needs no check.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NewType

from layerstore.errors import InvalidDigest

Digest = NewType("Digest", str)
"""`sha256:<hex>` of any blob (OCI image spec, descriptor.md, "Digests")."""

DiffID = NewType("DiffID", str)
"""Digest of a layer's uncompressed tar: the identity of its content (OCI image spec, config.md, "Layer DiffID")."""

ChainID = NewType("ChainID", str)
"""Identity of a layer on its parents (OCI image spec, config.md, "Layer ChainID")."""

ImageID = NewType("ImageID", str)
"""Digest of an image's configuration: the identity of the image (OCI image spec, config.md, "ImageID")."""

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_BEGINNING = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


def parse(text: object) -> Digest:
    """`text` as a digest. Raises `InvalidDigest` if it is none, or one of an algorithm other than sha256."""
    if isinstance(text, str) and _SHA256.fullmatch(text):
        return Digest(text)
    raise InvalidDigest(text)


def of_bytes(data: bytes) -> Digest:
    """The digest of `data`."""
    import hashlib  # it loads OpenSSL, which most commands have no use for

    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: str) -> str:
    """The 64 hex digits of a digest, without the algorithm."""
    return digest.partition(":")[2]


def beginning(text: str) -> str | None:
    """`text` as a digest or the beginning of one, which people may write as digits alone; None if it is neither."""
    match = _BEGINNING.fullmatch(text)
    return None if match is None else f"sha256:{match[1]}"


def short(name: str) -> str:
    """What people are shown of a digest: the first 12 digits."""
    return name.removeprefix("sha256:")[:12]


def chain_id(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    """The ChainID of the layer `diff_id` on `parent` (None: the layer is at the bottom)."""
    if parent is None:
        return ChainID(diff_id)
    return ChainID(of_bytes(f"{parent} {diff_id}".encode()))


def chain_ids(diff_ids: Sequence[DiffID]) -> list[ChainID]:
    """The ChainIDs of a stack, bottom to top."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else None, diff_id))
    return chain
