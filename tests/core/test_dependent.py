"""A driver whose layers depend on their parents: unpacked in order, never shared, sealed into a new object."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore import Container, LayerstoreError, facts
from layerstore.driver import Layer, LayerKey, State, StorageDriver
from layerstore.images import Image
from layerstore.layers import Layers, garbage
from layerstore.layers.folders import Folders
from layerstore.records import Mirror
from layerstore.store import Store
from layerstore.testing.trees import listing
from support import images as make

pytestmark = pytest.mark.root

Content = Callable[[Image], dict[str, str]]


@pytest.fixture
def store(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr("layerstore.plugins._entries", lambda: {"plain": "core.plain:Plain"})
    settings = layerstore.Config(
        data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="plain", storage_opts=()
    )
    with layerstore.open(config=settings) as opened:
        yield opened


def kept(data_root: Path) -> int:
    return len(os.listdir(data_root / "plain"))


def test_layers_are_unpacked_each_on_the_last(
    store: Store, add: Adder, base: bytes, upper: bytes, read_back: Content, data_root: Path
) -> None:
    image = add(base, upper, name="x")
    assert add.read == [make.digest(base), make.digest(upper)]
    assert read_back(image) == {"etc/passwd": "root:x:0:0\nme:x:1:1\n", "etc/new": "new", "usr/tool": "#!/bin/sh\n"}
    for chain, layer in zip(image.chain_ids, (base, upper), strict=True):
        out = bytearray()
        store.write_layer(chain, out.extend)
        assert bytes(out) == layer
    assert store.check(content=True) == []
    add.read.clear()
    add(base, upper)
    assert add.read == []
    assert kept(data_root) == 2


def test_diff_on_other_parents_is_made_from_the_one_that_is_there(
    store: Store, add: Adder, base: bytes, upper: bytes, read_back: Content
) -> None:
    add(base, upper)
    add.read.clear()
    other = make.layer(make.file("only", "here"))
    image = add(other, upper)
    assert add.read == [make.digest(other)]
    assert read_back(image)["only"] == "here"
    assert store.check(content=True) == []


def written(store: Store) -> tuple[Container, StorageDriver, LayerKey]:
    """A container with a file, the store's driver, and what the driver calls its layer."""
    box = store.create_container()
    with box.mount() as root:
        (root / "file").write_text("x")
    [key] = map(LayerKey, store._parts.storage.driver.keys())
    return box, store._parts.storage.driver, key


def test_what_a_dead_commit_sealed_goes_though_the_containers_maker_lives(store: Store) -> None:
    box, driver, key = written(store)
    sealed = driver.seal(Layer(key, State.WRITABLE), [])  # by another process, which died before it wrote the row

    with store._layers.lease([("diff", key)], "it is being committed"):
        parts = store._parts
        assert garbage.find(parts.database, parts.session.staging, parts.storage.files).home == ()
    facts.ask_for_recovery(store._parts.database, store._parts.session.stay)
    with layerstore.open(config=store.config):
        assert list(driver.keys()) == [key]
    assert sealed != key

    image = box.commit()
    with image.mount() as root:
        assert (root / "file").read_text() == "x"


def test_what_was_spared_for_somebody_alive_goes_with_a_later_open(store: Store) -> None:
    _, driver, key = written(store)
    driver.seal(Layer(key, State.WRITABLE), [])  # by another process, which died before it wrote the row

    facts.ask_for_recovery(store._parts.database, store._parts.session.stay)  # which is when somebody notes its death
    with store._layers.lease([("diff", key)], "it is being committed by somebody else"):
        layerstore.open(config=store.config).close()
        assert len(list(driver.keys())) == 2
    layerstore.open(config=store.config).close()
    assert list(driver.keys()) == [key]
    assert "boot" in facts.read(store._parts.database)


def a_removal_fails(store: Store) -> None:
    """As `Layers.drop` says it."""
    facts.ask_for_recovery(store._parts.database, store._parts.session.stay)


def a_commit_fails(store: Store) -> None:
    """For want of room, which the disk says when it is synced."""

    def fails(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Mirror, "take", fails)
        with pytest.raises(LayerstoreError), store._parts.database.write() as tx:
            facts.count_commit(tx)


