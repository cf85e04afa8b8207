"""The life of a store's blobs, in a process that is killed or fails at any point of it: see test_crash.py.

Its arguments: data-root.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import layerstore
from blobs.conftest import GZIP_TYPE, GZIPPED, LAYER, MANIFEST_TYPE, manifest, name_of
from core.adding import Adder
from layerstore.blobs import KnownBlob
from layerstore.digest import DiffID

PARTIAL = "5a" * 32
LATER = 2 * 24 * 60 * 60 * 10**9


def settings(data_root: Path) -> layerstore.Config:
    return layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2")


def run(data_root: Path) -> None:
    """Blobs come, are kept, replaced, needed, and go."""
    now = time.time_ns
    with layerstore.open(config=settings(data_root)) as store:
        blobs = store.blobs
        image = Adder(store)(LAYER, name="x")
        blobs.put(io.BytesIO(GZIPPED))
        blobs.remember(
            None, KnownBlob(name_of(GZIPPED), DiffID(name_of(LAYER)), len(GZIPPED), GZIP_TYPE), [("docker.io", "a/b")]
        )
        blobs.put_manifest(MANIFEST_TYPE, manifest(image.config_bytes, GZIPPED), images=[image.id])
        partial = blobs.partial(name_of(b"upload"))
        assert partial is not None
        with partial:
            partial.append(b"upload")
            blobs.put_partial(partial, name_of(b"upload"))
        left = blobs.partial(PARTIAL)
        assert left is not None
        with left:
            left.append(b"what is left")
        blobs.put(io.BytesIO(b"upload"))
        time.time_ns = lambda: now() + LATER
        store.prune()
        assert blobs.size(name_of(b"upload")) is None
        assert blobs.size(name_of(GZIPPED))
        store.remove_image("x")
        assert blobs.size(name_of(GZIPPED)) is None
        digest, _ = blobs.put(io.BytesIO(b"more"))
        blobs.delete(digest)
        time.time_ns = now


if __name__ == "__main__":
    run(Path(sys.argv[1]))
