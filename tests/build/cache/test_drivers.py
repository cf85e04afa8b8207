"""Each driver keeps results of steps and shared folders, and a conversion to another one takes them along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from layerstore.build.cache import Cache, prune, records

from .conftest import layer_with

pytestmark = pytest.mark.root

KEY = "a" * 64
HOMES = {"overlay2": "ext4", "vfs": "xfs", "aufs": "ext4", "btrfs": "btrfs", "erofs": "ext4"}


@pytest.mark.parametrize("driver", HOMES)
def test_steps_and_folders(driver: str, backing: Callable[[str], Path]) -> None:
    data_root = backing(HOMES[driver]) / "store"
    settings = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver=driver)
    with layerstore.open(config=settings) as store, Cache(store) as cache:
        layer = store.add_layer(
            layer_with("srv/file", "x"),
            record=lambda tx, layer: cache.record(tx, KEY, layer, description="RUN make"),
        )
        for on in (None, layer.chain_id):
            with cache.mounts.mount("x", on=on) as folder:
                (folder / "left").write_text("y")
            with cache.mounts.mount("x", on=on, sharing="private") as folder:
                assert (folder / "left").read_text() == "y"
                assert (folder / "srv/file").exists() == (on is not None)
    other = "vfs" if driver != "vfs" else "overlay2"
    layerstore.migrate(other, config=settings)
    with layerstore.open(config=evolve(settings, storage_driver=other)) as store:
        cache = Cache(store)
        found = cache.find(KEY)
        assert found is not None
        assert found.layer == layer
        with cache.mounts.mount("x", on=layer.chain_id) as folder:
            assert {path.name for path in folder.iterdir()} == {"left", "srv"}
        assert store.check(content=True) == []
        prune(cache)
        store.wait()
        assert (records(cache), store.containers(), store.disk_usage().layers) == ([], [], ())
