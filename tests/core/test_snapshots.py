"""Snapshots: what containers were when they ended, kept for a program above that has tables of its own."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import Container, InUse, NotFound, Snapshot, Store, Tables, Transaction
from support import images

pytestmark = pytest.mark.root

FLOOR = Tables(
    "floor",
    (
        "CREATE TABLE floor_things (name TEXT PRIMARY KEY, container TEXT REFERENCES containers,"
        " snapshot TEXT REFERENCES snapshots ON DELETE CASCADE)",
    ),
)
DRIVERS = {"overlay2": "ext4", "btrfs": "btrfs", "vfs": "xfs", "aufs": "ext4", "erofs": "ext4"}


def begin(store: Store, on: Snapshot | None = None) -> layerstore.Container:
    """A container that belongs to the program."""

    def record(tx: Transaction, container: str) -> None:
        tx.execute("INSERT INTO floor_things (name, container) VALUES (?, ?)", (container, container))

    store.tables(FLOOR)
    return store.create_container(on=on, record=record)


def end(container: layerstore.Container) -> Snapshot:
    """It becomes a snapshot of the program's."""

    def record(tx: Transaction, snapshot: str) -> None:
        tx.execute("UPDATE floor_things SET container = NULL, snapshot = ? WHERE name = ?", (snapshot, container.id))

    return container.end(record)


def written(store: Store, files: dict[str, str | None], on: Snapshot | None = None) -> Snapshot:
    """A snapshot in which these files are written; None: removed."""
    container = begin(store, on)
    with container.mount() as root:
        for name, content in files.items():
            if content is None:
                (root / name).unlink()
            else:
                (root / name).write_text(content)
    return end(container)


def tree(snapshot: Snapshot) -> dict[str, str]:
    """Its files."""
    with snapshot.open_tree() as fd:
        return {path.name: path.read_text() for path in Path(f"/proc/self/fd/{fd}").iterdir() if path.is_file()}


def diff(snapshot: Snapshot) -> tuple[str, bytes]:
    """Its own changes: what their DiffID is said to be, and the tar."""
    tar = bytearray()
    return snapshot.write_changes(tar.extend), bytes(tar)


@pytest.fixture
def open_with(backing: Callable[[str], Path]) -> Callable[[str], Store]:
    """`open_with("vfs")`: a store with that driver."""

    def make(driver: str) -> Store:
        place = backing(DRIVERS[driver])
        config = layerstore.Config(data_root=place / "store", exec_root=place / "exec", storage_driver=driver)
        return layerstore.open(config=config)

    return make


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_is_hashed_when_that_is_asked_for(driver: str, open_with: Callable[[str], Store]) -> None:
    with open_with(driver) as store:
        below = written(store, {"a": "1", "b": "2"})
        above = written(store, {"a": None, "c": "3"}, on=below)
        same = end(begin(store, above))
        assert store.containers() == []
        assert (tree(below), tree(above)) == ({"a": "1", "b": "2"}, {"b": "2", "c": "3"})
        assert tree(same) == tree(above)
        for snapshot in (below, above, same):
            diff_id, tar = diff(snapshot)
            assert diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}" == snapshot.diff_id()
        assert b".wh.a" in diff(above)[1]
        assert b".wh.a" not in diff(same)[1]
        assert above.usage().inodes > 0
        with pytest.raises(NotFound):
            written(store, {}, on=_removed(written(store, {"x": "x"})))
        for snapshot in (below, above):  # in any order: what stands on it keeps its files
            snapshot.remove()
        assert tree(same) == {"b": "2", "c": "3"}
        same.remove()
        store.wait()
        assert (store.snapshots.all(), store.check()) == ([], [])


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_was_written_since_a_snapshot_below(driver: str, open_with: Callable[[str], Store]) -> None:
    def names(of: Container | Snapshot, since: Snapshot | None) -> list[str]:
        tar = bytearray()
        of.write_changes(tar.extend, since=since)
        with tarfile.open(fileobj=io.BytesIO(tar)) as found:
            return sorted(set(found.getnames()) - {"."})

    with open_with(driver) as store:
        first = written(store, {"a": "1", "b": "2"})
        second = written(store, {"a": None, "c": "3"}, on=first)
        other = written(store, {"x": "x"})
        box = begin(store, second)
        with box.mount() as root:
            (root / "d").write_text("4")
        assert names(box, second) == ["d"]
        assert names(box, first) == [".wh.a", "c", "d"]
        box.checkpoint("one")
        with box.mount() as root:
            (root / "e").write_text("5")
        assert names(box, second) == ["d", "e"]
        with pytest.raises(NotFound, match="does not stand on snapshot"):
            names(box, other)
        third = end(box)
        same = end(begin(store, third))
        assert (names(third, second), names(third, first)) == (["d", "e"], [".wh.a", "c", "d", "e"])
        assert (names(same, third), names(same, second)) == ([], ["d", "e"])
        for of, since in ((third, other), (same, other), (first, second)):
            with pytest.raises(NotFound, match="does not stand on snapshot"):
                names(of, since)


