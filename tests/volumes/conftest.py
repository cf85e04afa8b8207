"""What the tests of volumes share: a store with an image, and containers of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from layerstore import Container, Store
from support import images as make

Made = Callable[[], Container]


@pytest.fixture
def settings(data_root: Path) -> layerstore.Config:
    """What the fixture `store` is opened with: to open it once more."""
    return layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2")


@pytest.fixture
def image(store: Store, tmp_path: Path) -> layerstore.Image:
    """An image with a folder of data that is not root's, by a symbolic link too."""
    layer = make.layer(
        make.folder("srv/", mode=0o755),
        make.folder("srv/db/", mode=0o700, uid=26),
        make.file("srv/db/seed", "42\n", uid=26),
        make.folder("srv/db/deep/"),
        make.file("srv/db/deep/file", b"x" * 5000),
        make.folder("srv/empty/", mode=0o1777),
        make.symlink("var", "srv"),
    )
    archive = make.docker_archive(tmp_path / "image.tar", [layer], ["data:1"])
    store.load(archive)
    return store.image("data:1")


@pytest.fixture
def box(store: Store, image: layerstore.Image) -> Made:
    """Makes containers of the image."""
    return lambda: store.create_container(image)
