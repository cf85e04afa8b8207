"""What takes the room: counted once, and told apart by who has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore.store import Store
from support import images as make

pytestmark = pytest.mark.root


def test_an_empty_store_takes_nothing(store: Store) -> None:
    usage = store.disk_usage(on_disk=True)
    assert (usage.images, usage.containers, usage.layers) == ((), (), ())
    assert (usage.images_size, usage.images_reclaimable, usage.containers_size) == (0, 0, 0)


def test_what_images_share_is_counted_once(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    other = make.layer(make.file("other", "o" * 30_000))
    plain, left, right = add(base, name="plain"), add(base, upper, name="left"), add(base, other, name="right")
    usage = store.disk_usage()
    found = {line.image.id: (line.shared, line.unique, line.containers) for line in usage.images}
    assert found == {
        plain.id: (len(base), 0, 0),
        left.id: (len(base), len(upper), 0),
        right.id: (len(base), len(other), 0),
    }
    assert usage.images_size == len(base) + len(upper) + len(other) == usage.images_reclaimable
    assert [layer.size for layer in usage.layers] == sorted(map(len, (base, upper, other)), reverse=True)
    assert [layer.images for layer in usage.layers if layer.diff_id == make.digest(base)] == [3]
    assert all(layer.on_disk is None for layer in usage.layers)


def test_what_prune_frees_is_what_was_called_reclaimable(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    left = add(base, upper, name="left")
    add(base, make.layer(make.file("other", "o" * 30_000)), name="right")
    box = store.create_container(left)
    with store.create_container(left).mount() as root:
        (root / "idle").write_bytes(os.urandom(50_000))
    with box.mount() as root:
        (root / "written").write_bytes(os.urandom(100_000))
        usage = store.disk_usage()
        assert (usage.images_active, usage.containers_active) == (1, 1)
        assert [layer.containers for layer in usage.layers if layer.diff_id == make.digest(base)] == [2]
        assert 100_000 <= usage.containers_size < 200_000
        assert 50_000 <= usage.containers_reclaimable < 100_000
        assert usage.images_reclaimable > 30_000
        pruned = store.prune(all_images=True, containers=True)
        assert pruned.reclaimed == usage.images_reclaimable + usage.containers_reclaimable
        assert store.disk_usage().images_reclaimable == 0


def test_what_leases_and_containers_without_an_image_keep_is_not_reclaimable(
    store: Store, add: Adder, base: bytes, upper: bytes
) -> None:
    image = add(base, upper, name="x")
    store.lease(None, image.chain_ids[0], owner="test", name="a")
    store.lease(None, image.chain_ids[0], owner="test", name="b")
    usage = store.disk_usage()
    assert {layer.diff_id: layer.leases for layer in usage.layers} == {image.layers[0]: 2, image.layers[1]: 0}
    assert usage.images_reclaimable == len(upper) == store.prune(all_images=True).reclaimed
    store.create_container(on=image.chain_ids[0])
    store.end_leases("test", ["a", "b"])
    [layer] = store.disk_usage().layers
    assert (layer.images, layer.containers, layer.leases) == (0, 1, 0)
    assert store.disk_usage().images_reclaimable == 0


@pytest.mark.parametrize("driver", ["overlay2", "btrfs", "aufs", "vfs"])
def test_bytes_on_disk_under_every_driver(backing: Callable[[str], Path], driver: str, base: bytes) -> None:
    folder = backing("btrfs" if driver == "btrfs" else "ext4")
    options = ("aufs.mode=copy",) if driver == "aufs" else ()
    settings = layerstore.Config(
        data_root=folder / "store", exec_root=folder / "exec", storage_driver=driver, storage_opts=options
    )
    large = make.layer(make.file("large", os.urandom(1 << 20)))
    with layerstore.open(config=settings) as store:
        Adder(store)(base, large, name="x")
        first, second = store.disk_usage(on_disk=True).layers
        assert first.size == len(large)
        assert first.on_disk is not None
        assert second.on_disk is not None
        assert 1 << 20 <= first.on_disk < (1 << 20) + (256 << 10)
        assert 0 < second.on_disk < 256 << 10


# --- prune, of some


def test_prune_of_what_fits_spares_all_else(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    kept, gone = add(base, name="kept"), add(base, upper, name="gone")
    spared, removed = store.create_container(name="spared"), store.create_container(name="removed")
    pruned = store.prune(
        all_images=True,
        containers=True,
        fits=lambda subject: subject.id in (gone.id, removed.id),
    )
    assert pruned.containers == (removed.id,)
    assert [done.what for done in pruned.images if not done.is_layer] == ["gone:latest", gone.id]
    assert [image.id for image in store.images()] == [kept.id]
    assert [box.id for box in store.containers()] == [spared.id]


def test_prune_of_an_image_spares_the_nameless_one_below_that_does_not_fit(store: Store) -> None:
    box = store.create_container()
    for name in ("below", "above"):
        with box.mount() as root:
            (root / name).touch()
        image = box.commit(name)
    below = store.image("below")
    image.tag("below")  # which that one loses
    box.remove()
    assert store.image(below.id).tags == ()
    store.prune(all_images=True, fits=lambda subject: subject.id == image.id)
    assert [found.id for found in store.images()] == [below.id]


def test_prune_without_images_removes_containers_alone(store: Store, add: Adder, base: bytes) -> None:
    add(base)
    store.create_container()
    pruned = store.prune(containers=True, images=False)
    assert (len(pruned.containers), pruned.images) == (1, ())
    assert len(store.images()) == 1
