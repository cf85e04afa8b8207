"""Layers without images: added one on the other, sealed from containers, kept by leases, and made images at last."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore import ChainID, StoredLayer, Transaction
from layerstore.digest import DiffID, chain_ids
from layerstore.errors import ConfigError, DigestMismatch, InvalidArchive, NotFound
from layerstore.store import Store
from support import images as make

pytestmark = pytest.mark.root

Leftovers = Callable[[], Sequence[str]]


def source(tar: bytes, *, diff_id: str | None = None) -> layerstore.LayerSource:
    return layerstore.LayerSource(lambda: io.BytesIO(tar), diff_id=None if diff_id is None else DiffID(diff_id))


def unread(tar: bytes) -> layerstore.LayerSource:
    """A source that must not be opened."""

    @contextmanager
    def opened() -> Iterator[io.BytesIO]:
        pytest.fail("it is there already")
        yield io.BytesIO()

    return layerstore.LayerSource(opened, diff_id=DiffID(make.digest(tar)))


def leased(store: Store, name: str) -> Callable[[Transaction, StoredLayer], object]:
    """A record that keeps the layer for `test` under a name."""
    return lambda tx, layer: store.lease(tx, layer.chain_id, owner="test", name=name)


def names_in(store: Store, chain: ChainID | None) -> list[str]:
    with store.open_layers(chain) as root:
        return sorted(os.path.join(at, name)[2:] for at, _, files, _ in os.fwalk(".", dir_fd=root) for name in files)


@pytest.fixture
def bottom(store: Store, base: bytes) -> StoredLayer:
    """A layer that is kept by a lease alone."""
    return store.add_layer(source(base), record=leased(store, "bottom"))


def test_a_layer_is_added_on_nothing_and_on_another(store: Store, base: bytes, upper: bytes) -> None:
    first = store.add_layer(source(base), record=leased(store, "a"))
    second = store.add_layer(source(upper), first.chain_id, record=leased(store, "b"))
    names = [DiffID(make.digest(base)), DiffID(make.digest(upper))]
    assert first == StoredLayer(chain_ids(names)[0], None, names[0], len(base))
    assert second == StoredLayer(chain_ids(names)[1], first.chain_id, names[1], len(upper))
    assert [store.layer(one.chain_id) for one in (first, second)] == [first, second]
    assert names_in(store, second.chain_id) == ["etc/new", "etc/passwd", "usr/tool"]
    assert names_in(store, first.chain_id) == ["etc/group", "etc/passwd", "usr/tool"]
    assert names_in(store, None) == []
    assert store.images() == []
    assert store.check(content=True) == []


def test_a_layer_that_is_there_is_not_read_and_recorded_again(store: Store, bottom: StoredLayer, base: bytes) -> None:
    seen: list[StoredLayer] = []
    assert store.add_layer(unread(base), record=lambda _, layer: seen.append(layer)) == bottom
    assert store.add_layer(source(base), record=lambda _, layer: seen.append(layer)) == bottom
    assert seen == [bottom, bottom]
    assert store.check(content=True) == []


def test_what_is_not_the_layer_that_it_says_leaves_nothing(
    store: Store, base: bytes, upper: bytes, leftovers: Leftovers
) -> None:
    with pytest.raises(DigestMismatch):
        store.add_layer(source(upper, diff_id=make.digest(base)))
    with pytest.raises(InvalidArchive):
        store.add_layer(source(base[:700]))
    with pytest.raises(NotFound):
        store.add_layer(source(upper), ChainID(make.digest(b"no layer")))
    store.wait()
    assert [name for name in leftovers() if name != store._parts.session.name] == []


def test_a_record_that_fails_is_told_and_leaves_no_layer(store: Store, bottom: StoredLayer, upper: bytes) -> None:
    def broken(tx: Transaction, layer: StoredLayer) -> None:
        store.lease(tx, layer.chain_id, owner="test", name="x")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.add_layer(source(upper), bottom.chain_id, record=broken)
    box = store.create_container(on=bottom.chain_id)
    with box.mount() as root:
        (root / "new").write_text("n")
    with pytest.raises(ValueError, match="no"):
        box.seal(record=broken)
    assert list(store.leases("test")) == ["bottom"]
    assert [str(change) for change in box.changes()] == ["A /new"]
    store.wait()
    assert store.check() == []


def test_a_container_stands_on_layers_and_is_sealed_step_by_step(store: Store, bottom: StoredLayer) -> None:
    box = store.create_container(None, on=bottom.chain_id, name="steps", lasts=False)
    assert box.image is None
    assert box.seal() is None
    made = []
    for step in range(3):
        with box.mount() as root:
            (root / f"step{step}").write_text(str(step))
        layer = box.seal(record=leased(store, f"step{step}"))
        assert layer is not None
        assert list(box.changes()) == []
        made.append(layer)
    assert [layer.parent for layer in made] == [bottom.chain_id, made[0].chain_id, made[1].chain_id]
    assert names_in(store, made[1].chain_id) == ["etc/group", "etc/passwd", "step0", "step1", "usr/tool"]
    box.remove()
    store.prune()
    assert [store.layer(layer.chain_id) for layer in made] == made
    assert store.check(content=True) == []


def test_a_container_in_use_is_sealed_by_a_copy(store: Store, bottom: StoredLayer) -> None:
    box = store.create_container(on=bottom.chain_id)
    with box.mount() as root:
        (root / "new").write_text("n")
        layer = box.seal(record=leased(store, "x"))
        assert layer is not None
        assert [str(change) for change in box.changes()] == ["A /new"]
    assert names_in(store, layer.chain_id) == ["etc/group", "etc/passwd", "new", "usr/tool"]
    assert box.seal() == layer
    assert store.check(content=True) == []


def test_a_sealed_container_on_an_image_is_committed_with_all_its_layers(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    box = store.create_container("x")
    layers = []
    for name in "ab":
        with box.mount() as root:
            (root / name).write_text(name)
        layers.append(box.seal())
    assert box.image == image
    with box.mount() as root:
        (root / "c").write_text("c")
    made = box.commit("y", message="all of it")
    assert made.layers[:3] == (image.layers[0], *(layer.diff_id for layer in layers if layer is not None))
    assert [step.comment for step in made.history] == ["", "", "", "all of it"]
    assert [step.empty_layer for step in made.history] == [False] * 4
    assert made.parent == image.id
    assert store.check(content=True) == []


def test_a_container_on_a_layer_is_committed_with_what_it_stands_on(store: Store, bottom: StoredLayer) -> None:
    box = store.create_container(on=bottom.chain_id)
    with box.mount() as root:
        (root / "new").write_text("n")
    image = box.commit("y")
    assert image.layers[0] == bottom.diff_id
    assert len(image.layers) == 2
    assert names_in(store, image.chain_id) == ["etc/group", "etc/passwd", "new", "usr/tool"]


def test_a_container_on_a_layer_that_is_not_there_is_refused(store: Store, add: Adder, base: bytes) -> None:
    nowhere = ChainID(make.digest(b"no layer"))
    with pytest.raises(NotFound):
        store.create_container(on=nowhere)
    image = add(base, name="x")
    with pytest.raises(ConfigError):
        store.create_container("x", on=image.chain_id)
    assert store.containers() == []


def test_an_image_is_added_of_layers_that_are_here(store: Store, bottom: StoredLayer, base: bytes) -> None:
    config = make.config([base])
    seen: list[str] = []
    image = store.add_image(config, bottom.chain_id, ["a", "b"], record=lambda _, image: seen.append(image))
    assert image.config_bytes == config
    assert image.tags == ("a:latest", "b:latest")
    assert seen == [image.id]
    child = store.add_image(make.config([base], author="me"), bottom.chain_id, parent=image.id)
    assert child.parent == image.id
    empty = store.add_image(make.config([]), None)
    assert empty.layers == ()


def test_an_image_of_other_layers_than_its_config_says_is_refused(
    store: Store, bottom: StoredLayer, base: bytes, upper: bytes
) -> None:
    with pytest.raises(InvalidArchive, match="which are not the 1 of"):
        store.add_image(make.config([base, upper]), bottom.chain_id)
    with pytest.raises(InvalidArchive):
        store.add_image(make.config([upper]), bottom.chain_id)
    with pytest.raises(NotFound):
        store.add_image(make.config([base]), ChainID(make.digest(b"no layer")))
    with pytest.raises(NotFound):
        store.add_image(make.config([base]), bottom.chain_id, parent=layerstore.ImageID(make.digest(b"no image")))
    assert store.images() == []


def test_a_lease_keeps_a_layer_and_all_below_it(
    store: Store, bottom: StoredLayer, upper: bytes, settings: layerstore.Config
) -> None:
    top = store.add_layer(source(upper), bottom.chain_id, record=leased(store, "top"))
    assert store.leases("test") == {"bottom": bottom.chain_id, "top": top.chain_id}
    assert store.leases("another") == {}
    assert store.end_leases("test", ["bottom", "no such"]) == []
    store.close()
    with layerstore.open(config=settings) as again:
        assert again.prune().layers == ()
        assert again.layer(bottom.chain_id) == bottom
        assert again.end_leases("another", ["top"]) == []
        assert again.end_leases("test", ["top"]) == [top.chain_id, bottom.chain_id]
        with pytest.raises(NotFound):
            again.layer(bottom.chain_id)
        again.wait()
        assert again.check() == []


def test_a_lease_of_another_layer_lets_the_first_go(store: Store, bottom: StoredLayer, upper: bytes) -> None:
    other = store.add_layer(source(upper), record=leased(store, "other"))
    store.lease(None, other.chain_id, owner="test", name="bottom")
    assert store.leases("test") == {"other": other.chain_id, "bottom": other.chain_id}
    with pytest.raises(NotFound):
        store.layer(bottom.chain_id)
    with pytest.raises(NotFound):
        store.lease(None, bottom.chain_id, owner="test", name="again")
    assert store.end_leases("test", ["other"]) == []
    assert store.end_leases("test", ["bottom"]) == [other.chain_id]


def test_a_layer_without_lease_goes_with_the_next_prune(store: Store, base: bytes) -> None:
    layer = store.add_layer(source(base))
    assert store.prune().layers == (layer.chain_id,)
    assert store.check() == []


def test_an_image_that_is_removed_leaves_what_is_leased(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    image = add(base, upper, name="x")
    bottom, top = image.chain_ids
    store.lease(None, bottom, owner="test", name="x")
    assert [removal.what for removal in store.remove_image("x") if removal.is_layer] == [top]
    assert store.layer(bottom).diff_id == image.layers[0]
    assert store.check(content=True) == []


def test_a_row_of_an_upper_floor_is_written_with_the_layer(store: Store, base: bytes) -> None:
    tables = layerstore.Tables("built", ("CREATE TABLE built_steps (key TEXT PRIMARY KEY, chain_id TEXT)",))
    database = store.tables(tables)

    def record(tx: Transaction, layer: StoredLayer) -> None:
        tx.execute("INSERT INTO built_steps VALUES ('k', ?)", (layer.chain_id,))
        store.lease(tx, layer.chain_id, owner="built", name="k")

    layer = store.add_layer(source(base), record=record)
    with database.read() as tx:
        assert tx.execute("SELECT * FROM built_steps").fetchall() == [("k", layer.chain_id)]
    with pytest.raises(sqlite3.IntegrityError):  # the key is there
        store.add_layer(source(base), record=record)


def test_the_tree_of_layers_stays_while_it_is_open(store: Store, bottom: StoredLayer) -> None:
    with store.open_layers(bottom.chain_id) as root:
        assert store.end_leases("test", ["bottom"]) == []
        assert sorted(os.listdir(root)) == ["etc", "usr"]
        with pytest.raises(OSError, match="Read-only"):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=root)
    assert store.prune().layers == (bottom.chain_id,)


def test_an_added_image_is_saved_and_loaded_with_its_config(
    store: Store, bottom: StoredLayer, base: bytes, tmp_path: Path
) -> None:
    image = store.add_image(make.config([base]), bottom.chain_id, ["a"])
    store.save("a", tmp_path / "a.tar")
    store.remove_image("a")
    store.load(tmp_path / "a.tar")
    assert store.image("a").id == image.id


def times_in(store: Store, chain: ChainID) -> dict[str, int]:
    """When each thing of a tree was modified, in ns."""
    with store.open_layers(chain) as root:
        found = {".": os.stat(root).st_mtime_ns}
        for at, folders, files, fd in os.fwalk(".", dir_fd=root):
            for name in (*folders, *files):
                path = os.path.join(at, name)[2:]
                found[path] = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime_ns
    return found


MOMENT = make.EPOCH * 10**9 + 500


def edit(root: Path) -> None:
    """Something of every kind, now and before."""
    (root / "new").write_text("n")
    (root / "old").write_text("o")
    os.utime(root / "old", ns=(5, 5))
    (root / "link").symlink_to("new")
    os.link(root / "new", root / "usr/again")
    (root / "etc/passwd").unlink()
    (root / "etc/group").chmod(0o600)


@pytest.mark.parametrize("state", ["unmounted", "mounted"])
def test_no_time_of_a_sealed_layer_is_later_than_is_said(store: Store, bottom: StoredLayer, state: str) -> None:
    box = store.create_container(on=bottom.chain_id)
    with box.mount() as root:
        edit(root)
        layer = box.seal(latest=MOMENT, record=leased(store, "x")) if state == "mounted" else None
    layer = layer or box.seal(latest=MOMENT, record=leased(store, "x"))
    assert layer is not None
    before = make.EPOCH * 10**9
    assert times_in(store, layer.chain_id) == {
        ".": MOMENT,
        "etc": MOMENT,
        "etc/group": before,
        "link": MOMENT,
        "new": MOMENT,
        "old": 5,
        "usr": MOMENT,
        "usr/again": MOMENT,
        "usr/tool": before,
    }
    assert store.check(content=True) == []


def test_the_same_steps_at_other_times_are_the_same_layers(store: Store, bottom: StoredLayer) -> None:
    made = []
    for attempt in range(2):
        box = store.create_container(on=bottom.chain_id)
        for step in ("a", "b"):
            with box.mount() as root:
                (root / step).write_text(step)
                (root / "usr/tool").write_text("other")  # the second time the same, but for its time
            made.append(box.seal(latest=MOMENT, record=leased(store, f"{step}{attempt}")))
    assert made[:2] == made[2:]
    assert store.check(content=True) == []


def test_what_differs_by_nothing_but_a_later_time_is_no_change(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    box = store.create_container("x")
    with box.mount() as root:
        os.utime(root / "usr/tool")
    assert box.seal(latest=make.EPOCH * 10**9) is None
    assert list(box.changes()) == []
    assert box.commit().layers == image.layers


def test_times_of_what_checkpoints_keep_are_told_otherwise_in_the_layer(store: Store, bottom: StoredLayer) -> None:
    box = store.create_container(on=bottom.chain_id)
    with box.mount() as root:
        (root / "first").write_text("1")
    box.checkpoint("one")
    with box.mount() as root:
        (root / "second").write_text("2")
    layer = box.seal(latest=MOMENT, record=leased(store, "x"))
    assert layer is not None
    times = times_in(store, layer.chain_id)
    assert (times["."], times["first"], times["second"]) == (MOMENT, MOMENT, MOMENT)
    box.rollback("one")
    assert [str(change) for change in box.changes()] == ["A /first"]
    assert store.check(content=True) == []
