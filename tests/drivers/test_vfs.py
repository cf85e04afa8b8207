"""The vfs driver: whole trees, their copies, and what is found changed in them."""

from __future__ import annotations

import ctypes
import errno
import io
import mmap
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import layerstore
from core.adding import Adder
from core.test_power import Disk
from drivers.conftest import driver_of
from kernel.wild import Wild
from layerstore import plugins
from layerstore.changes import Changes, compare_trees
from layerstore.driver import CopyOnWrite, Layer, State, Usage
from layerstore.errors import ConfigError, DriverNotSupported, KernelError, LayerstoreError
from layerstore.kernel.copying import epoch
from layerstore.kernel.mounts import mounting
from layerstore.store import Store
from layerstore.testing import trees
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.workbench import key
from layerstore_vfs import Settings, Vfs
from support import images as make

pytestmark = pytest.mark.root

Maker = Callable[..., Vfs]
Backing = Callable[[str], Path]


@pytest.fixture
def driver(backing: Backing) -> Maker:
    """`driver("xfs", copy="copy")`: a driver with an empty home there."""

    def made(kind: str = "ext4", folder: Path | None = None, **options: Any) -> Vfs:
        folder = folder or backing(kind)
        for name in ("vfs", "staging"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        return Vfs(folder / "vfs", folder / "staging", Settings(**options))

    return made


def staged(driver: Vfs, parents: Sequence[Layer] = ()) -> Layer:
    layer = Layer(key(), State.STAGED)
    driver.create(layer, parents)
    return layer


def committed(driver: Vfs, parents: Sequence[Layer] = (), **files: str) -> Layer:
    layer = staged(driver, parents)
    for name, text in files.items():
        (driver.tree(layer) / name).write_text(text)
    return Layer(driver.seal(layer, parents))


def container(driver: Vfs, parents: Sequence[Layer] = ()) -> Layer:
    layer = Layer(key(), State.WRITABLE)
    driver.create(layer, parents)
    return layer


@contextmanager
def mounted(driver: Vfs, layer: Layer, *, read_only: bool = False) -> Iterator[Path]:
    place = driver.mountpoint(layer)
    driver.prepare(layer, [], read_only=read_only)
    mounting.attach(driver.mounts(layer, [], read_only=read_only), place)
    try:
        yield place
    finally:
        mounting.unmount(place)


def in_full(driver: Vfs, layer: Layer, parent: Layer) -> Changes:
    new, old = (os.open(driver.tree(one), os.O_RDONLY) for one in (layer, parent))
    try:
        return compare_trees(new, old, content=True)
    finally:
        os.close(new)
        os.close(old)


def sync_range(fd: int) -> None:
    """Write a file's dirty pages to the disk, and nothing that is known of the file."""
    whole = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER
    answer = ctypes.CDLL(None, use_errno=True).sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), whole)
    assert answer == 0, os.strerror(ctypes.get_errno())


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_driver_is_installed() -> None:
    assert plugins.find("vfs") is Vfs


# ---- layers


def test_a_layer_is_made_in_staging_and_sealed_into_the_home(driver: Maker) -> None:
    vfs = driver()
    made = staged(vfs)
    assert vfs.tree(made) == vfs.staging / made.key
    assert list(vfs.keys()) == []

    layer = Layer(vfs.seal(made, []))
    assert layer.key == made.key
    assert vfs.tree(layer) == vfs.home / "dir" / layer.key
    assert list(vfs.keys()) == [layer.key]
    assert os.listdir(vfs.staging) == []


