"""What the tests of the cache share: layers that are results of steps, and a store that is opened once more."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

import layerstore
from layerstore import ChainID, LayerSource, Store, StoredLayer
from layerstore.build.cache import Cache
from support import images as make

Done = Callable[..., StoredLayer]


@pytest.fixture
def settings(data_root: Path) -> layerstore.Config:
    """What the fixture `store` is opened with: to open it once more."""
    return layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2")


@pytest.fixture
def cache(store: Store) -> Cache:
    """What builds of the store remember."""
    return Cache(store)


def layer_with(name: str, content: bytes | str) -> LayerSource:
    """A layer of one file."""
    tar = make.layer(make.file(name, content))
    return LayerSource(lambda: nullcontext(io.BytesIO(tar)))


@pytest.fixture
def done(cache: Cache) -> Done:
    """Do a step: `done(key, parent, name)` writes a file of that name, and remembers that."""

    def do(
        key: str,
        parent: ChainID | None = None,
        name: str = "file",
        content: bytes | str = "x",
        description: str = "RUN make",
    ) -> StoredLayer:
        return cache.store.add_layer(
            layer_with(name, content),
            parent,
            record=lambda tx, layer: cache.record(tx, key, layer, description=description),
        )

    return do
