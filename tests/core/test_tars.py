"""A driver whose layers are no folders is a driver and a way of keeping files: through the whole of a store."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from core.tars import left_mounted
from layerstore import plugins
from layerstore.images import Image
from layerstore.store import Store
from layerstore.testing.trees import assert_same, listing
from support import images as make

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is found as any third party's is."""
    entries = plugins._entries()
    monkeypatch.setattr(plugins, "_entries", lambda: {**entries, "tars": "core.tars:Tars"})


@pytest.fixture
def config(data_root: Path) -> layerstore.Config:
    return layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="tars")


@pytest.fixture
def store(config: layerstore.Config) -> Iterator[Store]:
    with closing(layerstore.open(config=config)) as opened:
        yield opened
        assert opened.check(content=True) == []


def tar_of(store: Store, image: Image, number: int) -> bytes:
    out = bytearray()
    store.write_layer(image.layers[number], out.extend)
    return bytes(out)


def test_a_layer_is_its_tar_and_comes_out_as_it_came(store: Store, base: bytes, upper: bytes, data_root: Path) -> None:
    add = Adder(store)
    image = add(base, upper, name="x")
    kept = sorted(path.read_bytes() for path in (data_root / "tars").glob("*/layer.tar"))
    assert kept == sorted([base, upper])
    assert [tar_of(store, image, number) for number in range(2)] == [base, upper]
    assert os.listdir(data_root / "skeletons") == []
    # The same diff under other parents is there already, and is kept once.
    other = add(upper)
    assert add.read.count(make.digest(upper)) == 1
    assert other.folders[other.chain_ids[0]] == image.folders[image.chain_ids[1]]


def test_stacks_are_mounted_and_wholly_unmounted(
    store: Store, base: bytes, upper: bytes, read_back: Callable[[Image], dict[str, str]], data_root: Path
) -> None:
    image = Adder(store)(base, upper, name="x")
    assert read_back(image) == {
        "etc/passwd": "root:x:0:0\nme:x:1:1\n",
        "etc/new": "new",
        "usr/tool": "#!/bin/sh\n",
    }
    assert left_mounted(data_root / "tars") == []


def test_commit_gives_the_same_layer_as_overlay2(
    store: Store, base: bytes, upper: bytes, data_root: Path, config: layerstore.Config
) -> None:
    def committed(opened: Store) -> tuple[Image, bytes]:
        image = Adder(opened)(base, upper, name="x")
        with opened.create_container(image, name="web") as box:
            with box.mount() as root:
                (root / "etc/passwd").unlink()
                (root / "etc/added").write_text("added")
                os.utime(root / "etc/added", ns=(5, 5))
                os.utime(root / "etc", ns=(7, 7))
            assert [str(change) for change in box.changes()] == ["C /etc", "A /etc/added", "D /etc/passwd"]
            made = box.commit("y")
            assert tar_of(opened, made, 2)
        return made, tar_of(opened, made, 2)

    ours, ours_tar = committed(store)
    other = data_root.with_name("other")
    with layerstore.open(other, storage_driver="overlay2") as twin:
        theirs, theirs_tar = committed(twin)
        assert (ours.layers, ours_tar) == (theirs.layers, theirs_tar)
        with ours.mount() as root, theirs.mount() as seen:
            assert_same(listing(seen), listing(root))
    # A commit copies here: the container goes on as it was, and can be committed again.
    [box] = store.containers()
    assert box.commit("z").layers == ours.layers


def test_archives_go_in_and_out(store: Store, base: bytes, upper: bytes, tmp_path: Path) -> None:
    make.docker_archive(tmp_path / "in.tar", [base, upper], ["x:latest"])
    [image] = store.load(tmp_path / "in.tar")
    out = io.BytesIO()
    store.save("x", out)
    store.remove_image("x")
    store.wait()
    assert not list((store.data_root / "tars").glob("*/layer.tar"))
    [again] = store.load(io.BytesIO(out.getvalue()))
    assert again == image


@pytest.mark.parametrize("harm", ["gone", "cut", "altered"])
def test_damage_is_found_and_mended_by_loading_again(
    config: layerstore.Config, base: bytes, upper: bytes, harm: str
) -> None:
    with closing(layerstore.open(config=config)) as store:
        image = Adder(store)(base, upper, name="x")
        path = image.folders[image.chain_ids[0]]
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes(base[:-512] if harm == "cut" else base.replace(b"root", b"toor"))
        assert {problem.kind for problem in store.check(content=True)} <= {"damaged layer", "missing layer"}
        assert store.check(content=True)
        with pytest.raises(layerstore.Damaged):
            tar_of(store, image, 0)
        assert Adder(store)(base, upper) == image
        assert store.check(content=True) == []
        assert tar_of(store, image, 0) == base


def test_migrates_there_and_back(config: layerstore.Config, base: bytes, upper: bytes, data_root: Path) -> None:
    with closing(layerstore.open(config=config)) as store:
        image = Adder(store)(base, upper, name="x")
        with store.create_container(image, name="web") as box, box.mount() as root:
            (root / "etc/passwd").write_text("mine")
        before = [str(change) for change in box.changes()]
    for driver in ("overlay2", "tars"):
        done = layerstore.migrate(driver, data_root)
        assert (done.driver, done.layers, done.containers) == (driver, 2, 1)
        with closing(layerstore.open(data_root)) as store:
            again = store.image("x")
            assert [tar_of(store, again, number) for number in range(2)] == [base, upper]
            assert [str(change) for change in store.container("web").changes()] == before
            assert store.check(content=True) == []
    assert not (data_root / "overlay2").exists()