def test_a_child_is_its_parent_until_it_is_changed(driver: Maker, filesystem: str) -> None:
    vfs = driver(filesystem)
    made = staged(vfs)
    vfs.tree(made).rmdir()
    Wild(vfs.tree(made), random.Random(5)).grow(60)
    base = Layer(vfs.seal(made, []))

    box = container(vfs, [base])
    trees.assert_same(trees.listing(vfs.tree(base)), trees.listing(vfs.tree(box)))
    assert list(vfs.changes(box, [base])) == []
    before = trees.listing(vfs.tree(base))
    with mounted(vfs, box) as root:
        (root / "written").write_text("w")
    assert list(map(str, vfs.changes(box, [base]))) == ["A /written"]
    trees.assert_same(before, trees.listing(vfs.tree(base)))

    sealed = Layer(vfs.seal(box, [base]))
    assert sealed.key == box.key
    again = container(vfs, [sealed, base])
    assert (vfs.tree(again) / "written").read_text() == "w"


def test_changes_are_those_of_the_full_comparison(driver: Maker, filesystem: str) -> None:
    vfs = driver(filesystem)
    made = staged(vfs)
    vfs.tree(made).rmdir()
    wild = Wild(vfs.tree(made), random.Random(9))
    wild.grow(60)
    base = Layer(vfs.seal(made, []))
    box = container(vfs, [base])
    with mounted(vfs, box) as root:
        wild.root = os.fsencode(root)
        for _ in range(10):
            wild.edit(3)
            assert vfs.changes(box, [base]) == in_full(vfs, box, base)


def test_write_with_everything_put_back_is_found_at_once(driver: Maker, filesystem: str) -> None:
    """As soon as there is a container, a write into it has another time than the copy."""
    vfs = driver(filesystem)
    base = committed(vfs, file="old")
    facts = (vfs.tree(base) / "file").stat()
    for _ in range(20):
        box = container(vfs, [base])
        path = vfs.tree(box) / "file"
        path.write_text("new")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert list(map(str, vfs.changes(box, [base]))) == ["C /file"]


