"""Epochs: one for each time that a filesystem is mounted; and that within one each write gives a new time."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.kernel.copying.epoch import epoch_of
from layerstore.kernel.mounts.table import boot_id
from layerstore.testing.filesystems import Filesystems

pytestmark = pytest.mark.root

KEEPERS = ("ext4", "xfs", "btrfs")


def write_through_memory(path: Path) -> None:
    """Read a page that is mapped to be written, and then write to it."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        assert view[0] != ord("!")
        view[0] = ord("!")


def device_of(mountpoint: Path) -> str:
    found = subprocess.run(["findmnt", "-no", "SOURCE", mountpoint], check=True, capture_output=True, text=True)
    return found.stdout.strip()


@pytest.mark.parametrize("kind", KEEPERS)
@pytest.mark.parametrize("synced", [False, True], ids=["dirty", "clean"])
def test_write_through_memory_gives_a_new_time(backing: Callable[[str], Path], kind: str, *, synced: bool) -> None:
    path = backing(kind) / "file"
    path.write_bytes(b"before")
    if synced:
        os.sync()
    old = path.stat().st_ctime_ns
    for _ in range(1_000_000):
        path.with_name("clock").touch()
        if path.with_name("clock").stat().st_ctime_ns > old:
            break
    write_through_memory(path)
    assert path.stat().st_ctime_ns > old


@pytest.mark.parametrize("kind", KEEPERS)
def test_each_mount_of_a_filesystem_is_an_epoch(filesystems: Filesystems, kind: str) -> None:
    mountpoint = filesystems.make(kind, size=300 << 20)
    second = mountpoint.with_name(mountpoint.name + ".second")
    second.mkdir()
    loop = os.open(device_of(mountpoint), os.O_RDONLY)  # or the loop device would go with the mount
    try:
        (mountpoint / "folder").mkdir()
        first = epoch_of(mountpoint)
        assert first is not None
        assert first.startswith(boot_id())
        assert epoch_of(mountpoint / "folder") == first
        if kind == "btrfs":
            subprocess.run(["btrfs", "-q", "subvolume", "create", mountpoint / "inner"], check=True)
            assert epoch_of(mountpoint / "inner") == first

        # Another mount of it, in this namespace or another, is the same epoch, though its device and ID are others.
        subprocess.run(["mount", device_of(mountpoint), second], check=True)
        assert epoch_of(second) == first
        subprocess.run(["umount", second], check=True)
        assert epoch_of(mountpoint) == first

        device = device_of(mountpoint)
        seen = {first}
        for _ in range(3):
            subprocess.run(["umount", mountpoint], check=True)
            subprocess.run(["mount", device, mountpoint], check=True)
            seen.add(epoch_of(mountpoint))
        assert len(seen) == 4
    finally:
        os.close(loop)
        second.rmdir()
        filesystems.drop(mountpoint)


def test_no_epoch_where_times_tell_nothing(backing: Callable[[str], Path]) -> None:
    assert epoch_of(backing("tmpfs")) is None
    assert epoch_of(Path("/proc")) is None
