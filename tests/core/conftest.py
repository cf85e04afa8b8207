"""What the tests of the core share: images made from bytes, with a record of which layers were read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore.images import Image
from layerstore.store import Store
from support import images as make


@pytest.fixture
def add(store: Store) -> Adder:
    """`add(tar, tar, name="x")`: an image in the store; `add.read`: the DiffIDs that were read."""
    return Adder(store)


@pytest.fixture
def base() -> bytes:
    """A bottom layer as a distribution has it."""
    return make.layer(
        make.folder("./", mode=0o755),
        make.folder("etc/", mode=0o750, uid=3),
        make.file("etc/passwd", "root:x:0:0\n"),
        make.file("etc/group", "root:x:0\n"),
        make.folder("usr/"),
        make.file("usr/tool", b"#!/bin/sh\n", mode=0o4755),
    )


@pytest.fixture
def upper() -> bytes:
    """A layer that changes, adds and removes."""
    return make.layer(
        make.folder("etc/", mode=0o750, uid=3),
        make.file("etc/passwd", "root:x:0:0\nme:x:1:1\n"),
        make.whiteout("etc/group"),
        make.file("etc/new", "new"),
    )


@pytest.fixture
def settings(data_root: Path) -> layerstore.Config:
    """What the fixture `store` is opened with: to open it once more."""
    return layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2")


@pytest.fixture
def read_back() -> Callable[[Image], dict[str, str]]:
    """The content of all files of an image."""

    def content(image: Image) -> dict[str, str]:
        with image.mount() as root:
            return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}

    return content


@pytest.fixture
def leftovers(data_root: Path) -> Callable[[], Sequence[str]]:
    """What lies in the folders of a store: the home, the skeletons, staging."""

    def found() -> Sequence[str]:
        folders = ("overlay2", "skeletons", "staging")
        return sorted(
            path.name
            for name in folders
            for path in (data_root / name).iterdir()
            if not path.name.startswith(".") and not (path.suffix == ".record" and path.with_suffix("").exists())
        )

    return found