@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "noise", "other boot", "other parent", "a folder"])
def test_list_that_cannot_be_believed(driver: Maker, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vfs = driver()
    base = committed(vfs, **{f"f{number}": "old" for number in range(20)})
    other = committed(vfs, **{f"f{number}": "old" for number in range(20)})
    box = container(vfs, [base])
    told = vfs.home / "copied" / box.key
    content = told.read_bytes()
    (vfs.tree(box) / "f3").write_text("new")
    parent = base
    if harm in ("missing", "a folder"):
        told.unlink()
        if harm == "a folder":
            told.mkdir()
    elif harm == "other boot":
        monkeypatch.setattr(epoch, "boot_id", lambda: "another")
        # What a power cut can do: new bytes, old times. Nothing that was told before it is believed.
        assert vfs._told(box, base) == b""
    elif harm == "other parent":
        parent = other
        assert vfs._told(box, other) == b""
    else:
        told.write_bytes({"empty": b"", "cut": content[:-30], "noise": random.Random(1).randbytes(500)}[harm])

    assert vfs.changes(box, [parent]) == in_full(vfs, box, parent)
    if harm == "a folder":
        told.rmdir()


def test_write_through_memory_is_found(driver: Maker, filesystem: str) -> None:
    """A page that was read before it is written to: tmpfs gives the file no new time for that."""
    vfs = driver(filesystem)
    base = committed(vfs, file="old", other="o")
    facts = (vfs.tree(base) / "file").stat()
    box = container(vfs, [base])
    with mounted(vfs, box) as root:
        with open(root / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
            assert view[0] == ord("o")
            view[0] = ord("O")
        os.utime(root / "other", ns=(0, 0))
        if (root / "file").stat().st_mtime_ns != facts.st_mtime_ns:
            os.utime(root / "file", ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert list(map(str, vfs.changes(box, [base]))) == ["C /file", "C /other"]
    assert list(map(str, vfs.changes(box, [base]))) == ["C /file", "C /other"]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_bytes_that_reached_the_disk_before_their_time(filesystems: Filesystems, driver: Maker, kind: str) -> None:
    """A power cut, or what is the same: the filesystem is shut down and mounted again, in one boot."""
    disk = filesystems.make(kind, size=512 << 20)
    vfs = driver(folder=disk, copy="copy")  # shared blocks would be written elsewhere
    base = committed(vfs, **dict.fromkeys(("file", "same"), "old" * 2000))
    box = container(vfs, [base])
    os.sync()
    path = vfs.tree(box) / "file"
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(b"new")
        file.flush()
        sync_range(file.fileno())
    Disk(disk).cut()
    after = path.stat()
    assert path.read_bytes().startswith(b"new")
    assert (after.st_ctime_ns, after.st_mtime_ns) == (before.st_ctime_ns, before.st_mtime_ns)
    assert list(map(str, vfs.changes(box, [base]))) == ["C /file"]
    filesystems.drop(disk)


def test_container_on_nothing(driver: Maker) -> None:
    vfs = driver()
    box = container(vfs)
    with mounted(vfs, box) as root:
        (root / "file").write_text("x")
    assert list(map(str, vfs.changes(box, []))) == ["A /file"]
    facts = vfs.tree(box).stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o755, 0)


def test_removal_leaves_nothing(driver: Maker) -> None:
    vfs = driver()
    base = committed(vfs, file="x")
    box = container(vfs, [base])
    vfs.remove(box)
    assert list(vfs.keys()) == [base.key]
    assert os.listdir(vfs.staging) == [box.key]
    vfs.remove(box)
    vfs.remove(base)
    assert everything(vfs.home) == ["copied", "dir", "mnt"]


def test_what_is_mounted_is_not_removed(driver: Maker) -> None:
    vfs = driver()
    box = container(vfs)
    with mounted(vfs, box):
        with pytest.raises(KernelError) as caught:
            vfs.remove(box)
        assert caught.value.errno == errno.EBUSY
        assert vfs.tree(box).is_dir()


def test_what_a_death_in_the_middle_leaves_is_found(driver: Maker) -> None:
    vfs = driver()
    made, removed = key(), key()
    (vfs.home / "mnt" / made).mkdir()
    (vfs.home / "copied" / removed).touch()
    assert set(vfs.keys()) == {made, removed}
    for left in (made, removed):
        vfs.remove(Layer(left))
    assert everything(vfs.home) == ["copied", "dir", "mnt"]


def test_foreign_names_are_no_layers(driver: Maker) -> None:
    vfs = driver()
    for name in ("lost+found", "a" * 64, "notes.txt", key().upper()):
        (vfs.home / "dir" / name).mkdir()
    assert list(vfs.keys()) == []


def test_home_that_is_something_else(driver: Maker, backing: Backing) -> None:
    folder = backing("ext4")
    (folder / "vfs").mkdir()
    (folder / "vfs" / "dir").write_text("not ours")
    with pytest.raises(KernelError) as caught:
        driver(folder=folder)
    assert caught.value.path == str(folder / "vfs" / "dir")


@pytest.mark.parametrize("state", [State.STAGED, State.WRITABLE])
def test_full_filesystem_in_the_middle_of_a_copy(
    own_filesystem: Callable[..., Path], driver: Maker, state: State
) -> None:
    folder = own_filesystem("ext4", size=16 << 20)
    vfs = driver(folder=folder)
    made = staged(vfs)
    for number in range(30):
        (vfs.tree(made) / f"{number}").write_bytes(os.urandom(250_000))
    base = Layer(vfs.seal(made, []))
    before = everything(folder)

    with pytest.raises(KernelError) as caught:
        vfs.create(Layer(key(), state), [base])

    assert caught.value.errno == errno.ENOSPC
    assert caught.value.remedy
    assert everything(folder) == before


def test_parent_whose_files_are_gone(driver: Maker) -> None:
    vfs = driver()
    base = committed(vfs, file="x")
    shutil.rmtree(vfs.tree(base))
    with pytest.raises(KernelError) as caught:
        container(vfs, [base])
    assert caught.value.errno == errno.ENOENT
    assert everything(vfs.home) == ["copied", "dir", "mnt"]
    assert os.listdir(vfs.staging) == []


def test_size_is_refused(driver: Maker) -> None:
    vfs = driver()
    with pytest.raises(DriverNotSupported, match="cannot limit") as caught:
        vfs.create(Layer(key(), State.WRITABLE), [], size=1 << 20)
    assert caught.value.remedy
    assert everything(vfs.home) == ["copied", "dir", "mnt"]


@pytest.mark.parametrize("listed", [True, False], ids=["with its list", "without"])
@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_usage_is_what_a_layer_changes(driver: Maker, kind: str, *, listed: bool) -> None:
    vfs = driver(kind)
    base = committed(vfs, big="x" * 300_000, gone="g" * 50_000, file="f")
    (vfs.tree(base) / "folder").mkdir()
    whole = vfs.usage(base, [])
    assert whole.size >= 350_000
    assert whole.inodes == 4

    box = container(vfs, [base])
    if not listed:
        (vfs.home / "copied" / box.key).write_bytes(b"")
    assert vfs.usage(box, [base]) == Usage(0, 0)
    with mounted(vfs, box) as root:
        (root / "new").write_bytes(os.urandom(100_000))
        os.link(root / "new", root / "folder" / "again")
        (root / "gone").unlink()
    os.sync()
    tree = vfs.tree(box)
    blocks = sum((tree / name).stat().st_blocks for name in ("new", "folder"))
    assert vfs.usage(box, [base]) == Usage(blocks * 512, 2)
    assert vfs.seal(box, [base]) == box.key
    assert vfs.usage(Layer(box.key), [base]) == Usage(blocks * 512, 2)
    (tree / "folder").chmod(0o700)
    os.chown(tree, 1, 1)
    assert vfs.usage(box, [base]).inodes == 3


def test_paths_for_inspect(driver: Maker) -> None:
    vfs = driver()
    base = committed(vfs)
    box = container(vfs, [base])
    assert vfs.graph_data(box, [base]) == {
        "MergedDir": str(vfs.home / "mnt" / box.key),
        "SourceDir": str(vfs.home / "dir" / box.key),
        "UpperDir": str(vfs.home / "dir" / box.key),
    }
    assert vfs.graph_data(base, [])["MergedDir"] == str(vfs.home / "dir" / base.key)


# ---- probing


@pytest.mark.parametrize(
    ("kind", "copy", "expected"),
    [
        ("ext4", "auto", CopyOnWrite.NONE),
        ("xfs", "auto", CopyOnWrite.BLOCK),
        ("btrfs", "reflink", CopyOnWrite.BLOCK),
        ("btrfs", "copy", CopyOnWrite.NONE),
        ("tmpfs", "copy", CopyOnWrite.NONE),
    ],
)
def test_probe_says_what_a_copy_costs(backing: Backing, kind: str, copy: str, expected: CopyOnWrite) -> None:
    folder = backing(kind)
    before = folder.stat().st_mtime_ns
    found = Vfs.probe(folder / "not" / "yet", Settings(copy=copy))
    assert (found.filesystem, found.copy_on_write, found.quota) == (kind, expected, False)
    notes = dict(found.notes)
    assert notes["Backing Filesystem"] == ("extfs" if kind == "ext4" else kind)
    assert notes["Copy"].startswith("reflink" if expected is CopyOnWrite.BLOCK else ("copy_file_range", "read"))
    assert os.listdir(folder) == []
    assert folder.stat().st_mtime_ns == before


def test_reflink_where_it_cannot_be_had(backing: Backing) -> None:
    with pytest.raises(DriverNotSupported, match="cannot share blocks") as caught:
        Vfs.probe(backing("ext4"), Settings(copy="reflink"))
    assert caught.value.remedy


def test_filesystem_without_xattrs() -> None:
    with pytest.raises(DriverNotSupported) as caught:
        Vfs.probe(Path("/proc/layerstore"), Settings())
    assert caught.value.errno is not None


def test_ordinary_user(backing: Backing) -> None:
    folder = backing("ext4")
    folder.chmod(0o777)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setresuid(65534, 65534, 65534)
            Vfs.probe(folder, Settings())
        except DriverNotSupported as error:
            code = 0 if error.remedy and "root" in error.remedy else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.listdir(folder) == []


@pytest.mark.parametrize("option", ["copy=clone", "threads=0", "threads=many", "size=10G"])
def test_options_that_do_not_exist(data_root: Path, option: str) -> None:
    with pytest.raises(ConfigError):
        layerstore.open(data_root, storage_driver="vfs", storage_opts=[f"vfs.{option}"])
    assert not data_root.exists()


# ---- in a store


@pytest.fixture(params=["ext4", "xfs"])
def store(backing: Backing, request: pytest.FixtureRequest) -> Iterator[Store]:
    folder = backing(request.param)
    settings = layerstore.Config(data_root=folder / "store", exec_root=folder / "exec", storage_driver="vfs")
    with layerstore.open(config=settings) as opened:
        yield opened


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


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


def test_life_of_a_container(store: Store) -> None:
    add = Adder(store)
    image = add(BASE, UPPER, name="x")
    for chain, layer in zip(image.chain_ids, (BASE, UPPER), strict=True):
        out = bytearray()
        store.write_layer(chain, out.extend)
        assert bytes(out) == layer
    with store.create_container(image) as box:
        with box.mount() as root:
            assert root.parent.name == "mnt"
            assert (root / "tool").stat().st_mode & 0o7777 == 0o4755
            (root / "etc/new").write_text("n")
            live = box.commit("live")
            (root / "etc/passwd").unlink()
        assert list(map(str, box.changes())) == ["C /etc", "A /etc/new", "D /etc/passwd"]
        made = box.commit("made")
        assert list(box.changes()) == []
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


def test_committed_layer_is_that_of_overlay(store: Store, data_root: Path) -> None:
    """The same edits make the same layer, whatever keeps it."""
    digests = []
    settings = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("e"), storage_driver="overlay2")
    with layerstore.open(config=settings) as other:
        for one in (store, other):
            image = Adder(one)(BASE, UPPER)
            with one.create_container(image) as box:
                with box.mount() as root:
                    (root / "new").mkdir()
                    (root / "new" / "file").write_text("x")
                    os.link(root / "new" / "file", root / "new" / "link")
                    (root / "etc" / "passwd").chmod(0o600)
                    (root / "etc" / "alias").unlink()
                    for path in (root, *root.rglob("*")):
                        os.utime(path, ns=(10**18, 10**18))
                digests.append(box.commit("made").chain_ids)
    assert digests[0] == digests[1]


def test_bad_layer_and_full_disk_leave_no_trace(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("ext4", size=34 << 20)
    settings = layerstore.Config(data_root=folder / "store", exec_root=folder / "exec", storage_driver="vfs")
    big = make.layer(make.file("big", os.urandom(9 << 20)))
    with layerstore.open(config=settings) as opened:
        add = Adder(opened)
        sources = [layerstore.LayerSource(open=lambda data=data: io.BytesIO(data)) for data in (BASE, b"x" * 4096)]
        with pytest.raises(layerstore.InvalidArchive):
            add.images.add(make.config([BASE, b"x" * 4096]), sources)
        image = add(BASE, big, name="big")
        before = set(driver_of(opened).keys())
        opened.create_container(image)
        with pytest.raises(LayerstoreError) as caught:
            opened.create_container(image)
        assert caught.value.errno == errno.ENOSPC
        assert len(set(driver_of(opened).keys()) - before) == len(opened.containers()) == 1
        assert opened.check(content=True) == []
