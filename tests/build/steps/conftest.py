"""A store with a small image, and builds in it whose events are kept. No container of a build may be left."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore import Store
from layerstore.build import Built
from support import images
from support.building import Builder, Look, busybox


@pytest.fixture(scope="session")
def base_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the image `base`."""
    layer = busybox()
    config = images.config([layer], config={"Env": ["PATH=/bin", "BASE=yes"], "Cmd": ["sh"]})
    return images.docker_archive(
        tmp_path_factory.mktemp("base") / "base.tar", [layer], ["base:latest"], image_config=config
    )


@pytest.fixture
def based(store: Store, base_archive: Path) -> Store:
    """The store, with the image `base`."""
    store.load(base_archive)
    return store


@pytest.fixture
def make(based: Store, tmp_path: Path) -> Iterator[Builder]:
    """`make("FROM base\\nRUN true", {"file": "text"})`: the image of a Dockerfile. No container of a build is left."""
    yield Builder(based, tmp_path / "context")
    assert [box.name for box in based.containers() if re.match(r"build-[0-9a-f]{12}-", box.name)] == []


@pytest.fixture
def look(based: Store) -> Look:
    """What a file of an image says."""

    def read(built: Built, path: str) -> str:
        with built.image.mount() as root:
            return (root / path.lstrip("/")).read_text()

    return read


@pytest.fixture
def archive() -> bytes:
    """A tar of one file, which belongs to somebody."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size, info.uid, info.mtime = 4, 99, 1_400_000_000
        tar.addfile(info, io.BytesIO(b"text"))
    return buffer.getvalue()
