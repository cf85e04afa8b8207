"""The btrfs driver: subvolumes, snapshots, quota groups, and that nothing of them is left."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import layerstore
from core.adding import Adder
from drivers.conftest import driver_of
from kernel.stacks import as_nobody
from kernel.wild import Wild
from layerstore import plugins
from layerstore.changes import Changes, compare_trees
from layerstore.driver import CopyOnWrite, Layer, State, Usage, usage_of
from layerstore.errors import ConfigError, Damaged, DriverNotSupported, InUse, KernelError
from layerstore.kernel import btrfs
from layerstore.kernel.btrfs import QuotaState
from layerstore.kernel.files import remove_tree, syncfs
from layerstore.kernel.mounts import mounting
from layerstore.store import Store
from layerstore.testing import trees
from layerstore.testing.workbench import key, keys_of
from layerstore_btrfs import Btrfs, Settings
from support import images as make
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

Maker = Callable[..., Btrfs]
Backing = Callable[[str], Path]

TOP_LEVEL = 5
SUBVOLUME = 256  # the inode of the root of each


@pytest.fixture
def driver(backing: Backing) -> Maker:
    """`driver(size=1 << 20)`: a driver with an empty home."""

    def made(folder: Path | None = None, **options: Any) -> Btrfs:
        folder = folder or backing("btrfs")
        for name in ("btrfs", "staging"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        return Btrfs(folder / "btrfs", folder / "staging", Settings(**options))

    return made


@pytest.fixture
def disk(own_filesystem: Callable[..., Path]) -> Path:
    """A btrfs of its own, whose cleaner is quick."""
    return own_filesystem("btrfs", size=1 << 30, options="commit=1")


def staged(driver: Btrfs, parents: Sequence[Layer] = ()) -> Layer:
    layer = Layer(key(), State.STAGED)
    driver.create(layer, parents)
    return layer


def sealed(driver: Btrfs, layer: Layer, parents: Sequence[Layer] = ()) -> Layer:
    syncfs(driver.home)  # as the core does
    return Layer(driver.seal(layer, parents))


def committed(driver: Btrfs, parents: Sequence[Layer] = (), **files: str) -> Layer:
    layer = staged(driver, parents)
    for name, text in files.items():
        (driver.tree(layer) / name).write_text(text)
    return sealed(driver, layer, parents)


def container(driver: Btrfs, parents: Sequence[Layer] = (), **more: Any) -> Layer:
    layer = Layer(key(), State.WRITABLE)
    driver.create(layer, parents, **more)
    return layer


@contextmanager
def mounted(driver: Btrfs, layer: Layer) -> Iterator[Path]:
    driver.prepare(layer, [], read_only=False)
    place = driver.mountpoint(layer)
    mounting.attach(driver.mounts(layer, [], read_only=False), place)
    try:
        yield place
    finally:
        mounting.unmount(place)


def in_full(driver: Btrfs, layer: Layer, parent: Layer) -> Changes:
    new, old = (os.open(driver.tree(one), os.O_RDONLY) for one in (layer, parent))
    try:
        return compare_trees(new, old, content=True)
    finally:
        os.close(new)
        os.close(old)


def everything(folder: Path) -> list[str]:
    """All paths but the notes of quota groups: where quotas are on, the kernel lets go of those in its own time."""
    found = (path for path in folder.rglob("*") if path.parent.name != "quotas")
    return sorted(str(path.relative_to(folder)) for path in found)


EMPTY = ["mnt", "quotas", "subvolumes"]


def test_the_driver_is_installed() -> None:
    assert plugins.find("btrfs") is Btrfs


# ---- layers


def test_a_layer_is_made_in_staging_and_sealed_into_the_home(driver: Maker) -> None:
    home = driver()
    made = staged(home)
    assert home.tree(made) == home.staging / made.key
    assert list(home.keys()) == []
    facts = home.tree(made).stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o755, 0)

    layer = sealed(home, made)
    assert layer.key == made.key
    assert home.tree(layer) == home.home / "subvolumes" / layer.key
    assert list(home.keys()) == [layer.key]
    assert os.listdir(home.staging) == []
    with pytest.raises(OSError, match="Read-only"):
        (home.tree(layer) / "file").touch()


def test_a_child_is_its_parent_until_it_is_changed(driver: Maker) -> None:
    home = driver()
    made = staged(home)
    Wild(home.tree(made), random.Random(5)).grow(60)
    base = sealed(home, made)

    box = container(home, [base])
    trees.assert_same(trees.listing(home.tree(base)), trees.listing(home.tree(box)))
    assert list(home.changes(box, [base])) == []
    with mounted(home, box) as root:
        (root / "written").write_text("w")
    assert list(map(str, home.changes(box, [base]))) == ["A /written"]
    assert not (home.tree(base) / "written").exists()


def test_sealing_makes_a_new_layer_and_leaves_the_old(driver: Maker) -> None:
    home = driver()
    base = committed(home, file="x")
    box = container(home, [base])
    with mounted(home, box) as root:
        (root / "new").write_text("dirty")
    layer = sealed(home, box, [base])
    assert layer.key != box.key
    assert layer.key.startswith(box.key)
    assert sorted(home.keys()) == keys_of(base, box, layer)
    assert (home.tree(layer) / "new").read_text() == "dirty"
    assert not btrfs.is_read_only(home.tree(box))
    assert home.changes(layer, [base]) == home.changes(box, [base])
    # As after a commit that failed and whose snapshot nobody has removed yet.
    second = sealed(home, box, [base])
    assert second not in (Layer(box.key), layer)
    assert sorted(home.keys()) == keys_of(base, box, layer, second)


def test_changes_are_those_of_the_full_comparison(driver: Maker) -> None:
    home = driver()
    made = staged(home)
    wild = Wild(home.tree(made), random.Random(9))
    wild.grow(60)
    base = sealed(home, made)
    box = container(home, [base])
    with mounted(home, box) as root:
        wild.root = os.fsencode(root)
        for _ in range(10):
            wild.edit(3)
            assert home.changes(box, [base]) == in_full(home, box, base)


def test_parent_that_was_made_anew_since(driver: Maker) -> None:
    """A damaged layer is unpacked again: its containers are no snapshots of the new one."""
    home = driver()
    base = committed(home, file="x", other="y")
    box = container(home, [base])
    (home.tree(box) / "file").write_text("changed")
    again = committed(home, file="x")
    assert home.changes(box, [again]) == in_full(home, box, again)
    assert "A /other" in map(str, home.changes(box, [again]))


def test_reading_a_container_is_no_change_and_costs_none(driver: Maker) -> None:
    home = driver()
    base = committed(home, **{f"f{number}": "x" for number in range(20)})
    box = container(home, [base])
    syncfs(home.home)
    before = btrfs.written(home.tree(box), btrfs.info(home.tree(box)).created)
    with mounted(home, box) as root:
        for path in root.iterdir():
            os.utime(home.tree(base).parent.parent, None)
            path.read_text()
    syncfs(home.home)
    assert btrfs.written(home.tree(box), btrfs.info(home.tree(box)).created) == before == (0, 0)


def test_usage_is_what_a_layer_wrote_itself(driver: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    home = driver()
    made = staged(home)
    for number in range(50):
        (home.tree(made) / f"{number}").write_bytes(os.urandom(50_000))
    syncfs(home.home)
    full = usage_of(home.tree(made))
    base = sealed(home, made)
    box = container(home, [base])
    above = staged(home, [base])
    (home.tree(above) / "3").write_bytes(os.urandom(20_000))
    (home.tree(above) / "new").write_bytes(os.urandom(9_000))
    top = sealed(home, above, [base])
    monkeypatch.setattr(os, "scandir", None)  # it is not walked

    used = home.usage(base, [])
    assert (used.inodes, used.size) == (full.inodes + 1, 50 * 53_248)  # with the root
    assert home.usage(box, [base]) == Usage(0, 0)
    assert home.usage(top, [base]) == Usage(20_480 + 12_288, 3)
    with mounted(home, box) as root:
        (root / "big").write_bytes(bytes(1 << 20))
        assert home.usage(box, [base]).size == 1 << 20
    assert home.usage(sealed(home, box, [base]), [base]).size == 1 << 20


def test_an_image_that_was_staged_as_a_whole_is_as_one_that_was_sealed_layer_by_layer(driver: Maker) -> None:
    """Its layers are made of staged ones, and sealed at the end, the bottom first, after one sync."""
    home = driver()
    stack: list[Layer] = []
    for number in range(4):
        layer = staged(home, stack)
        (home.tree(layer) / f"f{number}").write_bytes(os.urandom(10_000))
        (home.tree(layer) / "same").write_text(f"{number}")
        stack.insert(0, layer)
    syncfs(home.home)
    for number in reversed(range(4)):
        stack[number] = Layer(home.seal(stack[number], stack[number + 1 :]))

    for number, layer in enumerate(stack):
        assert btrfs.is_read_only(home.tree(layer))
        assert (home.tree(layer) / "same").read_text() == f"{3 - number}"
        # Its own file, "same" and its root: not what its parents wrote, in whatever transaction that was.
        assert home.usage(layer, stack[number + 1 :]) == Usage(12_288 + 1, 3)
        below = stack[number + 1 :]
        new = [f"A /f{3 - number}", f"{'C' if below else 'A'} /same"]
        assert list(map(str, home.changes(layer, below))) == new
        if below:
            assert btrfs.info(home.tree(layer)).parent == btrfs.info(home.tree(below[0])).uuid


def test_a_seal_that_fails_leaves_the_layer_staged(driver: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    home = driver()
    layer = staged(home)

    def refuse(*_: object, **__: object) -> None:
        raise KernelError("ioctl(BTRFS_IOC_SUBVOL_SETFLAGS)", errno.ENOSPC)

    with monkeypatch.context() as patch:
        patch.setattr(btrfs, "set_read_only", refuse)
        with pytest.raises(KernelError):
            home.seal(layer, [])

    assert list(home.keys()) == []
    assert home.tree(layer).is_dir()
    sealed(home, layer)


# ---- removal


def test_removal_leaves_nothing(driver: Maker) -> None:
    home = driver()
    base = committed(home, file="x")
    box = container(home, [base])
    with mounted(home, box):
        pass
    for layer in (box, staged(home, [base]), base):
        home.remove(layer)
        home.remove(layer)
    assert everything(home.home) == EMPTY
    assert os.listdir(home.staging) == []


def test_what_is_mounted_is_not_removed(driver: Maker) -> None:
    home = driver()
    box = container(home)
    with mounted(home, box):
        with pytest.raises(KernelError) as caught:
            home.remove(box)
        assert caught.value.errno == errno.EBUSY
        assert home.tree(box).is_dir()


def test_layer_that_is_a_plain_folder_is_removed_too(driver: Maker) -> None:
    """Somebody has copied the home file by file."""
    home = driver()
    layer = Layer(key())
    (home.tree(layer) / "etc").mkdir(parents=True)
    home.remove(layer)
    assert everything(home.home) == EMPTY
    assert os.listdir(home.staging) == [layer.key]


def test_plain_folder_has_no_quota_group_of_its_own(driver: Maker, disk: Path) -> None:
    home = driver(disk)
    btrfs.enable_quota(disk)
    (home.home / "subvolumes" / key()).mkdir()
    for found in list(home.keys()):
        home.remove(Layer(found))
    assert os.listdir(home.home / "quotas") == [], "the group of the whole filesystem is not to be removed"


@pytest.mark.parametrize(("name", "depth"), [("n", sys.getrecursionlimit() + 100), ("n" * 250, 20)])
def test_subvolumes_nested_deep_are_removed(driver: Maker, disk: Path, name: str, depth: int) -> None:
    """What any program in a container can make, without a privilege."""
    home = driver(disk)
    box = container(home)
    before = os.getcwd()
    try:
        os.chdir(home.tree(box))
        for _ in range(depth):
            btrfs.create(name)
            os.chdir(name)
    finally:
        os.chdir(before)
    home.remove(box)
    assert list(home.keys()) == []
    for left in home.staging.iterdir():  # as the core does
        remove_tree(left)
    assert btrfs.nested(disk) == []


def test_what_a_death_in_the_middle_leaves_is_found(driver: Maker) -> None:
    home = driver()
    alone = key()
    (home.home / "mnt" / alone).mkdir()
    assert list(home.keys()) == [alone]
    home.remove(Layer(alone))
    assert everything(home.home) == EMPTY


def test_foreign_names_are_no_layers(driver: Maker) -> None:
    home = driver()
    for name in ("lost+found", "a" * 64, "notes.txt", key().upper()):
        (home.home / "subvolumes" / name).mkdir()
    assert list(home.keys()) == []


def until(met: Callable[[], bool], disk: Path) -> None:
    """Let the cleaner work, which wakes with the commits."""
    for _ in range(60):
        if met():
            return
        (disk / "stir").write_text(os.urandom(4).hex())
        syncfs(disk)
        subprocess.run(["btrfs", "-q", "subvolume", "sync", disk], check=True, stdout=subprocess.DEVNULL)
    pytest.fail("it does not come to pass")


@pytest.mark.tools("btrfs")
def test_hundreds_of_layers_leave_no_subvolume_and_no_quota_group(driver: Maker, disk: Path) -> None:
    folder = disk / "store"
    folder.mkdir()
    home = driver(folder)
    stack: list[Layer] = []
    made = []
    for number in range(1000 if NIGHTLY else 200):
        parents = stack if number % 5 == 0 else []
        layer = container(home, parents, size=(100 << 20) if number % 2 else None)
        (home.tree(layer) / f"{number}").write_text(f"{number}" * 2000)
        made.append(layer)
        if number % 50 == 0:
            made.append(Layer(home.seal(layer, parents)))
            stack = [made[-1], *stack]
    assert len(btrfs.nested(disk)) == len(made)
    assert len(set(btrfs.groups(disk)) - {TOP_LEVEL}) >= len(made) - 2

    random.Random(3).shuffle(made)
    for layer in made:
        home.remove(layer)
    assert btrfs.nested(disk) == []

    def clean() -> bool:
        home.close()  # sweeps
        return os.listdir(home.home / "quotas") == []

    until(clean, disk)
    assert set(btrfs.groups(disk)) <= {TOP_LEVEL}
    assert everything(home.home) == EMPTY


# ---- quotas


def write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())


def test_limit_is_of_one_container(driver: Maker, disk: Path) -> None:
    home = driver(disk)
    base = committed(home, file="x" * 5_000_000)
    assert btrfs.quota_state(disk) is QuotaState.OFF
    small = container(home, [base], size=4 << 20)
    assert btrfs.quota_state(disk) is not QuotaState.OFF
    free = container(home, [base])
    for box in (small, free):
        with mounted(home, box) as root:
            assert (root / "file").stat().st_size == 5_000_000
            write(root / "some", 1 << 20)
    with mounted(home, small) as root:
        with pytest.raises(OSError, match="quota") as caught:
            write(root / "more", 8 << 20)
        assert caught.value.errno == errno.EDQUOT
        (root / "more").unlink()
    with mounted(home, free) as root:
        write(root / "more", 8 << 20)
    assert home.usage(sealed(home, small, [base]), [base]).size == 1 << 20


def test_default_limit_and_least_one(driver: Maker, disk: Path) -> None:
    home = driver(disk, size="8M", min_space="4M")
    with pytest.raises(ConfigError, match=r"btrfs\.min_space") as caught:
        container(home, size=1 << 20)
    assert caught.value.remedy
    assert everything(home.home) == EMPTY
    assert btrfs.quota_state(disk) is QuotaState.OFF
    box = container(home)
    with mounted(home, box) as root, pytest.raises(OSError, match="quota"):
        write(root / "big", 16 << 20)
    write(home.tree(staged(home)) / "big", 16 << 20)  # an image is not limited


def test_a_size_is_refused_where_there_can_be_no_quotas(
    driver: Maker, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = driver(disk)

    def refuse(*_: object) -> QuotaState:
        raise KernelError("ioctl(BTRFS_IOC_QUOTA_CTL)", errno.EOPNOTSUPP)

    monkeypatch.setattr(btrfs, "enable_quota", refuse)
    with pytest.raises(DriverNotSupported, match="size of a container cannot be limited") as caught:
        container(home, size=1 << 20)

    assert caught.value.remedy
    assert everything(home.home) == EMPTY


@pytest.mark.parametrize("option", ["size=many", "threads=2", "min_space=-1"])
def test_options_that_do_not_exist(data_root: Path, option: str) -> None:
    with pytest.raises(ConfigError):
        layerstore.open(data_root, storage_driver="btrfs", storage_opts=[f"btrfs.{option}"])
    assert not data_root.exists()


def test_default_below_the_least(backing: Backing) -> None:
    with pytest.raises(ConfigError, match="not less than"):
        layerstore.open(
            backing("btrfs") / "store",
            storage_driver="btrfs",
            storage_opts=["btrfs.size=1M", "btrfs.min_space=2M"],
        )


# ---- nested subvolumes


def test_subvolume_made_in_a_container(driver: Maker) -> None:
    home = driver()
    base = committed(home, file="x")
    box = container(home, [base])
    with mounted(home, box) as root:
        btrfs.create(root / "inner")
        (root / "inner" / "data").write_text("d")
    found = home.changes(box, [base])
    assert list(map(str, found)) == ["A /inner", "A /inner/data"]
    assert not found.sealable
    with pytest.raises(InUse):  # made since the changes were looked for
        home.seal(box, [base])
    home.remove(box)
    assert list(home.keys()) == [base.key]


# ---- probing


def test_another_filesystem_is_refused(backing: Backing) -> None:
    folder = backing("ext4")
    with pytest.raises(DriverNotSupported, match="ext4") as caught:
        Btrfs.probe(folder / "not" / "yet", Settings())
    assert "mkfs.btrfs" in (caught.value.remedy or "")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("place", ["folder", "subvolume"])
def test_home_in_a_larger_filesystem(backing: Backing, driver: Maker, place: str) -> None:
    folder = backing("btrfs") / "root"
    folder.mkdir() if place == "folder" else btrfs.create(folder)
    found = Btrfs.probe(folder / "not" / "yet", Settings())
    assert (found.filesystem, found.copy_on_write, found.quota) == ("btrfs", CopyOnWrite.BLOCK, True)
    assert os.listdir(folder) == []
    home = driver(folder)
    base = committed(home, file="x")
    box = container(home, [base])
    (home.tree(box) / "new").touch()
    assert list(map(str, home.changes(box, [base]))) == ["A /new"]
    assert Btrfs.probe(home.home, Settings()).quota
    for layer in (box, base):
        home.remove(layer)
    assert everything(home.home) == EMPTY


def test_ordinary_user(backing: Backing) -> None:
    folder = backing("btrfs")
    (folder / "theirs").mkdir()
    (folder / "theirs").chmod(0o777)
    answer = as_nobody(lambda: Btrfs.probe(Path("theirs"), Settings()), within=folder)
    assert answer.startswith("DriverNotSupported")
    assert "root" in answer
    assert os.listdir(folder / "theirs") == []


# ---- in a store


def settings(folder: Path) -> layerstore.Config:
    return layerstore.Config(
        data_root=folder / "store", exec_root=folder / "exec", storage_driver="btrfs", storage_opts=()
    )


@pytest.fixture
def store(backing: Backing) -> Iterator[Store]:
    with layerstore.open(config=settings(backing("btrfs"))) as opened:
        yield opened


BASE = make.layer(
    make.folder("./", mode=0o755),
    make.folder("etc/", mode=0o750, uid=3),
    make.file("etc/passwd", "root:x:0:0\n"),
    make.file("etc/group", "root:x:0\n"),
    make.file("tool", b"#!/bin/sh\n", mode=0o4755),
)
UPPER = make.layer(
    make.folder("etc/", mode=0o750, uid=3),
    make.file("etc/passwd", "root:x:0:0\nme:x:1:1\n"),
    make.whiteout("etc/group"),
    make.hard_link("etc/alias", "tool"),
)


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_life_of_a_container(store: Store, tmp_path: Path) -> None:
    archive = make.docker_archive(tmp_path / "in.tar", [BASE, UPPER])
    [image] = store.load(archive)
    for chain, layer in zip(image.chain_ids, (BASE, UPPER), strict=True):
        out = bytearray()
        store.write_layer(chain, out.extend)
        assert bytes(out) == layer
    with store.create_container(image) as box:
        with box.mount() as root:
            assert (root / "tool").stat().st_mode & 0o7777 == 0o4755
            (root / "etc/new").write_text("n")
            live = box.commit("live")
            (root / "etc/passwd").unlink()
        assert list(map(str, box.changes())) == ["C /etc", "A /etc/new", "D /etc/passwd"]
        made = box.commit("made")
        assert list(box.changes()) == []
        with box.mount() as root:
            (root / "again").touch()
        assert list(map(str, box.changes())) == ["A /again"]
        box.commit("third")
        with live.mount() as root:
            assert contents(root)["etc/new"] == "n"
            assert "etc/passwd" in contents(root)
        with made.mount() as root:
            assert sorted(contents(root)) == ["etc/alias", "etc/new", "tool"]
        assert store.check(content=True) == []
        box.remove()
    store.prune(all_images=True)
    assert list(driver_of(store).keys()) == []
    assert store.check(content=True) == []
    assert everything(driver_of(store).home) == EMPTY


def test_commit_keeps_what_nested_subvolumes_hold(store: Store) -> None:
    with store.create_container(Adder(store)(BASE)) as box:
        with box.mount() as root:
            btrfs.create(root / "inner")
            (root / "inner" / "data").write_text("d")
            btrfs.create(root / "inner" / "deeper")
            (root / "inner" / "deeper" / "data").write_text("e")
        made = box.commit("made")
        with made.mount() as root:
            assert {"inner/data", "inner/deeper/data"} <= set(contents(root))
        box.remove()
    assert store.check(content=True) == []
    store.prune(all_images=True)
    assert everything(driver_of(store).home) == EMPTY


def test_layer_destroyed_by_hand(store: Store) -> None:
    add = Adder(store)
    image = add(BASE, UPPER, name="x")
    driver = driver_of(store)
    btrfs.destroy(driver.tree(store._parts.layers.stack(image.chain_id).layers[0]))
    with pytest.raises(Damaged) as caught, image.mount():
        pass
    assert caught.value.remedy
    with pytest.raises(Damaged):
        store.create_container(image)
    assert [problem.kind for problem in store.check()] == ["missing layer"]
    add(BASE, UPPER)
    with image.mount() as root:
        assert "etc/alias" in contents(root)
    assert store.check(content=True) == []


def test_container_destroyed_by_hand(store: Store) -> None:
    box = store.create_container(Adder(store)(BASE), name="web")
    btrfs.destroy(driver_of(store).tree(box._row.layer))
    with pytest.raises(Damaged, match="web") as caught, box.mount():
        pass
    assert caught.value.remedy
    assert [problem.kind for problem in store.check()] == ["missing container"]
    box.remove()
    assert store.check() == []


DIES = """
import os, sys, layerstore
from core.adding import Adder
from drivers.conftest import driver_of
from drivers import test_btrfs as test
from layerstore_btrfs import Btrfs
from layerstore import tar
from layerstore.kernel import btrfs
from pathlib import Path
moment = sys.argv[2]
store = layerstore.open(config=test.settings(Path(sys.argv[1])))
image = Adder(store)(test.BASE, name="x")
box = store.create_container(image, name="box")
with box.mount() as root:
    (root / "file").write_text("f")