@pytest.mark.parametrize("ask", [a_removal_fails, a_commit_fails])
def test_what_is_asked_for_while_a_store_is_put_in_order_is_done_by_the_next_open(
    store: Store, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Store], None]
) -> None:
    _, driver, key = written(store)
    sweep = garbage.sweep

    def and_then_another_fails(layers: Layers, staging: Path) -> bool:
        is_all = sweep(layers, staging)
        driver.seal(Layer(key, State.WRITABLE), [])  # lies there without a row, and whoever made it is no more
        ask(store)
        return is_all

    facts.ask_for_recovery(store._parts.database, store._parts.session.stay)
    with monkeypatch.context() as patched:
        patched.setattr(garbage, "sweep", and_then_another_fails)
        layerstore.open(config=store.config).close()
    assert len(list(driver.keys())) == 2
    layerstore.open(config=store.config).close()
    assert list(driver.keys()) == [key]


def test_commit_that_fails_after_the_seal_leaves_nothing_sealed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    box = store.create_container()
    with box.mount() as root:
        (root / "file").write_text("x")
    before = list(store._parts.storage.driver.keys())
    with monkeypatch.context() as patched:
        patched.setattr(Folders, "_keep_skeleton", lambda *_: os.rename("/nowhere/a", "/nowhere/b"))
        with pytest.raises(layerstore.KernelError):
            box.commit()
    assert list(store._parts.storage.driver.keys()) == before
    assert store.check() == []
    with box.commit().mount() as root:
        assert (root / "file").read_text() == "x"


def test_staged_layers_wait_for_their_parents(
    store: Store, add: Adder, base: bytes, upper: bytes, read_back: Content, data_root: Path
) -> None:
    tars = [store._layers.stage(io.BytesIO(data), label="x") for data in (upper, base)]
    with pytest.raises(layerstore.DigestMismatch):
        store._layers.stage(io.BytesIO(base), expected=tars[0].diff_id)
    image = add.images.add_staged(make.config([base, upper]), {tar.diff_id: tar for tar in tars}, ["x"])
    for tar in tars:
        store._layers.discard(tar)
    assert "etc/new" in read_back(image)
    assert store.check(content=True) == []
    assert kept(data_root) == 2


def test_what_stands_on_a_damaged_layer_is_made_anew(
    store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path
) -> None:
    image = add(base, upper)
    bottom, top = (data_root / "plain" / store._layers.stack(chain).layers[0].key for chain in image.chain_ids)
    os.truncate(bottom / "tree/usr/tool", 0)
    os.truncate(top / "tree/usr/tool", 0)
    add.read.clear()
    add(base, upper)
    assert add.read == [make.digest(base), make.digest(upper)]
    with image.mount() as root:
        assert (root / "usr/tool").read_text() == "#!/bin/sh\n"
    assert store.check(content=True) == []
    assert kept(data_root) == 2


def test_what_stands_on_a_damaged_layer_is_made_anew_from_a_stream(
    store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path
) -> None:
    """The stream is passed over where the store has a layer whole, though its tree has the damage of those below."""
    image = add(base, upper, name="x")
    archive = io.BytesIO()
    store.save("x", archive)
    bottom = data_root / "plain" / store._layers.stack(image.chain_ids[0]).layers[0].key
    os.truncate(bottom / "tree/usr/tool", 0)

    store.load(io.BytesIO(archive.getvalue()))

    with image.mount() as root:
        assert (root / "usr/tool").read_text() == "#!/bin/sh\n"
    assert store.check(content=True) == []
    store.prune()
    assert kept(data_root) == 2


def test_damage_found_while_a_layer_is_taken_from_the_store_is_remembered(
    store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path
) -> None:
    image = add(base, upper)
    file = data_root / "plain" / store._layers.stack(image.chain_ids[1]).layers[0].key / "tree/etc/new"
    facts_of_it = file.stat()
    file.write_text("old")
    os.utime(file, ns=(facts_of_it.st_atime_ns, facts_of_it.st_mtime_ns))
    other = make.layer(make.file("only", "here"))
    with pytest.raises(layerstore.Damaged, match="etc/new"):
        add(other, upper)

    again = add(other, upper)

    with again.mount() as root:
        assert (root / "etc/new").read_text() == "new"


