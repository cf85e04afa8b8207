"""Removing trees: all of it, nothing else, whatever it looks like."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.stacks import as_nobody
from layerstore.errors import KernelError
from layerstore.kernel import btrfs
from layerstore.kernel.files import move_away, remove_tree
from layerstore.kernel.mounts import Mount, unmount
from support.properties import by_day

Backing = Callable[[str], Path]
Mounter = Callable[[list[Mount], Path], int]


def make_deep(folder: Path, depth: int, name: str = "d" * 40) -> None:
    """Folders in each other, much deeper than any path can say."""
    here = os.open(folder, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
        if level % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def make_bushy(folder: Path, depth: int) -> None:
    folder.mkdir()
    (folder / "file").touch()
    if depth > 0:
        for name in ("a", "b"):
            make_bushy(folder / name, depth - 1)


def make_all_types(folder: Path) -> None:
    folder.mkdir()
    (folder / "file").write_text("x")
    os.link(folder / "file", folder / "hard link")
    os.mkfifo(folder / "fifo")
    os.symlink("nowhere", folder / "dangling")
    os.symlink("/etc", folder / "to a folder outside")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket"))
    if os.geteuid() == 0:
        os.mknod(folder / "whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))
        os.mknod(folder / "block", stat.S_IFBLK | 0o600, os.makedev(7, 250))


def test_nothing_is_left_of_any_type(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    make_all_types(place / "tree")

    remove_tree(place / "tree")

    assert os.listdir(place) == []
    assert os.path.exists("/etc/passwd")


def test_what_is_not_there_is_removed(place: Path) -> None:
    remove_tree(place / "missing")


def test_a_file_is_a_small_tree(place: Path) -> None:
    (place / "file").touch()

    remove_tree(place / "file")

    assert os.listdir(place) == []


def test_a_symlink_is_removed_and_not_followed(place: Path) -> None:
    (place / "kept").mkdir()
    (place / "kept" / "file").touch()
    (place / "link").symlink_to("kept")
    (place / "tree").mkdir()
    (place / "tree" / "link").symlink_to("../kept")

    remove_tree(place / "link")
    remove_tree(place / "tree")

    assert os.listdir(place) == ["kept"]
    assert os.listdir(place / "kept") == ["file"]


@pytest.mark.root
def test_depth_beyond_any_path_and_any_number_of_descriptors(backing: Backing, filesystem: str) -> None:
    folder = backing(filesystem)
    (folder / "tree").mkdir()
    make_deep(folder / "tree", 5_000)

    remove_tree(folder / "tree")

    assert os.listdir(folder) == []


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_folders_by_any_number_of_threads(place: Path, threads: int) -> None:
    make_bushy(place / "tree", 9)

    remove_tree(place / "tree", threads=threads)

    assert os.listdir(place) == []


def test_a_wide_folder_of_folders(place: Path) -> None:
    tree = place / "tree"
    tree.mkdir()
    for number in range(5_000):
        (tree / str(number)).mkdir()
        (tree / f"{number}.file").touch()

    remove_tree(tree)

    assert os.listdir(place) == []


def test_descriptors_are_given_back(place: Path) -> None:
    before = os.listdir("/proc/self/fd")
    make_bushy(place / "tree", 8)

    remove_tree(place / "tree")

    assert os.listdir("/proc/self/fd") == before


def test_two_threads_of_python_may_remove_the_same_tree(place: Path) -> None:
    make_bushy(place / "tree", 9)
    failures: list[BaseException] = []

    def remove() -> None:
        try:
            remove_tree(place / "tree")
        except KernelError as error:
            failures.append(error)

    threads = [threading.Thread(target=remove) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert os.listdir(place) == []


@pytest.mark.root
def test_modes_that_forbid_it_do_not_stop_an_ordinary_owner(backing: Backing) -> None:
    folder = backing("tmpfs")
    folder.chmod(0o777)

    def build_and_remove() -> list[str]:
        inner = Path("tree/closed/inner")
        inner.mkdir(parents=True)
        (inner / "file").touch()
        for path in (inner, inner.parent, Path("tree")):
            path.chmod(0)
        remove_tree(Path("tree"))
        return os.listdir()

    assert as_nobody(build_and_remove, within=folder) == "[]"


@pytest.mark.root
def test_what_others_own_is_refused_with_the_place(backing: Backing) -> None:
    folder = backing("ext4")
    (folder / "tree" / "folder").mkdir(parents=True)
    (folder / "tree" / "folder" / "file").touch()

    answer = as_nobody(lambda: remove_tree(Path("tree")), within=folder)

    assert "tree/folder/file: " in answer
    assert "needs root" in answer


@pytest.mark.root
@pytest.mark.tools("chattr")
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_immutable_and_append_only_files_go(backing: Backing, kind: str) -> None:
    folder = backing(kind)
    inner = folder / "tree" / "folder"
    inner.mkdir(parents=True)
    (inner / "immutable").touch()
    (inner / "append-only").touch()
    (folder / "tree" / "empty").mkdir()
    for flag, path in [("+i", inner / "immutable"), ("+a", inner / "append-only"), ("+i", folder / "tree" / "empty")]:
        subprocess.run(["chattr", flag, path], check=True)
    subprocess.run(["chattr", "+i", inner], check=True)
    subprocess.run(["chattr", "+a", folder / "tree"], check=True)

    remove_tree(folder / "tree")

    assert os.listdir(folder) == []


@pytest.mark.root
@pytest.mark.tools("btrfs")
def test_nested_subvolumes_go(backing: Backing) -> None:
    folder = backing("btrfs")
    (folder / "tree").mkdir()
    for name in ("tree/outer", "tree/outer/inner"):
        subprocess.run(["btrfs", "-q", "subvolume", "create", folder / name], check=True, stdout=subprocess.DEVNULL)
        (folder / name / "file").touch()

    remove_tree(folder / "tree")

    assert os.listdir(folder) == []


@pytest.mark.root
def test_a_mount_inside_is_not_entered_and_named(backing: Backing, mounted: Mounter) -> None:
    folder = backing("ext4")
    other, inner = folder / "other", folder / "tree" / "a" / "inner"
    for path in (other / "folder", inner):
        path.mkdir(parents=True)
    (other / "folder" / "file").touch()
    (folder / "tree" / "a" / "beside").touch()
    mounted([Mount("bind", str(other))], inner)

    with pytest.raises(KernelError, match=f"{inner}: .*something is mounted there") as caught:
        remove_tree(folder / "tree")

    assert (caught.value.errno, caught.value.path) == (errno.EBUSY, str(inner))
    assert (other / "folder" / "file").exists()
    assert os.listdir(folder / "tree" / "a") == ["inner"], "all else is gone"
    unmount(inner)
    remove_tree(folder / "tree")
    assert os.listdir(folder) == ["other"]


@pytest.mark.root
def test_the_root_of_a_mount_is_not_emptied(backing: Backing, mounted: Mounter) -> None:
    folder = backing("ext4")
    (folder / "other").mkdir()
    (folder / "other" / "file").touch()
    (folder / "tree").mkdir()
    mounted([Mount("bind", str(folder / "other"))], folder / "tree")

    with pytest.raises(KernelError, match="something is mounted there"):
        remove_tree(folder / "tree")

    assert (folder / "other" / "file").exists()


@pytest.mark.root
def test_a_file_that_something_is_mounted_on_is_named(backing: Backing) -> None:
    folder = backing("ext4")
    (folder / "tree").mkdir()
    (folder / "tree" / "file").touch()
    (folder / "other").touch()
    subprocess.run(["mount", "--bind", folder / "other", folder / "tree" / "file"], check=True)

    with pytest.raises(KernelError, match=r"tree/file: .*something is mounted there"):
        remove_tree(folder / "tree")

    subprocess.run(["umount", folder / "tree" / "file"], check=True)


def test_the_place_of_a_failure_far_down_is_cut_at_its_beginning(place: Path) -> None:
    """A place longer than a path can be is given as its end."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    tree = place / "tree"
    tree.mkdir()
    make_deep(tree, 90, "n" * 200)
    here = os.open(tree, os.O_RDONLY)
    for _ in range(90):
        inner = os.open("n" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.mkdir("last", dir_fd=here)
    subprocess.run(["mount", "-t", "tmpfs", "none", "last"], cwd=f"/proc/self/fd/{here}", pass_fds=[here], check=True)

    with pytest.raises(KernelError, match=r"n{200}/last: .*something is mounted there"):
        remove_tree(tree)

    subprocess.run(["umount", "last"], cwd=f"/proc/self/fd/{here}", pass_fds=[here], check=True)
    os.close(here)
    remove_tree(tree)


names = st.binary(min_size=1, max_size=255).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..")
)
trees = st.recursive(
    st.sampled_from(["file", "symlink", "fifo", "empty"]),
    lambda inner: st.dictionaries(names, inner, max_size=6),
    max_leaves=40,
)


