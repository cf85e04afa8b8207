"""The driver erofs in a store: layers that stay tars, their indexes, and what is damaged of them."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore import DriverNotSupported, Problem, Store
from layerstore.testing import trees
from support import images as make

pytestmark = pytest.mark.root

LOWER = make.layer(
    make.folder("etc", mode=0o750, uid=3),
    make.file("etc/a", "a"),
    make.file("etc/big", b"b" * 70_000),
    make.symlink("link", "etc"),
)
UPPER = make.layer(make.whiteout("etc/a"), make.file("link/through", "t"), make.hard_link("also", "etc/big"))


@pytest.fixture
def config(backing: Callable[[str], Path]) -> layerstore.Config:
    folder = backing("ext4")
    return layerstore.Config(data_root=folder / "store", exec_root=folder / "exec", storage_driver="erofs")


@pytest.fixture
def store(config: layerstore.Config) -> Iterator[Store]:
    with layerstore.open(config=config) as opened:
        yield opened


def tars(store: Store) -> dict[str, Path]:
    """Where the tars lie, by their digests."""
    found = (store.data_root / "erofs").glob("*/layer.tar")
    return {f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}": path for path in found}


def indexes(store: Store) -> list[Path]:
    return sorted((store.data_root / "erofs").glob("*/index-*"))


def kinds(problems: list[Problem]) -> list[str]:
    return [problem.kind for problem in problems]


def test_a_layer_is_its_tar(store: Store) -> None:
    image = Adder(store)(LOWER, UPPER, name="image")
    there = tars(store)
    assert sorted(there) == sorted(image.layers)
    assert sorted(path.read_bytes() for path in there.values()) == sorted([LOWER, UPPER])
    for path in there.values():
        assert path.stat().st_mode & 0o777 == 0o600
        assert sorted(name for name in os.listdir(path.parent) if not name.startswith("index")) == [
            "layer.tar",
            "listing",
        ]
    with image.mount() as root:  # names and links lead through what the layer below has
        assert (root / "etc/through").read_text() == "t"
        assert not (root / "etc/a").exists()
        assert (root / "also").read_bytes() == b"b" * 70_000
        assert (root / "etc").stat().st_uid == 3
        seen = trees.listing(root)
    out = io.BytesIO()
    store.save(["image"], out)
    with store.create_container("image") as box, box.mount() as root:
        assert trees.listing(root) == seen
    box.remove()
    image.remove(force=True)
    store.wait()
    assert [name for name in os.listdir(store.data_root / "erofs") if not name.startswith(".")] == []


def test_an_image_that_is_loaded_has_its_index(store: Store) -> None:
    Adder(store)(LOWER, UPPER, name="image")
    before = [(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in indexes(store)]
    with store.image("image").mount(), store.create_container("image") as box, box.mount():
        pass
    assert [(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in indexes(store)] == before


def test_an_index_is_made_again_where_it_is_not_there(store: Store) -> None:
    image = Adder(store)(LOWER, UPPER, name="image")
    with image.mount() as root:
        seen = trees.listing(root)
    made = indexes(store)
    for index in made:
        index.unlink()
    assert store.check(content=True) == []
    with image.mount() as root:
        assert trees.listing(root) == seen
    [index] = indexes(store)
    assert index in made


def test_a_layer_has_an_index_for_each_stack_it_is_the_nearest_of(store: Store) -> None:
    other = make.layer(make.file("other", "o"), make.folder("etc"), make.file("etc/big", b"c" * 70_000))
    plain = make.layer(make.file("plain", "p"))
    Adder(store)(LOWER, plain, name="one")
    Adder(store)(other, plain, name="two")
    assert len(tars(store)) == 3
    assert len(indexes(store)) == 2
    with store.image("one").mount() as one, store.image("two").mount() as two:
        assert ((one / "plain").read_text(), (two / "plain").read_text()) == ("p", "p")
        assert ((one / "link").is_symlink(), (two / "link").exists()) == (True, False)


def test_a_tar_that_means_another_thing_there_is_kept_once(store: Store) -> None:
    """Its listing depends on what is below; the tar has a second name."""
    linking = make.layer(make.file("link/through", "t"))
    folder = make.layer(make.folder("link"))
    Adder(store)(LOWER, linking, name="symlink")
    Adder(store)(folder, linking, name="folder")
    digest = f"sha256:{hashlib.sha256(linking).hexdigest()}"
    inodes = {
        path.stat().st_ino for path in (store.data_root / "erofs").glob("*/layer.tar") if path.read_bytes() == linking
    }
    assert len(inodes) == 1, digest
    with store.image("symlink").mount() as root:
        assert (root / "etc/through").exists()
    with store.image("folder").mount() as root:
        assert (root / "link/through").exists()
        assert not (root / "etc").exists()


def test_a_byte_of_a_tar_is_found_and_mended(store: Store, tmp_path: Path) -> None:
    image = Adder(store)(LOWER, UPPER, name="image")
    archive = tmp_path / "image.tar"
    with archive.open("wb") as out:
        store.save(["image"], out)
    path = tars(store)[image.layers[0]]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert store.check() == []  # sizes are right
    problems = store.check(content=True)
    assert kinds(problems) == ["damaged layer"]
    with pytest.raises(layerstore.Damaged, match="its tar is not what it was"):
        store.save(["image"], io.BytesIO())
    with archive.open("rb") as stream:
        store.load(stream)
    assert store.check(content=True) == []
    with store.image("image").mount() as root:
        assert (root / "etc/big").read_bytes() == b"b" * 70_000


@pytest.mark.parametrize("how", ["gone", "cut", "no listing"])
def test_a_listing_is_made_again_of_its_tar(store: Store, how: str) -> None:
    image = Adder(store)(LOWER, UPPER, name="image")
    with image.mount() as root:
        seen = trees.listing(root)
    listing = tars(store)[image.layers[0]].with_name("listing")
    if how == "gone":
        listing.unlink()
    else:
        data = listing.read_bytes()
        listing.write_bytes(data[: len(data) // 2] if how == "cut" else b"x" * len(data))
    problems = store.check()
    assert kinds(problems) == ["damaged layer"]
    [mended] = store.repair(problems)
    assert mended.error is None
    assert store.check(content=True) == []
    with store.image("image").mount() as root:
        assert trees.listing(root) == seen


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_tar_that_is_not_there_is_told(store: Store, how: str) -> None:
    image = Adder(store)(LOWER, UPPER, name="image")
    path = tars(store)[image.layers[0]]
    if how == "gone":
        path.unlink()
    else:
        os.truncate(path, 1024)
    problems = store.check()
    assert [problem.layer for problem in problems] == [image.layers[0]]
    Adder(store)(LOWER, UPPER, name="image")
    assert store.check(content=True) == []


def test_a_checkpoint_is_no_tar(store: Store) -> None:
    """Also one that is made while programs may write, which is a copy."""
    Adder(store)(LOWER, UPPER, name="image")
    box = store.create_container("image")
    with box.mount() as root:
        (root / "one").write_text("1")
        box.checkpoint("mounted")
        (root / "two").write_text("2")
    box.checkpoint("unmounted")
    with box.mount() as root:
        (root / "etc/through").unlink()
    assert len(tars(store)) == 2
    made = box.commit("made")
    with made.mount() as root:
        assert ((root / "one").read_text(), (root / "two").read_text()) == ("1", "2")
        assert not (root / "etc/through").exists()
    box.rollback("mounted")
    with box.mount() as root:
        assert ((root / "one").exists(), (root / "two").exists()) == (True, False)
    assert store.check(content=True) == []


def test_stacks_are_converted_to_it_and_from_it(config: layerstore.Config, backing: Callable[[str], Path]) -> None:
    with layerstore.open(config=config) as store:
        image = Adder(store)(LOWER, UPPER, name="image")
        with store.create_container(image, name="box") as box, box.mount() as root:
            (root / "mine").write_text("m")
            seen = trees.listing(root)
        layers = image.layers
    for driver in ("overlay2", "erofs"):
        settings = layerstore.Config(data_root=config.data_root, exec_root=config.exec_root, storage_driver=driver)
        layerstore.migrate(driver, config=settings)
        with layerstore.open(config=settings) as store:
            assert store.image("image").layers == layers
            with store.container("box").mount() as root:
                assert trees.listing(root) == seen
            assert store.check(content=True) == []


def test_it_is_refused_without_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DriverNotSupported, match="cannot be mounted without root") as refused:
        layerstore.open(tmp_path / "store", storage_driver="erofs")
    assert "overlay2" in str(refused.value.remedy)
