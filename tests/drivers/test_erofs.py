"""The driver erofs in a store: layers that stay tars, their indexes, and what is damaged of them."""

from __future__ import annotations

import hashlib
import io
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore import DriverNotSupported, Problem, Store
from layerstore.check import Rate
from layerstore.indexes import LaidTree
from layerstore.kernel import files
from layerstore.tar import laid_in, lying_in
from layerstore.testing import trees
from layerstore.testing.calls import run_watched
from layerstore.testing.strategies import posix_acl
from layerstore_erofs import Erofs, Settings
from support import images as make

pytestmark = pytest.mark.root

LOWER = make.layer(
    make.folder("etc", mode=0o750, uid=3),
    make.file("etc/a", "a"),
    make.file("etc/big", b"b" * 70_000),
    make.symlink("link", "etc"),
)
UPPER = make.layer(make.whiteout("etc/a"), make.file("link/through", "t"), make.hard_link("also", "etc/big"))

MOUNTING = ("mount", "fsopen", "fsmount", "open_tree", "move_mount")


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


ROOTED = make.layer(
    make.folder(
        "./",
        mode=0o2751,
        uid=7,
        gid=8,
        mtime=1_600_000_000.25,
        xattrs={"user.a": b"1", "trusted.overlay.own": b"2", "system.posix_acl_default": posix_acl()},
    ),
    make.file("a", "a"),
)


@pytest.mark.parametrize("layers", [(ROOTED,), (LOWER, ROOTED), (ROOTED, LOWER), (LOWER,)])
def test_a_new_container_looks_as_its_image_and_nothing_is_mounted_for_that(
    store: Store, config: layerstore.Config, layers: tuple[bytes, ...]
) -> None:
    def create() -> None:
        with layerstore.open(config=config) as own:
            own.create_container("image", name="box")

    image = Adder(store)(*layers, name="image")
    with image.mount() as root:
        seen = trees.listing(root)
    done = run_watched(create, lambda *_: None, names=MOUNTING)
    assert done.failure is None
    assert done.calls == []
    box = store.container("box")
    assert not box.changes()
    with box.mount() as root:
        assert trees.listing(root) == seen
    box.checkpoint("one")
    [fork] = box.fork()
    with fork.mount() as root:
        assert trees.listing(root) == seen


