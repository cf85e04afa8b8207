"""What a program in a container can do to spite its store: with every driver the same comes of it, or a clear error."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from drivers.test_alike import FORMS
from layerstore.containers import Container
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
    return set(store.layers.driver.layers())


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
                set_flags(store.layers.driver.tree(box._row.key) / path.relative_to(root), flags)
    box.remove()
    assert keys(store) == before
    store.close()
    assert list((folder / "store" / "staging").iterdir()) == []
    with store_of(folder, form) as again:
        assert again.check() == []


def test_committed_layer_with_an_immutable_root_is_removed(store: layerstore.Store, folder: Path) -> None:
    box = store.create_container()
    with box.mount() as root:
        (root / "new").write_text("x")
    set_flags(store.layers.driver.tree(box._row.key), IMMUTABLE)
    image = box.commit("made")
    with image.mount() as root:
        assert (root / "new").read_text() == "x"
    box.remove()
    image.remove()
    assert keys(store) == set()
    store.close()
    assert list((folder / "store" / "staging").iterdir()) == []


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
    assert list((folder / "store" / "staging").iterdir()) == []


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
    assert list((folder / "store" / "staging").iterdir()) == []
