"""The remote-snapshot protocol: a client says which layer it is going to unpack, and is told that it is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from containerd.client import Client, Error, mounted
from layerstore import Image, Store
from support import images

pytestmark = pytest.mark.root

REF = "containerd.io/snapshot.ref"
LAYERS = [images.layer(images.file(name, name)) for name in "abc"]


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    """An image of three layers, loaded."""
    [loaded] = store.load(images.docker_archive(tmp_path / "image.tar", LAYERS, ["image:1"]))
    return loaded


@pytest.fixture
def client(store: Store, image: Image, serve: Callable[[Store], Client]) -> Client:
    """A client of the store that has the image."""
    return serve(store)


def is_there(client: Client, key: str, parent: str, chain: str) -> bool:
    """Does it say so, when this layer is asked for; else it is to be unpacked, and is given up again."""
    try:
        client.prepare(key, parent, {REF: chain})
    except Error as error:
        if error.code != "ALREADY_EXISTS":
            raise
        return True
    client.remove(key)
    return False


def test_layers_of_the_store_are_there(client: Client, image: Image, store: Store, tmp_path: Path) -> None:
    parent = ""
    for number, chain in enumerate(image.chain_ids):
        for attempt in "12":  # two namespaces, say: one snapshot is enough for both
            assert is_there(client, f"{attempt}/{number}", parent, chain)
        # As containerd looks for it then.
        assert client.keys(f'labels."{REF}"=={chain},parent=="{parent}",kind==committed') == [chain]
        parent = chain
    assert client.keys() == sorted(image.chain_ids)
    assert all(snapshot.is_layer for snapshot in store.snapshots.all())
    with mounted(client.prepare("run", parent), tmp_path / "at") as root:
        assert sorted(path.name for path in root.iterdir()) == ["a", "b", "c"]
    assert client("Usage", key=parent).size > 0


def test_only_on_what_they_stand_on(client: Client, image: Image, store: Store, tmp_path: Path) -> None:
    first, second, third = image.chain_ids
    assert not is_there(client, "x", "", second), "it stands on another layer"
    assert not is_there(client, "x", "", "sha256:" + "0" * 64)
    assert not is_there(client, "x", "", "nonsense")
    client.layer("same", "", {"a": "a"}, tmp_path / "at")
    assert not is_there(client, "x", "same", second), "what containerd has unpacked is not known to be that layer"
    assert is_there(client, "x", "", first)
    client.prepare("empty", first)
    client.commit("above", "empty")
    assert not is_there(client, "x", "above", second), "there is something between"
    store._parts.layers.mark_damaged(_key(store, second))
    assert not is_there(client, "x", first, second), "it is damaged"
    known = client.keys()
    assert third not in known


def _key(store: Store, chain: str) -> str:
    from layerstore.layers import rows

    with store._parts.database.read() as tx:
        return rows.keys_by_chain(tx)[chain]


def test_its_name_may_be_taken(client: Client, image: Image, tmp_path: Path) -> None:
    first = image.chain_ids[0]
    client.layer(first, "", {"other": "other"}, tmp_path / "at")
    assert is_there(client, "key", "", first)
    assert client.keys(f'labels."{REF}"=={first},parent==""') == ["key"]


def test_they_keep_the_layers_of_an_image_that_goes(client: Client, image: Image, store: Store, tmp_path: Path) -> None:
    parent = ""
    for chain in image.chain_ids:
        assert is_there(client, "x", parent, chain)
        parent = chain
    store.remove_image("image:1")
    with mounted(client.view("look", parent), tmp_path / "at") as root:
        assert (root / "b").read_text() == "b"
    client.remove("look")
    for chain in reversed(image.chain_ids):
        client.remove(chain)
    assert store.prune().layers == ()
    client("Cleanup")
    assert (store.snapshots.all(), store.check()) == ([], [])
    assert not list((store.data_root / "overlay2").glob("*/diff"))
