"""What a program in a container can do to spite its store: with every driver the same comes of it, or a clear error."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from drivers.conftest import driver_of
from drivers.test_alike import FORMS
from layerstore.containers import Container
from layerstore.errors import CannotRepresent
from layerstore.kernel import btrfs
from support import images as make

pytestmark = [pytest.mark.root, pytest.mark.tools("fuse-overlayfs")]

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
IMMUTABLE, APPEND_ONLY = 0x10, 0x20


@contextmanager
def store_of(folder: Path, form: str) -> Iterator[layerstore.Store]:
    settings = layerstore.Config(
        data_root=folder / "store",
        exec_root=folder / "exec",
        storage_driver=form.partition(",")[0],
        storage_opts=FORMS[form],
    )
    with layerstore.open(config=settings) as store:
        yield store


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def folder(backing: Callable[[str], Path], form: str) -> Path:
    return backing("btrfs" if form == "btrfs" else "ext4")


@pytest.fixture
def store(folder: Path, form: str) -> Iterator[layerstore.Store]:
    with store_of(folder, form) as store:
        yield store


@pytest.fixture
def box(store: layerstore.Store) -> Container:
    return store.create_container(Adder(store)(make.layer(make.file("file", "text")), name="x"))


def set_flags(path: Path, flags: int) -> bool:
    """As chattr(1). False where the filesystem has none."""
    fd = os.open(path, os.O_RDONLY)
    try:
        before = struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", before | flags))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return False
    finally:
        os.close(fd)
    return True


def keys(store: layerstore.Store) -> set[str]:
    return set(driver_of(store).keys())


@pytest.mark.parametrize("flags", [IMMUTABLE, APPEND_ONLY], ids=["immutable", "append-only"])
def test_flags_keep_nothing_from_being_removed(
    store: layerstore.Store, folder: Path, form: str, box: Container, flags: int
) -> None:
    before = keys(store) - {box._row.key}
    with box.mount() as root:
        (root / "inner").mkdir()
        (root / "inner" / "new").write_text("x")
        for path in (root / "inner" / "new", root / "inner", root):
            if not set_flags(path, flags):  # fuse-overlayfs passes no such call on: then on what it writes to
                set_flags(driver_of(store).tree(box._row.layer) / path.relative_to(root), flags)
    box.remove()
    assert keys(store) == before
    store.close()
    assert set(os.listdir(folder / "store" / "staging")) <= {".spare"}
    with store_of(folder, form) as again:
        assert again.check() == []


def test_committed_layer_with_an_immutable_root_is_removed(store: layerstore.Store, folder: Path) -> None:
    box = store.create_container()
    with box.mount() as root:
        (root / "new").write_text("x")
    set_flags(driver_of(store).tree(box._row.layer), IMMUTABLE)
    image = box.commit("made")
    with image.mount() as root:
        assert (root / "new").read_text() == "x"
    box.remove()
    image.remove()
    assert keys(store) == set()
    store.close()
    assert set(os.listdir(folder / "store" / "staging")) <= {".spare"}


def test_what_was_written_where_nothing_was_mounted(store: layerstore.Store, folder: Path, box: Container) -> None:
    before = keys(store) - {box._row.key}
    with box.mount() as root:
        place = root
    (place / "folder").mkdir()
    (place / "folder" / "file").write_text("not in the container")
    set_flags(place, APPEND_ONLY)
    box.remove()
    assert keys(store) == before
    assert not place.exists()
    store.close()
    assert set(os.listdir(folder / "store" / "staging")) <= {".spare"}


@pytest.mark.parametrize("form", ["btrfs"])
def test_subvolume_with_an_immutable_root_in_a_container(store: layerstore.Store, folder: Path, box: Container) -> None:
    before = keys(store) - {box._row.key}
    with box.mount() as root:
        (root / "folder").mkdir()
        btrfs.create(root / "folder" / "inner")
        btrfs.create(root / "folder" / "inner" / "more")
        (root / "folder" / "inner" / "more" / "file").write_text("x")
        set_flags(root / "folder" / "inner" / "more", IMMUTABLE)
        set_flags(root / "folder" / "inner", IMMUTABLE)
        set_flags(root, IMMUTABLE)
    box.remove()
    assert keys(store) == before
    store.close()
    assert set(os.listdir(folder / "store" / "staging")) <= {".spare"}


def deepen(root: Path, *, within: str = "folder") -> bool:
    """Make folders in one another until no path leads to the last, as a program does: mkdir, chdir."""
    fd = os.open(root, os.O_RDONLY)
    try:
        for name in (within, *("d" * 200 for _ in range(25))):
            os.mkdir(name, dir_fd=fd)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False  # not on fuse-overlayfs, which is a program that needs paths itself
    finally:
        os.close(fd)
    return True


def test_path_that_is_too_long_for_a_layer(store: layerstore.Store, folder: Path, box: Container, form: str) -> None:
    before = keys(store) - {box._row.key}

    def refuse_all() -> None:
        for act in (box.changes, box.commit, lambda: box.write_changes(sink.write)):
            with pytest.raises(CannotRepresent, match=r"4,095 bytes") as caught:
                act()
            assert caught.value.path is not None
            assert caught.value.path.startswith("/folder/ddd")
            assert caught.value.remedy
        with pytest.raises(CannotRepresent, match=r"4,095 bytes"):
            box.export(sink.write)
        assert box.usage().inodes >= 20

    sink = io.BytesIO()
    with box.mount() as root:
        if not deepen(root):
            assert form == "aufs"
            return
        refuse_all()
    refuse_all()
    with box.mount() as root:
        (root / "folder").rename(root / "f")
        (root / "file").write_text("new")
    with pytest.raises(CannotRepresent):
        box.changes()
    box.remove()
    assert keys(store) == before
    store.close()
    assert set(os.listdir(folder / "store" / "staging")) <= {".spare"}


def test_device_that_means_a_removal(box: Container, form: str) -> None:
    """overlay lets nobody make one, and takes it for a whiteout."""
    with box.mount() as root:
        try:
            os.mknod(root / "null", stat.S_IFCHR | 0o600, os.makedev(0, 0))
        except OSError:
            assert form in ("overlay2", "aufs", "erofs")
            return
        for act in (box.commit, lambda: box.write_changes(io.BytesIO().write), lambda: box.export(io.BytesIO().write)):
            with pytest.raises(CannotRepresent, match=r"/null: .*0/0") as caught:
                act()
            assert caught.value.remedy
    with pytest.raises(CannotRepresent, match=r"/null: .*0/0"):
        box.commit()
    with box.mount() as root:
        (root / "null").unlink()
        os.mknod(root / "zero-block", stat.S_IFBLK | 0o600, os.makedev(0, 0))
    assert list(map(str, box.changes())) == ["A /zero-block"]
    image = box.commit("made")
    with image.mount() as root:
        assert stat.S_ISBLK((root / "zero-block").lstat().st_mode)