name, _, when = moment.partition(" ")
real = getattr(Btrfs, name, None)
def dies(self, *arguments, **more):
    if when == "after":
        real(self, *arguments, **more)
    elif when == "amid":  # the ioctl is done, what follows it is not
        destroy = btrfs.destroy
        btrfs.destroy = lambda path: (destroy(path), os._exit(9))
        real(self, *arguments, **more)
    os._exit(9)
if name == "unpack":
    tar.unpack = lambda stream, tree, **more: ((tree / "half").touch(), os._exit(9))
    Adder(store)(test.BASE, test.UPPER)
setattr(Btrfs, name, dies)
if name == "create":
    store.create_container(image)
elif name == "seal":
    box.commit("made")
else:
    box.remove()
"""


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("create before", 2),
        ("create after", 3),
        ("unpack amid", 2),
        ("seal before", 2),
        ("seal after", 3),
        ("remove before", 2),
        ("remove amid", 1),
        ("remove after", 1),
    ],
)
def test_death_between_two_steps_leaves_garbage_that_the_next_open_removes(
    backing: Backing, moment: str, left: int
) -> None:
    folder = backing("btrfs")
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", DIES, folder, moment],
        env={**os.environ, "PYTHONPATH": f"{tests}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    assert len(os.listdir(folder / "store" / "btrfs" / "subvolumes")) == left
    staged = [path for path in (folder / "store" / "staging").glob("*/*") if path.stat().st_ino == SUBVOLUME]
    assert len(staged) == moment.startswith("unpack")
    with layerstore.open(config=settings(folder)) as store:
        assert store.check(content=True) == []
        is_gone = moment.startswith("remove")
        assert [box.name for box in store.containers()] == ([] if is_gone else ["box"])
        assert len(list(driver_of(store).keys())) == (1 if is_gone else 2)
        if not is_gone:
            assert list(map(str, store.container("box").changes())) == ["A /file"]
        store.prune(all_images=True, containers=True)
        assert everything(driver_of(store).home) == EMPTY
    assert everything(folder / "store" / "staging") in ([], [".spare"])
