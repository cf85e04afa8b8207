"""Opening within a root, syncing, copying data and attributes, and what filesystems can."""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.files import (
    Writeback,
    can_reflink,
    clone_file,
    copy_data,
    copy_root_attributes,
    filesystem_type,
    fsync_folder,
    lists_types,
    open_beneath,
    open_tree_root,
    share_data,
    syncfs,
    syncing,
)
from layerstore.kernel.files.descriptors import file_of, plain_file_of
from support.properties import by_day

Backing = Callable[[str], Path]


# ---- opening


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with ways out of it, and a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    tree = tmp_path / "root"
    (tree / "folder").mkdir(parents=True)
    (tree / "file").write_text("inside")
    (tree / "secret").write_text("a file of the same name")
    for name, target in {
        "absolute": str(tmp_path / "secret"),
        "upwards": "../secret",
        "far upwards": "../../../../../../../secret",
        "to a root": "/file",
        "to a folder": "folder/..",
        "by proc": f"/proc/{os.getpid()}/root/{tmp_path}/secret",
        "around": "around",
    }.items():
        (tree / name).symlink_to(target)
    return tree


def read(root: Path, path: str | bytes) -> str:
    beneath = open_tree_root(root)
    try:
        with open(open_beneath(beneath, path, os.O_RDONLY)) as file:
            return file.read()
    finally:
        os.close(beneath)


@pytest.mark.parametrize("path", ["file", "/file", "folder/../file", "../file", "to a root", "to a folder/file"])
def test_paths_are_those_of_the_root(root: Path, path: str) -> None:
    assert read(root, path) == "inside"


@pytest.mark.parametrize("path", ["upwards", "far upwards", "../secret", "../../secret"])
def test_no_way_upwards_leads_out(root: Path, path: str) -> None:
    assert read(root, path) == "a file of the same name"


@pytest.mark.parametrize("path", ["absolute", "by proc", "around", "file/x", "missing"])
def test_what_does_not_lead_to_a_file_inside_is_an_error_with_the_path(root: Path, path: str) -> None:
    with pytest.raises(KernelError, match=path) as caught:
        read(root, path)

    assert caught.value.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


def test_links_of_proc_are_not_followed() -> None:
    beneath = open_tree_root(Path("/proc/self"))
    try:
        with pytest.raises(KernelError) as caught:
            open_beneath(beneath, "root/etc/passwd", os.O_RDONLY)
    finally:
        os.close(beneath)
    assert caught.value.errno == errno.ELOOP


