"""The same answers under every driver, though some keep layers as whole trees, and know only lists of these."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from layerstore import Store
from layerstore.looking import Deed, Subject, advise, why
from looking.conftest import sources
from support import images as make

pytestmark = pytest.mark.root

BASE = make.layer(
    make.folder("etc/"),
    make.file("etc/conf", b"x" * 5000),
    make.folder("data/"),
    make.file("data/a", b"a" * 7000),
    make.file("data/b", b"b" * 9000),
    make.hard_link("data/again", "data/b"),
)
# Its folder is not listed, and is there below.
CHANGE = make.layer(make.file("etc/conf", b"x" * 5000, mode=0o600), make.whiteout("data/a"))
CLEAN = make.layer(make.folder("data/"), make.opaque("data"), make.file("data/new", b"n" * 10))


@pytest.mark.parametrize(
    ("driver", "filesystem"),
    [("overlay2", "ext4"), ("vfs", "ext4"), ("aufs", "ext4"), ("btrfs", "btrfs"), ("erofs", "ext4")],
)
def test_every_driver_tells_the_same(driver: str, filesystem: str, backing: Callable[[str], Path]) -> None:
    folder = backing(filesystem)
    config = layerstore.Config(data_root=folder / "store", exec_root=folder / "run", storage_driver=driver)
    tars = [BASE, CHANGE, CLEAN]
    with layerstore.open(config=config) as store:
        store.add(make.config(tars), list(sources(tars)), ["app"])
        _holds(store)


def _holds(store: Store) -> None:
    advice = advise(store, "app")
    assert {(one.subject, one.bytes, one.places) for one in advice.findings} == {
        (Subject.REWRITTEN, 5000, ("/etc/conf",)),
        (Subject.HIDDEN, 7000, ("/data/a",)),
        (Subject.HIDDEN, 9000, ("/data/b",)),
    }
    assert (advice.bytes, advice.shown) == (26_010, 5010)
    assert [step.deed for step in why(store, "app", "/etc/conf").steps] == [Deed.ATTRIBUTES, Deed.ADDED]
    gone = why(store, "app", "/data/again")
    assert [(step.deed, step.by) for step in gone.steps] == [(Deed.REMOVED, b"data"), (Deed.ADDED, None)]
    assert not gone.exists
    container = store.create_container("app", name="box")
    with container.mount() as root:
        (root / "data/new").write_bytes(b"m" * 10)
    written = why(store, "box", "/data/new").written
    assert written is not None
    assert written.deed is Deed.CONTENT


def test_a_store_that_cannot_be_written_to_answers_and_stays_as_it_is(
    backing: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = backing("ext4")
    config = layerstore.Config(data_root=folder / "store", exec_root=tmp_path / "run", storage_driver="overlay2")
    with layerstore.open(config=config) as store:
        store.add(make.config([BASE, CHANGE]), list(sources([BASE, CHANGE])), ["app"])
    root = config.data_root
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        with layerstore.open(config=config) as store:
            assert advise(store, "app").saved == 12_000
            assert [step.deed for step in why(store, "app", "/etc/conf").steps] == [Deed.ATTRIBUTES, Deed.ADDED]
    finally:
        subprocess.run(["umount", root], check=True)