def test_listings_that_were_looked_at_are_not_read_again_for_the_index(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    add = LaidTree.add
    monkeypatch.setattr(LaidTree, "add", lambda stack, part: (read.append(part.tar.parent.name), add(stack, part))[1])
    Adder(store)(LOWER, make.layer(make.file("etc/more", "m")), make.layer(make.file("usr/new", "n")), name="image")
    assert len(read) == len(set(read)) == 3
    with store.image("image").mount() as root:
        assert (root / "etc/more").read_text() == "m"
        assert (root / "etc/big").read_bytes() == b"b" * 70_000


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


def alter(path: Path, what: bytes) -> None:
    """Alter a byte in the middle of this content of a tar."""
    data = bytearray(path.read_bytes())
    data[data.index(what) + len(what) // 2] ^= 1
    path.write_bytes(data)


def test_a_wrong_range_of_a_tar_is_mended_by_another_layer(store: Store) -> None:
    """The same file lies in another tar, elsewhere and under another name; the rest is right where it is."""
    kept, twice = bytes(range(256)) * 100, b"once and again" * 3000
    lower = make.layer(make.device("null", 1, 3), make.file("kept", kept), make.file("twice", twice), make.file("end"))
    other = make.layer(make.file("before", b"1" * 777), make.hard_link("also", "before"), make.file("it", twice))
    image = Adder(store)(lower, name="image")
    Adder(store)(other, name="other")
    alter(tars(store)[image.layers[0]], twice)
    problems = store.check(content=True)
    assert kinds(problems) == ["damaged layer"]
    [repair] = store.repair(problems)
    assert repair.error is None
    assert store.check(content=True) == []
    with store.image("image").mount() as root:
        assert (root / "twice").read_bytes() == twice
        assert (root / "kept").read_bytes() == kept


def test_what_no_layer_has_is_not_mended(store: Store) -> None:
    image = Adder(store)(LOWER, name="image")
    alter(tars(store)[image.layers[0]], b"b" * 70_000)
    [repair] = store.repair(store.check(content=True))
    assert isinstance(repair.error, layerstore.NotFound)
    assert kinds(store.check(content=True)) == ["damaged layer"]


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


def test_any_bit_of_what_is_mounted_is_found_and_mended(store: Store) -> None:
    """Of an index, which the kernel believes, and of the listing that it is made of."""
    image = Adder(store)(LOWER, name="image")
    with image.mount() as root:
        seen = trees.listing(root)
    [index] = indexes(store)
    listing = index.with_name("listing")
    stream, _ = struct.unpack("<QQ", listing.read_bytes()[-24:-8])  # which is empty, and nobody's
    places = [(listing, at) for at in range(listing.stat().st_size) if not 8 <= at < 8 + stream]
    places += [(index, at) for at in (*range(8, 40), *range(1024, index.stat().st_size, 97))]
    for path, at in places:
        data = path.read_bytes()
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        assert kinds(store.check()) == ["damaged layer"], (path.name, at)
        path.write_bytes(data)
    assert store.check(content=True) == []
    data = index.read_bytes()
    index.write_bytes(data[:2000] + b"x" + data[2001:])
    [mended] = store.repair(store.check(content=True))
    assert mended.error is None
    assert store.check(content=True) == []
    with store.image("image").mount() as root:
        assert trees.listing(root) == seen


def test_what_is_mounted_is_read_no_faster_than_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Adder(store)(LOWER, name="image")
    [index] = indexes(store)
    read: list[int] = []
    monkeypatch.setattr(Rate, "__call__", lambda _, count: read.append(count))
    assert store.check(content=True) == []
    assert sorted(read)[-2:] == sorted([index.stat().st_size - 1024, len(LOWER)])


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


def series(number: int) -> bytes:
    """Layers that have four large files in common, and other times."""
    dice = random.Random(1)
    same = [dice.randbytes(1 << 20) for _ in range(4)]
    own = make.file("own", f"{number}" * 10_000, mtime=number)
    return make.layer(own, *(make.file(f"{at}", data, mtime=number) for at, data in enumerate(same)))


def used(folder: Path) -> int:
    """Bytes of a filesystem, once all that was deleted is away."""
    files.syncfs(folder)
    facts = os.statvfs(folder)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def test_content_that_two_layers_have_is_kept_once(backing: Callable[[str], Path]) -> None:
    folder = backing("xfs")
    config = layerstore.Config(
        data_root=folder / "store",
        exec_root=folder / "exec",
        storage_driver="erofs",
        storage_opts=("erofs.dedup=true",),
    )
    with layerstore.open(config=config) as store:
        assert ("Dedup", "true") in store.info().driver_status
        add = Adder(store)
        first = add(series(1), name="first")
        before = used(folder)
        add(series(2), name="second")
        add(series(3), series(4), name="third")
        assert used(folder) - before < 3 << 20  # and not 12 MiB
        [listing] = (store.data_root / "erofs").glob(f"{tars(store)[first.layers[0]].parent.name}/listing")
        lying = [(one.payload.content, one.payload.size, one.place) for one in lying_in(listing)]
        told = [(int.from_bytes(content, "little"), size, place) for content, size, place in lying]
        assert laid_in(listing, 0) == told
        assert laid_in(listing, 1 << 20) == told[1:]
        first.remove(force=True)
        store.wait()
        # Notes that are not true do no harm: the kernel compares.
        notes = store.data_root / "erofs" / ".known"
        with notes.open("r+b") as file:
            data = bytearray(file.read())
            for at in range(0, len(data), 40):
                if any(data[at : at + 40]):
                    data[at + 17] ^= 0x10  # a place, by a block
            file.seek(0)
            file.write(data)
        add(series(5), name="fourth")
        assert store.check() == []
        assert {path.read_bytes() for path in tars(store).values()} == {series(number) for number in (2, 3, 4, 5)}


@pytest.mark.parametrize(
    ("filesystem", "why"), [("ext4", "ext4 shares no blocks between files"), ("btrfs", "btrfs keeps an extent whole")]
)
def test_content_is_kept_once_only_where_that_gives_room_back(
    backing: Callable[[str], Path], filesystem: str, why: str
) -> None:
    with pytest.raises(DriverNotSupported, match=rf"erofs\.dedup: {why}") as refused:
        Erofs.probe(backing(filesystem), Settings(dedup=True))
    assert refused.value.remedy == "Put the data-root on xfs, or leave the option out."