def build(place: bytes, tree: object) -> None:
    match tree:
        case "file":
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        case "symlink":
            os.symlink("..", place)
        case "fifo":
            os.mkfifo(place)
        case "empty":
            os.mkdir(place)
        case dict():
            os.mkdir(place)
            for name, inner in tree.items():
                build(place + b"/" + name, inner)


@by_day(60, deadline=None)
@given(trees, st.integers(1, 3))
def test_any_tree_goes_and_what_is_beside_it_stays(tree: object, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build(os.fsencode(folder) + b"/tree", tree)
        (Path(folder) / "beside").touch()

        remove_tree(Path(folder) / "tree", threads=threads)

        assert os.listdir(folder) == ["beside"]


def test_subvolumes_go_read_only_nested_and_all(backing: Callable[[str], Path]) -> None:
    folder = backing("btrfs") / "tree"
    folder.mkdir()
    btrfs.create(folder / "outer")
    btrfs.create(folder / "outer/inner")
    (folder / "outer/inner/file").write_text("x")
    btrfs.snapshot(folder / "outer/inner", folder / "outer/shot", read_only=True)
    (folder / "outer/file").write_text("x")
    btrfs.set_read_only(folder / "outer")
    remove_tree(folder)
    assert not folder.exists()
    btrfs.create(folder)
    btrfs.set_read_only(folder)
    remove_tree(folder)
    assert not folder.exists()


def test_what_is_to_go_is_removed_where_it_is_if_there_is_no_room_for_its_new_name(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "old" / "inner").mkdir(parents=True)
    (place / "file").touch()

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, None, target)

    monkeypatch.setattr(os, "rename", refuse)

    assert move_away(place / "old", place / "new")
    assert move_away(place / "file", place / "new")
    assert os.listdir(place) == []
