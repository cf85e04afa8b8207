"""A store with everything in it, to be damaged one thing at a time."""

from __future__ import annotations

import gzip
import io
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

import layerstore
from core.adding import Adder
from layerstore import Config, Store
from layerstore.blobs import KnownBlob
from layerstore.digest import DiffID, Digest
from support import images as make

BASE = make.layer(
    make.folder("etc/", mode=0o750, uid=3),
    make.file("etc/passwd", "root:x:0:0\n" * 300, xattrs={"user.note": b"kept"}),
    make.file("etc/twice", "of this there are two" * 200),
    make.hard_link("etc/linked", "etc/passwd"),
    make.symlink("etc/name", "passwd"),
    make.file("etc/group", "root:x:0\n"),
    make.folder("empty/"),
    # Said twice: the first is kept beside the skeleton.
    make.file("etc/replaced", "the first of two" * 50),
    make.file("etc/replaced", "the second, which counts" * 50),
)
SHARED = make.layer(
    make.folder("etc/", mode=0o750, uid=3), make.file("etc/new", "new" * 1000), make.whiteout("etc/group")
)
OTHER = make.layer(make.file("copy", "of this there are two" * 200), make.file("own", "o" * 3000))
LONE = make.layer(make.file("lone", "nothing else has this" * 30))
BLOB = gzip.compress(BASE, 1, mtime=0)
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


@frozen
class Everything:
    """A store, and what can be done to it while it is closed."""

    config: Config
    stack: ExitStack

    def open(self) -> Store:
        """Open it; it is closed with the test, or before."""
        return self.stack.enter_context(layerstore.open(config=self.config))

    @property
    def root(self) -> Path:
        """Its data-root."""
        return self.config.data_root


def fill(store: Store) -> None:
    """Two images that share layers, one of its own, a container with changes and a checkpoint, a volume, a blob."""
    add = Adder(store)
    add(BASE, SHARED, name="first:1")
    add(BASE, SHARED, OTHER, name="second:1")
    add(LONE, name="lone:1")
    store.tag("first:1", "also:first")
    container = store.create_container("second:1", name="box")
    with container.mount() as root:
        (root / "etc/passwd").write_text("changed")
        (root / "written").write_text("before")
    container.checkpoint("kept")
    with container.mount() as root:
        (root / "written").write_text("after")
    store.create_container(name="bare")
    store.volumes.create("data")
    (store.data_root / "volumes/data/_data/file").write_text("in a volume")
    form = KnownBlob(Digest(make.digest(BLOB)), DiffID(make.digest(BASE)), len(BLOB), GZIP)
    store.blobs.remember(None, form)
    store.blobs.put(io.BytesIO(BLOB))
    add(BASE, make.layer(make.file("built", "by a build" * 20)), name="built:1")
    store.lease(None, store.image("built:1").chain_ids[-1], owner="build", name="step")
