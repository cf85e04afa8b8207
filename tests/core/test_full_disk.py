"""A filesystem at 100 %: whatever lists works, and whatever frees does, though freeing takes a little room itself.

What the store has set aside is there for that. `hog` is harsher: another program takes at once whatever becomes free.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest
from attrs import frozen

import layerstore
from layerstore.kernel.mounts import mounts_below, unmount
from support import images as make
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

Run: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

LISTING = (
    ["images"],
    ["ps", "-a"],
    ["inspect", "base:1"],
    ["inspect", "changed"],
    ["history", "base:1"],
    ["mount"],
    ["diff", "changed"],
    ["check"],
    ["info"],
)
FREEING = (
    ["umount", "busy"],
    ["rmi", "base:second"],
    ["rm", "changed"],
    ["rmi", "lone:1"],
    ["rm", "idle"],
    ["prune", "--force"],
    ["prune", "--all", "--force"],
)


@frozen
class Disk:
    """A filesystem, what fills it, and the driver of the store on it."""

    kind: str
    what: str
    driver: str = "overlay2"

    def __str__(self) -> str:
        return f"{self.kind}-{self.what}-{self.driver}"


DISKS = (
    *(Disk(kind, "blocks") for kind in ("ext4", "xfs", "btrfs", "tmpfs")),
    *(Disk(kind, "inodes") for kind in ("ext4", "tmpfs")),
    Disk("btrfs", "blocks", "btrfs"),
    Disk("xfs", "blocks", "vfs"),
)
BY_DAY = (
    Disk("ext4", "blocks"),
    Disk("ext4", "inodes"),
    Disk("btrfs", "blocks", "btrfs"),
    Disk("xfs", "blocks", "vfs"),
)
"""Where each command is a process of its own by day; an open store frees on all."""

_SIZES = {"ext4": 96 << 20, "xfs": 320 << 20, "btrfs": 256 << 20, "tmpfs": 96 << 20}
_FEW = {"ext4": {"mkfs": ("-N", "700")}, "tmpfs": {"options": "nr_inodes=700"}}


class Full:
    """A store of two images and three containers, on a filesystem of its own that `fill` fills to the brim."""

    def __init__(self, disk: Disk, mountpoint: Path, beside: Path) -> None:
        self.what = disk.what
        self.mountpoint = mountpoint
        self.data_root = mountpoint / "store"
        self.settings = beside / "daemon.json"
        values = {"data-root": self.data_root, "exec-root": beside / "exec", "storage-driver": disk.driver}
        self.settings.write_text(json.dumps(values, default=str))
        self._numbers = count()
        self._hog = os.open(mountpoint / "hog", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        layers = [make.layer(make.folder("etc/"), make.file(f"etc/{n}", f"{n}" * 3000)) for n in range(4)]
        with layerstore.open(config=self.settings) as store:
            store.load(make.docker_archive(beside / "base.tar", layers[:2], ("base:1", "base:second")))
            store.load(make.docker_archive(beside / "lone.tar", layers[2:], ("lone:1",)))
            for name in ("busy", "changed", "idle"):
                store.create_container("base:1", name=name)
            with store.container("changed").mount() as root:
                (root / "new").write_text("new")
            store.container("busy").mount(persistent=True)
            leased = layerstore.LayerSource(lambda: io.BytesIO(make.layer(make.file("leased", "l" * 9000))))
            store.add_layer(
                leased, record=lambda tx, layer: store.lease(tx, layer.chain_id, owner="test", name="leased")
            )

    def close(self) -> None:
        """Let the filesystem be unmounted."""
        os.close(self._hog)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The command, in a process of its own."""
        command = [sys.executable, "-m", "layerstore.cli", "--config", self.settings, *args]
        return subprocess.run(command, capture_output=True, text=True)

    def fill(self) -> None:
        """Take what is left: blocks to the last, or inodes."""
        if self.what == "inodes":
            self._until_full(lambda number: (self.mountpoint / f"{number}").touch())
            return
        for size in (1 << 20, 4096, 1):
            self._until_full(lambda _, piece=b"x" * size: os.write(self._hog, piece))
        self._until_full(lambda number: (self.mountpoint / f"{number}").write_bytes(b"y" * 1500))

    def _until_full(self, take: Callable[[int], object]) -> None:
        try:
            for number in self._numbers:
                take(number)
        except OSError:
            pass

    def empty(self) -> None:
        """Give back what `fill` took."""
        os.ftruncate(self._hog, 0)
        for path in self.mountpoint.iterdir():
            if path.is_file():
                path.unlink()

    @property
    def left(self) -> tuple[int, int]:
        """Blocks and inodes that are free."""
        found = os.statvfs(self.mountpoint)
        return found.f_bavail, found.f_favail


