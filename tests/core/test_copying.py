"""Copies out of and into containers of a store, under every driver; and that a failed one leaves nothing open."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore.errors import CannotCopy, KernelError, NotFound
from layerstore.store import Store
from layerstore.testing import trees
from support import images as make

pytestmark = pytest.mark.root

LOWER = make.layer(
    make.folder("etc", mode=0o750, uid=3, gid=4),
    make.file("etc/passwd", "root:x:0:0\n", uid=3, xattrs={"user.note": b"lower"}),
    make.file("etc/shadow", "secret", mode=0o4600),
    make.hard_link("etc/alias", "etc/passwd"),
    make.symlink("etc/link", "/etc/passwd"),
    make.device("etc/null", 1, 3),
)
UPPER = make.layer(make.file("etc/group", "root:x:0\n"), make.whiteout("etc/shadow"))


@pytest.mark.tools("fuse-overlayfs")
@pytest.mark.parametrize(
    ("driver", "option"),
    [("overlay2", ""), ("btrfs", ""), ("vfs", ""), ("aufs", "aufs.mode=copy"), ("aufs", "aufs.mode=fuse")],
)
def test_copies_are_the_same_under_every_driver(
    backing: Callable[[str], Path], tmp_path: Path, driver: str, option: str
) -> None:
    folder = backing("btrfs" if driver == "btrfs" else "ext4")
    settings = layerstore.Config(
        data_root=folder / "store",
        exec_root=folder / "exec",
        storage_driver=driver,
        storage_opts=(option,) if option else (),
    )
    with layerstore.open(config=settings) as store:
        image = Adder(store)(LOWER, UPPER, name="x")
        with image.mount() as root:
            expected = trees.listing(root / "etc")
        box = store.create_container(image, name="web")
        for subject, target in ((image, "image"), (box, "container")):
            subject.copy_out("/etc", tmp_path / target, archive=True)
            assert trees.differences(expected, trees.listing(tmp_path / target)) == []
            with pytest.raises(NotFound):
                subject.copy_out("/etc/shadow", tmp_path)
        box.copy_in(tmp_path / "image", "/again", archive=True)
        with box.mount() as root:
            assert trees.differences(expected, trees.listing(root / "again")) == []
            box.copy_in(tmp_path / "image/passwd", "/etc/passwd")
        assert [str(change) for change in box.changes() if change.path.startswith("/etc")] == [
            "C /etc",
            "C /etc/passwd",
        ]
        assert store.check(content=True) == []


def test_failed_copy_leaves_nothing_mounted_or_open(store: Store, tmp_path: Path, full: Path) -> None:
    box = store.create_container(Adder(store)(LOWER))
    (tmp_path / "etc/passwd").mkdir(parents=True)
    (tmp_path / "etc/passwd/deep").touch()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.add(tmp_path / "etc/passwd", "etc/passwd")
    box.copy_out("/etc", tmp_path / "warm")
    out = full.open("wb", buffering=0)
    before = os.listdir("/proc/self/fd")
    errors = []
    for deed in (
        lambda: box.copy_in(tmp_path / "etc", "/"),
        lambda: box.copy_in(io.BytesIO(tar.getvalue()), "/"),
        lambda: box.copy_in(io.BytesIO(tar.getvalue()[:700]), "/"),
        lambda: box.copy_out("/etc", tmp_path),
        lambda: box.copy_out("/etc", out),
        lambda: box.copy_out("/none", tmp_path),
    ):
        with pytest.raises((CannotCopy, KernelError, NotFound, layerstore.InvalidArchive)) as caught:
            deed()
        errors.append(caught)  # which keeps everything that the failed calls had
        assert box.mountpoint is None
    open_now = [name for name in os.listdir("/proc/self/fd") if name not in before]
    targets = [os.readlink(f"/proc/self/fd/{name}") for name in open_now if os.path.lexists(f"/proc/self/fd/{name}")]
    assert targets == []
    out.close()
    box.remove()


def test_container_that_is_copied_from_cannot_be_committed_meanwhile(store: Store, tmp_path: Path) -> None:
    """What is read stays what it is: a copy waits for a commit, and a commit for a copy."""
    box = store.create_container(Adder(store)(LOWER))
    with box.open_tree() as root:
        assert sorted(os.listdir(root)) == ["etc"]
        box.copy_out("/etc/passwd", tmp_path / "passwd")  # beside another reader
    box.commit("made")
    assert (tmp_path / "passwd").read_text() == "root:x:0:0\n"