def test_container_lives_and_is_committed(
    store: Store, add: Adder, base: bytes, read_back: Content, data_root: Path
) -> None:
    image = add(base, name="x")
    box = store.create_container(image)
    with box.mount() as root:
        (root / "new").write_text("n")
        live = box.commit("live")
        (root / "etc/group").unlink()
    made = box.commit("made")
    assert read_back(live) == {
        "etc/passwd": "root:x:0:0\n",
        "etc/group": "root:x:0\n",
        "usr/tool": "#!/bin/sh\n",
        "new": "n",
    }
    assert read_back(made) == {"etc/passwd": "root:x:0:0\n", "usr/tool": "#!/bin/sh\n", "new": "n"}
    assert list(box.changes()) == []
    assert store.check(content=True) == []
    box.remove()
    store.prune(all_images=True)
    store.close()
    assert kept(data_root) == 0


def test_hard_link_and_whiteout_reach_the_lower_layer(
    store: Store, add: Adder, base: bytes, read_back: Content
) -> None:
    linked = make.layer(make.hard_link("etc/alias", "etc/passwd"), make.whiteout("etc/group"))
    image = add(base, linked)
    assert read_back(image) == {
        "etc/passwd": "root:x:0:0\n",
        "etc/alias": "root:x:0:0\n",
        "usr/tool": "#!/bin/sh\n",
    }
    out = bytearray()
    store.write_layer(image.chain_ids[1], out.extend)
    assert bytes(out) == linked
    with image.mount() as root:
        facts = (root / "etc").stat()
    assert (facts.st_mode & 0o777, facts.st_uid) == (0o750, 3)
    assert store.check(content=True) == []


@pytest.mark.parametrize("bad", [b"x" * 4096, b""])
def test_bad_layer_leaves_no_trace(store: Store, add: Adder, base: bytes, data_root: Path, bad: bytes) -> None:
    sources = [layerstore.LayerSource(open=lambda data=data: io.BytesIO(data)) for data in (base, bad)]
    with pytest.raises(layerstore.InvalidArchive):
        add.images.add(make.config([base, base[:-1] + b"x"]), sources)
    assert store.images() == []
    store.close()
    assert kept(data_root) == 0


def test_container_that_never_reached_the_disk_is_made_again(
    store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path
) -> None:
    image = add(base, upper)
    box = store.create_container(image, name="web")
    shutil.rmtree(data_root / "plain" / box._row.key)
    with pytest.raises(layerstore.Damaged, match="the files of container web are missing"):
        box.mount()
    with store._parts.database.write() as tx:
        tx.execute("UPDATE containers SET boot = 'former'")
    with box.mount() as root, image.mount() as seen:
        assert listing(root) == listing(seen)


def test_container_on_a_layer_that_is_gone_is_not_made_again(
    store: Store, add: Adder, base: bytes, data_root: Path
) -> None:
    box = store.create_container(add(base), name="web")
    for folder in (data_root / "plain").iterdir():
        shutil.rmtree(folder)
    with store._parts.database.write() as tx:
        tx.execute("UPDATE containers SET boot = 'former'")
    with pytest.raises(layerstore.Damaged, match=r"the files of layer .* are missing"):
        box.mount()
    add(base)
    with box.mount() as root:
        assert (root / "etc/passwd").exists()


def test_what_only_a_mount_speaks_of_is_spared_for_the_time_being(store: Store) -> None:
    box, parts = store.create_container(), store._parts
    driver = parts.storage.driver
    [key] = driver.keys()
    left = driver.seal(Layer(key, State.WRITABLE), [])  # what it was before somebody rolled it back, and died
    with box.mount():
        with parts.database.write() as tx:
            tx.execute("UPDATE mounts SET keys = keys || ' ' || ?", (left,))
        found = garbage.find(parts.database, parts.session.staging, parts.storage.files)
        assert (found.home, found.is_all) == ((), False)
    assert list(driver.keys()) == [key]  # it goes with the mount
    assert garbage.find(parts.database, parts.session.staging, parts.storage.files).is_all