def test_files_are_made_beneath_with_their_mode(root: Path) -> None:
    beneath = open_tree_root(root)
    os.close(open_beneath(beneath, b"folder/\xff", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.close(beneath)

    made = root / "folder" / os.fsdecode(b"\xff")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_descriptors_are_not_inherited(root: Path) -> None:
    beneath = open_tree_root(root)
    opened = open_beneath(beneath, "file", os.O_RDONLY)

    assert not os.get_inheritable(beneath)
    assert not os.get_inheritable(opened)
    os.close(beneath)
    os.close(opened)


# ---- syncing


def test_syncing_takes_a_path_or_a_descriptor(tmp_path: Path) -> None:
    syncfs(tmp_path)
    with open_fd(tmp_path) as fd:
        syncfs(fd)
    fsync_folder(tmp_path)
    with pytest.raises(KernelError, match="syncfs"):
        syncfs(-1)


class open_fd:
    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        self.path, self.flags = path, flags

    def __enter__(self) -> int:
        self.fd = os.open(self.path, self.flags, 0o600)
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


@pytest.mark.root
def test_writeback_syncs_while_it_is_entered(
    backing: Backing, filesystem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writeback, "INTERVAL", 0.01)
    synced: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            return synced.append if name == "ls_sync_filesystem" else getattr(lib, name)

    monkeypatch.setattr(syncing, "lib", Counting())
    before = os.listdir("/proc/self/fd")

    begun = filesystem in ("ext4", "xfs")
    deadline = time.monotonic() + 30
    with Writeback(backing(filesystem)):
        time.sleep(0.1)
        while begun and not synced and time.monotonic() < deadline:
            time.sleep(0.01)

    count = len(synced)
    time.sleep(0.05)
    assert (count > 0) == begun
    assert len(synced) == count, "it goes on after its end"
    assert os.listdir("/proc/self/fd") == before


# ---- what a filesystem is and can


@pytest.mark.root
def test_filesystems_have_the_kernels_names(backing: Backing, filesystem: str) -> None:
    assert filesystem_type(backing(filesystem)) == filesystem


def test_rare_filesystems_have_a_name_or_a_number() -> None:
    assert filesystem_type(Path("/proc")) == "proc"
    assert filesystem_type(Path("/sys/fs/cgroup")).startswith(("0x", "tmpfs", "sysfs"))


@pytest.mark.root
@pytest.mark.parametrize(("kind", "can"), [("ext4", False), ("xfs", True), ("btrfs", True), ("tmpfs", False)])
def test_reflinks_are_tried_and_leave_nothing(backing: Backing, kind: str, can: bool) -> None:  # noqa: FBT001
    folder = backing(kind)

    assert can_reflink(folder) is can
    assert os.listdir(folder) == []


def test_a_folder_that_cannot_be_written_has_no_reflinks() -> None:
    assert not can_reflink(Path("/proc"))


@pytest.mark.root
def test_entries_are_listed_with_their_types(backing: Backing, filesystem: str) -> None:
    assert lists_types(backing(filesystem))


@pytest.mark.root
def test_a_filesystem_without_types_is_known(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("ext4", mkfs=("-O", "^filetype"))
    (folder / "file").touch()

    assert not lists_types(folder)


# ---- copying


def spans(path: Path) -> list[tuple[int, int]]:
    """Where a file has data."""
    found, at, size = [], 0, path.stat().st_size
    with open_fd(path) as fd:
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, at))
    return found


def copy(source: Path, target: Path) -> int:
    with open_fd(source) as old, open_fd(target, os.O_CREAT | os.O_RDWR) as new:
        return copy_data(old, new)


@pytest.mark.root
def test_a_copy_has_the_data_and_the_holes(backing: Backing, filesystem: str) -> None:
    folder = backing(filesystem)
    with (folder / "source").open("wb") as file:
        for at in (1 << 20, 9 << 20, 64 << 20):
            file.seek(at)
            file.write(os.urandom(70_000))
        file.truncate(100 << 20)
    syncfs(folder)

    size = copy(folder / "source", folder / "target")

    assert size == 100 << 20
    assert spans(folder / "target") == spans(folder / "source")
    assert (folder / "target").read_bytes() == (folder / "source").read_bytes()
    assert (folder / "target").stat().st_blocks * 512 < 1 << 20


@pytest.mark.root
def test_a_copy_to_another_filesystem(backing: Backing) -> None:
    source, target = backing("ext4") / "source", backing("tmpfs") / "target"
    source.write_bytes(os.urandom(3_000_001))

    assert copy(source, target) == 3_000_001

    assert target.read_bytes() == source.read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_clone_shares_its_blocks(backing: Backing, kind: str) -> None:
    folder = backing(kind)
    (folder / "source").write_bytes(os.urandom(1 << 20))
    with open_fd(folder / "source") as old, open_fd(folder / "target", os.O_CREAT | os.O_RDWR) as new:
        assert clone_file(old, new)
    syncfs(folder)

    extents = subprocess.run(["filefrag", "-v", folder / "target"], capture_output=True, text=True, check=False).stdout

    assert (folder / "target").read_bytes() == (folder / "source").read_bytes()
    assert not extents or "shared" in extents


@pytest.mark.root
def test_where_nothing_can_be_cloned_the_answer_is_no(backing: Backing) -> None:
    folder = backing("ext4")
    (folder / "source").write_bytes(bytes(4096))

    with open_fd(folder / "source") as old, open_fd(folder / "target", os.O_CREAT | os.O_RDWR) as new:
        assert not clone_file(old, new)
        with pytest.raises(KernelError, match="FICLONE"):
            clone_file(-1, new)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_equal_files_share_their_blocks_and_others_do_not(backing: Backing, kind: str) -> None:
    folder = backing(kind)
    data = os.urandom((17 << 20) + 5000)
    for name, content in (("one", data), ("two", data), ("other", b"x" + data[1:])):
        (folder / name).write_bytes(content)
    syncfs(folder)

    with open_fd(folder / "one") as one, open_fd(folder / "two") as two, open_fd(folder / "other") as other:
        assert share_data(one, two) == len(data)
        assert share_data(one, other) == 0
        with pytest.raises(KernelError, match="FIDEDUPERANGE"):
            share_data(one, -1)
    extents = subprocess.run(["filefrag", "-v", folder / "two"], capture_output=True, text=True, check=False).stdout
    assert not extents or "shared" in extents
    assert (folder / "two").read_bytes() == data
    assert (folder / "other").read_bytes() == b"x" + data[1:]


@pytest.mark.root
def test_where_nothing_can_be_shared_there_is_no_number(backing: Backing) -> None:
    folder = backing("ext4")
    for name in ("one", "two"):
        (folder / name).write_bytes(bytes(4096))

    with open_fd(folder / "one") as one, open_fd(folder / "two") as two:
        assert share_data(one, two) is None


@pytest.mark.root
def test_no_space_for_a_copy_is_an_error(own_filesystem: Callable[..., Path], backing: Backing) -> None:
    source = backing("tmpfs") / "source"
    source.write_bytes(os.urandom(20 << 20))

    with pytest.raises(KernelError) as caught:
        copy(source, own_filesystem("ext4", size=16 << 20) / "target")

    assert caught.value.errno == errno.ENOSPC


@by_day(80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300_000), st.binary(min_size=1, max_size=5_000)), max_size=6),
    st.integers(0, 400_000),
)
def test_any_file_is_copied_exactly(pieces: list[tuple[int, bytes]], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        with source.open("wb") as file:
            for at, piece in pieces:
                file.seek(at)
                file.write(piece)
            file.truncate(max(size, file.tell()))

        assert copy(source, target) == source.stat().st_size
        assert target.read_bytes() == source.read_bytes()


# ---- attributes


@pytest.mark.root
def test_a_root_gets_the_attributes_of_another(backing: Backing, filesystem: str) -> None:
    folder = backing(filesystem)
    source, target = folder / "source", folder / "target"
    source.mkdir()
    target.mkdir()
    os.setxattr(source, "trusted.thing", b"\0value")
    os.setxattr(source, "security.thing", b"")
    for mark in ("opaque", "origin", "impure"):
        os.setxattr(source, f"trusted.overlay.{mark}", b"y")
    os.setxattr(source, "trusted.overlay.overlay.opaque", b"of a program")
    os.chown(source, 1, 70_000)
    source.chmod(0o3751)
    os.utime(source, ns=(1, 1_234_567_890_123_456_789))

    copy_root_attributes(source, target)

    facts = target.stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (1, 70_000, 0o3751)
    assert facts.st_mtime_ns == 1_234_567_890_123_456_789
    assert sorted(os.listxattr(target)) == ["security.thing", "trusted.overlay.overlay.opaque", "trusted.thing"]
    assert os.getxattr(target, "trusted.thing") == b"\0value"


def acl(user: int) -> bytes:
    """rwx for the owner and one more user, as the kernel keeps it (linux/posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, 7, nobody), (0x02, 7, user), (0x04, 5, nobody), (0x10, 7, nobody), (0x20, 5, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_acls_are_those_of_the_source_and_not_inherited_ones(backing: Backing, kind: str) -> None:
    folder = backing(kind)
    source, parent = folder / "source", folder / "parent"
    source.mkdir()
    parent.mkdir()
    parent.chmod(0o2755)
    os.setxattr(parent, "system.posix_acl_default", acl(7))
    target = parent / "target"
    target.mkdir()
    source.chmod(0o750)

    copy_root_attributes(source, target)

    assert [name for name in os.listxattr(target) if "acl" in name.lower()] == []
    assert stat.S_IMODE(target.stat().st_mode) == 0o750

    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        os.setxattr(source, name, acl(9))
    copy_root_attributes(source, target)

    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        assert os.getxattr(target, name) == os.getxattr(source, name)
    assert target.stat().st_mode == source.stat().st_mode


@pytest.mark.root
def test_an_attribute_that_cannot_be_kept_is_an_error_with_the_path(backing: Backing) -> None:
    source, target = backing("xfs"), backing("ext4")
    os.setxattr(source, "trusted.large", bytes(60_000))

    with pytest.raises(KernelError, match=str(target)) as caught:
        copy_root_attributes(source, target)

    assert caught.value.errno == errno.ENOSPC


def test_a_descriptor_that_makes_no_file_is_closed() -> None:
    folder, (reading, writing) = os.open("/", os.O_RDONLY), os.pipe()
    with pytest.raises(IsADirectoryError):
        file_of(folder)
    assert plain_file_of(reading) is None
    for fd in (folder, reading):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    os.close(writing)
