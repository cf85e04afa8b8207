"""Mounts that fuse-overlayfs serves, and those that the kernel's aufs would make."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.stacks import Stack, make_stack, servers, wait_until
from layerstore.errors import KernelError
from layerstore.kernel.mounts import AUFS, FUSE_OVERLAYFS, Mount, attach, aufs, detached, fuse, mount_id, unmount

Mounter = Callable[[list[Mount], Path], int]
Backing = Callable[[str], Path]

served = [pytest.mark.root, pytest.mark.tools("fuse-overlayfs")]


def recipe(stack: Stack, *more: tuple[str, str | None], writable: bool = True) -> list[Mount]:
    folders = [("lowerdir+", str(lower)) for lower in stack.lowers]
    if writable:
        folders += [("upperdir", str(stack.upper)), ("workdir", str(stack.work))]
    return [Mount(FUSE_OVERLAYFS, "fuse-overlayfs", (*folders, *more), read_only=not writable)]


def line_of(mountpoint: Path) -> list[str]:
    shown = str(mountpoint).replace("\\", "\\134").replace(" ", "\\040")
    with open("/proc/self/mountinfo") as table:
        return next(line.split() for line in table if line.split()[4] == shown)


class TestFuse:
    pytestmark = served

    def test_a_stack_is_seen_and_written(self, stack: Stack, interface: str, mounted: Mounter) -> None:
        (stack.lowers[0] / ".wh.2").touch()

        identity = mounted(recipe(stack), stack.merged)
        assert mount_id(stack.merged) == identity
        assert sorted(os.listdir(stack.merged)) == ["0", "1", "same"]
        (stack.merged / "new").write_text("hello")
        (stack.merged / "1").unlink()
        unmount(stack.merged)

        assert (stack.upper / "new").read_text() == "hello"
        assert not (stack.merged / "new").exists()

    def test_devices_and_setuid_programs_work_in_it(self, stack: Stack, interface: str, mounted: Mounter) -> None:
        mounted(recipe(stack), stack.merged)

        options = set(line_of(stack.merged)[5].split(","))

        assert options.isdisjoint({"nodev", "nosuid", "ro"})
        assert FUSE_OVERLAYFS in line_of(stack.merged)

    def test_attributes_are_those_of_the_mount(self, stack: Stack, interface: str, mounted: Mounter) -> None:
        mounted(recipe(stack, ("noatime", None), ("nodev", None), ("noexec", None)), stack.merged)

        assert {"rw", "noatime", "nodev", "noexec"} <= set(line_of(stack.merged)[5].split(","))

    def test_a_stack_to_read_refuses_writing(self, stack: Stack, interface: str, mounted: Mounter) -> None:
        mounted(recipe(stack, writable=False), stack.merged)

        assert sorted(os.listdir(stack.merged)) == ["0", "1", "2", "same"]
        with pytest.raises(OSError, match="Read-only"):
            (stack.merged / "new").touch()

    def test_nothing_of_a_layer_is_loaded_into_the_program(
        self, stack: Stack, interface: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (lower, *_) = stack.lowers
        for name in ("libfuse3.so.3", "libc.so.6"):
            (lower / name).write_text("no library")
        # As `LD_LIBRARY_PATH=/opt/lib:$LD_LIBRARY_PATH` leaves it: the empty part is the working directory.
        monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere:")
        with detached([Mount(FUSE_OVERLAYFS, "x", (("lowerdir+", str(lower)),), read_only=True)]) as tree:
            assert "libc.so.6" in os.listdir(tree)

    def test_the_program_ends_with_the_mount(self, stack: Stack, interface: str) -> None:
        before = servers()
        attach(recipe(stack), stack.merged)
        assert len(servers() - before) == 1
        unmount(stack.merged)
        wait_until(lambda: servers() <= before)

        with detached(recipe(stack)) as tree:
            assert "same" in os.listdir(tree)
            assert len(servers() - before) == 1
        wait_until(lambda: servers() <= before)

    def test_names_with_a_comma_and_a_backslash(self, backing: Backing, interface: str, mounted: Mounter) -> None:
        folder = backing("ext4") / "a,b\\c d" / ("x" * 200)
        folder.mkdir(parents=True)
        stack = make_stack(folder, 3)
        for odd in ("lower,0", "lower\\1"):
            (folder / odd).mkdir()
            (folder / odd / f"in {odd}").touch()
        stack = Stack(folder, (folder / "lower,0", folder / "lower\\1", *stack.lowers))

        mounted(recipe(stack), stack.merged)
        (stack.merged / "new").touch()

        assert {"in lower,0", "in lower\\1", "0", "new"} <= set(os.listdir(stack.merged))
        assert (stack.upper / "new").exists()

    def test_a_colon_is_refused_in_words(self, backing: Backing) -> None:
        folder = backing("tmpfs") / "a:b"
        folder.mkdir()
        stack = make_stack(folder, 1)

        with pytest.raises(KernelError, match="cannot take a name with a colon") as caught:
            attach(recipe(stack), stack.merged)

        assert caught.value.errno == errno.EINVAL
        assert mount_id(stack.merged) is None

    @pytest.mark.parametrize("depth", [1, 500])
    def test_any_depth(self, backing: Backing, interface: str, mounted: Mounter, depth: int) -> None:
        stack = make_stack(backing("tmpfs"), depth)

        mounted(recipe(stack), stack.merged)

        assert len(os.listdir(stack.merged)) == depth + 1
        assert (stack.merged / "same").read_text() == "0"

    def test_what_fails_leaves_nothing_and_says_why(self, stack: Stack, interface: str) -> None:
        before = servers()
        missing = stack.folder / "missing"

        with pytest.raises(KernelError, match="No such file") as caught:
            attach(recipe(Stack(stack.folder, (*stack.lowers, missing))), stack.merged)
        assert caught.value.path == str(missing)
        no_work = Mount(FUSE_OVERLAYFS, "x", (("lowerdir+", str(stack.lowers[0])), ("upperdir", str(stack.upper))))
        with pytest.raises(KernelError, match="workdir not specified"):
            attach([no_work], stack.merged)

        assert mount_id(stack.merged) is None
        wait_until(lambda: servers() <= before)

    def test_the_program_may_be_missing(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(stack.folder))

        with pytest.raises(KernelError, match="Install fuse-overlayfs"):
            attach(recipe(stack), stack.merged)

        assert mount_id(stack.merged) is None


def test_layers_are_named_from_the_folder_that_holds_them() -> None:
    mount = Mount(
        FUSE_OVERLAYFS,
        "x",
        (
            ("lowerdir+", "/data/aufs/diff/b"),
            ("lowerdir+", "/data/aufs/diff/a,1"),
            ("upperdir", "/data/aufs/diff/c"),
            ("workdir", "/data/aufs/work/c"),
            ("nodev", None),
            ("fsync", "0"),
        ),
    )

    assert fuse.option_text(mount) == (
        Path("/data/aufs"),
        "lowerdir=diff/b:diff/a\\,1,upperdir=diff/c,workdir=work/c,fsync=0",
    )


def test_a_program_that_path_has_relative_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fuse-overlayfs").touch(0o755)
    monkeypatch.chdir(tmp_path)
    for relative in ("", "."):
        monkeypatch.setenv("PATH", f"{relative}:/nowhere")
        assert fuse.program() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fuse.program() == str(tmp_path / "fuse-overlayfs")


def test_more_layers_than_an_argument_holds_are_refused() -> None:
    lowers = tuple(("lowerdir+", f"/data/{number:032}") for number in range(4000))

    with pytest.raises(KernelError, match="4000 layers") as caught:
        fuse.option_text(Mount(FUSE_OVERLAYFS, "x", lowers, read_only=True))
    assert caught.value.errno == errno.E2BIG
    folder, text = fuse.option_text(Mount(FUSE_OVERLAYFS, "x", lowers[:3000], read_only=True))
    assert (folder, text.count(":")) == (Path("/data"), 2999)


# ---- aufs: what would be asked of the kernel, for there is none here that knows it


OPTIONS: tuple[tuple[str, str | None], ...] = (("dio", None), ("noplink", None), ("xino", "/dev/shm/aufs.xino"))


def test_aufs_takes_its_branches_in_one_call() -> None:
    folders = (("lowerdir+", "/l/b"), ("lowerdir+", "/l/a"), ("upperdir", "/l/c"))

    assert aufs.calls(Mount(AUFS, "none", (*folders, *OPTIONS, ("noatime", None), ("dirperm1", None)))) == [
        (0, b"br:/l/c=rw:/l/b=ro+wh:/l/a=ro+wh,dio,noplink,xino=/dev/shm/aufs.xino,dirperm1")
    ]
    assert aufs.calls(Mount(AUFS, "none", folders[:2], read_only=True)) == [(0, b"br:/l/b=ro+wh:/l/a=ro+wh")]


@pytest.mark.parametrize("length", [10, 64, 300])
def test_aufs_appends_the_branches_that_a_page_has_no_room_for(length: int) -> None:
    names = [f"/{number:0{length}}" for number in range(126)]
    folders = (("upperdir", "/upper"), *(("lowerdir+", name) for name in names))

    (flags, first), *more = aufs.calls(Mount(AUFS, "none", (*folders, *OPTIONS)))

    assert flags == 0
    assert len(first) < 4096
    assert all(call == (aufs.REMOUNT, b"append:" + call[1][7:]) and len(call[1]) < 4096 for call in more)
    branches = first.split(b",")[0][3:].split(b":") + [data[7:] for _, data in more]
    assert branches == [b"/upper=rw", *(name.encode() + b"=ro+wh" for name in names)]
    # As much as fits goes into the first.
    assert not more or len(first) + len(more[0][1]) > 4095


@pytest.mark.parametrize("name", ["/a:b", "/a,b", "/a=b"])
def test_aufs_cannot_take_every_name(name: str) -> None:
    with pytest.raises(KernelError, match="aufs takes no branch with"):
        aufs.calls(Mount(AUFS, "none", (("lowerdir+", name),), read_only=True))


@pytest.mark.root
def test_a_kernel_without_aufs_says_so(stack: Stack, interface: str) -> None:
    with open("/proc/filesystems") as names:
        if any(line.split()[-1] == "aufs" for line in names):
            pytest.skip("this kernel has aufs")
    mount = Mount(AUFS, "none", (("upperdir", str(stack.upper)), ("lowerdir+", str(stack.lowers[0])), *OPTIONS))

    with pytest.raises(KernelError, match="the kernel has no aufs") as caught:
        attach([mount], stack.merged)
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(KernelError, match="the kernel has no aufs"), detached([mount]):
        pass
    assert mount_id(stack.merged) is None