@pytest.fixture
def full(request: pytest.FixtureRequest, own_filesystem: Callable[..., Path], tmp_path: Path) -> Iterator[Full]:
    disk: Disk = request.param
    more = _FEW[disk.kind] if disk.what == "inodes" else {}
    made = Full(disk, own_filesystem(disk.kind, size=_SIZES[disk.kind], **more), tmp_path)
    made.fill()
    yield made
    made.close()
    for _, place in mounts_below(made.data_root):
        unmount(place)


def disks(*chosen: Disk) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("full", chosen, ids=str, indirect=True)


@disks(*(DISKS if NIGHTLY else BY_DAY))
def test_full_disk_is_listed_and_emptied_by_fresh_processes(full: Full) -> None:
    assert min(full.left) < 64
    failed = [(args, done.stderr) for args in (*LISTING, *FREEING) if (done := full.run(*args)).returncode]
    assert not failed
    with layerstore.open(config=full.settings) as store:
        assert store.images() == store.containers() == store.check() == []


@disks(*DISKS)
def test_full_disk_is_listed_and_emptied_by_an_open_store(full: Full) -> None:
    with layerstore.open(config=full.settings) as store:
        full.fill()
        assert [image.tags for image in store.images()] == [("lone:1",), ("base:1", "base:second")]
        assert {box.name: box.status for box in store.containers()} == {
            "busy": "mounted",
            "changed": "unmounted",
            "idle": "created",
        }
        assert store.info().mounted == 1
        assert store.check() == []
        assert "/new" in [str(change.path) for change in store.container("changed").changes()]
        [leased] = store.leases("test").values()
        with store.open_layers(leased) as tree:
            assert os.listdir(tree) == ["leased"]
        assert store.end_leases("test", ["leased"]) == [leased]
        full.fill()
        assert store.container("busy").unmount()
        for name in ("changed", "idle"):
            store.container(name).remove()
        store.remove_image("lone:1")
        store.prune(all_images=True, containers=True)
        assert store.images() == store.containers() == store.check() == []


@disks(*[Disk(kind, what) for kind in ("ext4", "tmpfs") for what in ("blocks", "inodes") if NIGHTLY or kind == "tmpfs"])
def test_hog_that_takes_all_that_is_given_up_does_not_lock_anybody_out(full: Full) -> None:
    failed = []
    for args in (*LISTING[::2], *FREEING):
        done = full.run(*args)
        full.fill()
        if done.returncode:
            failed.append((args, done.returncode, done.stderr))
    assert not failed


@disks(Disk("ext4", "blocks"))
def test_reserve_is_made_again_when_there_is_plenty(full: Full) -> None:
    room = full.data_root / "reserve" / "room"
    assert room.stat().st_blocks * 512 == 4 << 20
    assert full.run("rmi", "lone:1").returncode == 0
    assert not room.exists()
    full.empty()
    assert full.run("images").returncode == 0
    assert room.exists()


@disks(Disk("ext4", "blocks"))
def test_what_a_load_cannot_store_is_told_and_leaves_nothing(full: Full, tmp_path: Path) -> None:
    large = make.layer(make.file("large", os.urandom(8 << 20)))
    archive = make.docker_archive(tmp_path / "large.tar", [large], ("large:1",))
    done = full.run("load", "--input", str(archive))
    assert done.returncode
    assert "No space left" in done.stderr
    assert full.run("check").returncode == 0