def test_what_a_checkpoint_keeps_is_told_when_that_is_asked_for(store: Store) -> None:
    def names(**options: Any) -> list[str]:
        tar = bytearray()
        made = snapshot.write_changes(tar.extend, **options)
        assert made == images.digest(bytes(tar))
        with tarfile.open(fileobj=io.BytesIO(tar)) as found:
            assert all(entry.mtime <= 1000 for entry in found if "latest" in options)
            return sorted(set(found.getnames()) - {"."})

    below = written(store, {"a": "1"})
    box = begin(store, below)
    with box.mount() as root:
        (root / "b").write_text("2")
    box.checkpoint("one")
    with box.mount() as root:
        (root / "c").write_text("3")
    snapshot = end(box)
    assert (names(), names(since=below), names(whole=True)) == (["c"], ["b", "c"], ["a", "b", "c"])
    assert names(latest=1000 * 10**9) == ["c"]
    assert names(whole=True, latest=1000 * 10**9) == ["a", "b", "c"]
    assert snapshot.diff_id() == diff(snapshot)[0]  # which is remembered of that alone
    box = begin(store, snapshot)
    snapshot = end(box)
    assert (names(), names(whole=True)) == ([], ["a", "b", "c"])


@pytest.mark.parametrize("since", [None, "one"])
def test_no_time_of_a_container_s_changes_is_later_than_is_asked_for(store: Store, since: str | None) -> None:
    box = begin(store)
    box.checkpoint("one")
    with box.mount() as root:
        (root / "a").write_text("1")
    tar = bytearray()
    box.write_changes(tar.extend, since=since, latest=1000 * 10**9)
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        assert {entry.name: entry.mtime for entry in found if entry.isfile()} == {"a": 1000}


def _removed(snapshot: Snapshot) -> Snapshot:
    snapshot.remove()
    return snapshot


def test_one_of_a_layer_keeps_it(store: Store, tmp_path: Path) -> None:
    layers = [images.layer(images.file("a", "1")), images.layer(images.file("b", "2"))]
    [image] = store.load(images.docker_archive(tmp_path / "image.tar", layers, ["image:1"]))
    store.tables(FLOOR)
    snapshot = store.snapshots.of_layer(image.chain_ids[-1], lambda tx, name: None)
    assert (snapshot.is_layer, snapshot.diff_id()) == (True, image.layers[-1])
    store.remove_image("image:1")
    assert diff(snapshot)[1] == layers[-1]
    assert tree(written(store, {"c": "3"}, on=snapshot)) == {"a": "1", "b": "2", "c": "3"}
    for one in store.snapshots.all():
        one.remove()
    with pytest.raises(NotFound):
        store.layer(image.chain_ids[-1])
    assert store.check() == []


def test_nothing_happens_if_the_record_cannot_be_written(store: Store) -> None:
    def refuse(tx: Transaction, _: str) -> None:
        raise RuntimeError("no")

    container = begin(store)
    with container.mount() as root:
        (root / "a").write_text("a")
    for deed in (container.end, lambda record: container.remove(record=record)):
        with pytest.raises(RuntimeError):
            deed(refuse)
    with pytest.raises(RuntimeError):
        store.create_container(record=refuse)
    assert [one.id for one in store.containers()] == [container.id]
    with container.mount() as root:
        assert (root / "a").read_text() == "a"
    assert store.check() == []


def test_a_lent_container_is_taken_for_being_written_to(store: Store) -> None:
    container = begin(store)
    with container.mount() as root:
        (root / "a").write_text("a")
        (root / "a").chmod(0o755)
    [mount] = container.lend()
    assert mount.type == "overlay"
    key = container.inspect()["GraphDriver"]["Data"]["UpperDir"]
    with pytest.raises(InUse, match="lent"):
        container.mount()
    with pytest.raises(InUse, match="lent"):
        container.run("/a")
    image = container.commit("copy:1")
    assert image.layers
    assert container.inspect()["GraphDriver"]["Data"]["UpperDir"] == key, "its own layer stays as it is"
    assert tree(end(container)) == {"a": "a"}
    assert store.claims() == {}


def test_it_comes_along_to_another_driver(open_with: Callable[[str], Store]) -> None:
    with open_with("overlay2") as store:
        below = written(store, {"a": "1"})
        above = written(store, {"b": "2"}, on=below)
        known, config = above.diff_id(), store.config
    layerstore.migrate("vfs", config=config)
    with layerstore.open(config=layerstore.Config(data_root=config.data_root, exec_root=config.exec_root)) as store:
        assert store.driver_name == "vfs"
        found = store.snapshots.get(above.id)
        assert (tree(found), diff(found)[0]) == ({"a": "1", "b": "2"}, known)
        assert store.check() == []


def test_it_is_rescued(open_with: Callable[[str], Store]) -> None:
    with open_with("overlay2") as store:
        below = written(store, {"a": "1"})
        above = written(store, {"b": "2"}, on=below)
        config = store.config
    (config.data_root / "layerstore.db").unlink()
    layerstore.rescue(config=config)
    with layerstore.open(config=config) as store:
        assert tree(store.snapshots.get(above.id)) == {"a": "1", "b": "2"}
