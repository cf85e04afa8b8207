"""What the tests of blobs share: images made from bytes, compressed layers, manifests."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from core.adding import Adder
from layerstore.blobs import Blobs
from layerstore.digest import Digest
from layerstore.store import Store
from support import images as make

LAYER = make.layer(make.folder("etc/"), *(make.file(f"etc/{n}", f"{n}\n" * 500) for n in range(60)))
GZIPPED = gzip.compress(LAYER, mtime=0)
GZIP_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def name_of(data: bytes) -> Digest:
    return Digest(make.digest(data))


def manifest(config: bytes, *layers: bytes, **more: Any) -> bytes:
    """An image manifest that names these."""
    entries = [{"mediaType": GZIP_TYPE, "digest": name_of(layer), "size": len(layer)} for layer in layers]
    about = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": name_of(config), "size": len(config)}
    return json.dumps({"schemaVersion": 2, "config": about, "layers": entries, **more}).encode()


@pytest.fixture
def add(store: Store) -> Adder:
    """`add(tar, tar, name="x")`: an image in the store."""
    return Adder(store)


@pytest.fixture
def blobs(store: Store) -> Blobs:
    return store.blobs


def read(blobs: Blobs, digest: str, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of a blob."""
    found = bytearray()
    blobs.write(Digest(digest), found.extend, start=start, end=end)
    return bytes(found)
