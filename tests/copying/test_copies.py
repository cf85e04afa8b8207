"""Copies between trees and tars: what arrives, whose it is, and that nothing else is touched."""

from __future__ import annotations

import ctypes
import io
import os
import socket
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerstore.copying import Tree, copy, copy_from_tar, copy_to_tar, writing
from layerstore.errors import CannotCopy, InvalidArchive, KernelError, NotFound
from layerstore.testing import trees

pytestmark = pytest.mark.root

OWNER = (41, 42)
WHEN = 1_700_000_000_123_456_789


@contextmanager
def opened(path: Path) -> Iterator[Tree]:
    fd = os.open(path, os.O_PATH)
    try:
        yield Tree(fd, "in the tree")
    finally:
        os.close(fd)


def copied(source: Path, path: str, target: Path, place: str, *, archive: bool = False, follow: bool = False) -> int:
    with opened(source) as old, opened(target) as new:
        return copy(old, path, new, place, owner=OWNER, archive=archive, follow=follow).size


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with one of each."""
    root = tmp_path / "source"
    (root / "all/folder").mkdir(parents=True)
    (root / "all/file").write_text("content")
    os.link(root / "all/file", root / "all/folder/name")
    os.symlink("/nowhere", root / "all/link")
    os.mkfifo(root / "all/pipe", 0o640)
    os.mknod(root / "all/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "all/sparse").touch()
    os.truncate(root / "all/sparse", 1 << 24)
    (root / "all" / os.fsdecode(b"caf\xe9\n")).write_text("bytes")
    (root / "all/setuid").write_text("s")
    for number, path in enumerate(sorted((root / "all").rglob("*"))):
        if not path.is_symlink():
            os.setxattr(path, "user.note", b"\x00\xff") if path.is_file() and path.stat().st_nlink == 1 else None
        os.chown(path, 100 + number, 7, follow_symlinks=False)
        os.utime(path, ns=(WHEN, WHEN + number), follow_symlinks=False)
    os.chmod(root / "all/setuid", 0o4711)
    os.chmod(root / "all/folder", 0o2775)
    os.utime(root / "all/folder", ns=(WHEN, WHEN))
    return root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty tree."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def test_archive_is_the_same_to_the_last_bit(source: Path, target: Path) -> None:
    copied(source, "all", target, "all", archive=True)
    assert trees.differences(trees.listing(source / "all"), trees.listing(target / "all")) == []
    assert os.stat(target / "all/file").st_ino == os.stat(target / "all/folder/name").st_ino
    assert os.stat(target / "all/sparse").st_blocks == 0


def test_copy_has_contents_modes_and_times_and_belongs_to_its_maker(source: Path, target: Path) -> None:
    size = copied(source, "all", target, "copy")
    assert size == sum(path.stat().st_size for path in (source / "all").rglob("*") if path.is_file()) - len("content")
    for path in (target / "copy").rglob("*"):
        facts, before = path.lstat(), (source / "all" / path.relative_to(target / "copy")).lstat()
        assert (facts.st_uid, facts.st_gid) == OWNER
        assert facts.st_mtime_ns == before.st_mtime_ns
        assert facts.st_mode == before.st_mode & ~0o6000
        assert os.listxattr(path, follow_symlinks=False) == []
    assert not os.path.lexists(target / "copy/null")


def test_what_cannot_be_copied_is_told(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source / "all/folder")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with opened(source) as old, opened(target) as new:
            done = copy(old, "all", new, "/", owner=OWNER, archive=False, follow=False)
            assert done.notices == (
                "left out, for it is a socket: all/folder/socket",
                "left out, for it is a device: all/null",
            )
            assert done.entries == len(list((target / "all").rglob("*"))) + 1
            assert len(copy_to_tar(old, "all", io.BytesIO(), follow=False).notices) == 1


def test_folder_that_is_there_keeps_what_it_is(source: Path, target: Path) -> None:
    (target / "there/folder").mkdir(parents=True)
    (target / "there/folder/other").write_text("stays")
    os.chmod(target / "there", 0o1777)
    before = os.stat(target / "there").st_mode
    copied(source, "all/.", target, "there")
    assert os.stat(target / "there").st_mode == before
    assert stat.S_IMODE(os.stat(target / "there/folder").st_mode) == 0o755
    assert sorted(os.listdir(target / "there/folder")) == ["name", "other"]
    copied(source, "all/.", target, "there", archive=True)
    assert os.stat(target / "there").st_mode == os.stat(source / "all").st_mode
    assert stat.S_IMODE(os.stat(target / "there/folder").st_mode) == 0o2775


def test_file_takes_the_place_of_a_file_whole_and_no_folder_goes(source: Path, target: Path) -> None:
    (target / "file").write_text("old")
    (target / "held").hardlink_to(target / "file")
    copied(source, "all/file", target, "file")
    assert ((target / "file").read_text(), (target / "held").read_text()) == ("content", "old")
    (target / "all/file").mkdir(parents=True)
    with pytest.raises(CannotCopy, match="cannot overwrite directory all/file"):
        copied(source, "all", target, "/")
    (target / "folder").write_text("a file")
    with pytest.raises(CannotCopy, match="cannot overwrite non-directory folder"):
        copied(source, "all/.", target, "/")
    assert [name for name in os.listdir(target) if name.startswith(".layerstore-")] == []


def test_link_is_copied_or_what_it_leads_to_under_its_name(source: Path, target: Path) -> None:
    os.symlink("all/file", source / "way")
    copied(source, "way", target, "/")
    assert os.readlink(target / "way") == "all/file"
    copied(source, "way", target, "/", follow=True)
    assert (target / "way").read_text() == "content"
    assert not (target / "way").is_symlink()
    out = io.BytesIO()
    with opened(source) as tree:
        copy_to_tar(tree, "way", out, follow=True)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert tar.getnames() == ["way"]


# --- tars


def test_tar_out_and_in_is_the_same_to_the_last_bit(source: Path, target: Path) -> None:
    out = io.BytesIO()
    with opened(source) as tree:
        copy_to_tar(tree, "all", out, follow=False)
    out.seek(0)
    with opened(target) as tree:
        done = copy_from_tar(out, tree, "/", archive=False)
    expected = trees.listing(source / "all")
    assert trees.differences(expected, trees.listing(target / "all")) == []
    assert done.entries == len(list((source / "all").rglob("*"))) + 1


def test_tar_of_contents_has_no_folder_around_them(source: Path) -> None:
    out = io.BytesIO()
    with opened(source) as tree:
        copy_to_tar(tree, "all/folder/.", out, follow=False)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert [name.rstrip("/") for name in tar.getnames()] == [".", "name"]


def tar_of(*members: tuple[str, bytes, str], compression: str = "") -> io.BytesIO:
    """A tar of names, types, and targets of links or contents of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as tar:  # type: ignore[call-overload]
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
            else:
                info.linkname = text
                tar.addfile(info)
    out.seek(0)
    return out


def unpacked(stream: io.BytesIO, target: Path, place: str = "/") -> None:
    with opened(target) as tree:
        copy_from_tar(stream, tree, place, archive=False)


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_tar_may_be_compressed_and_leave_folders_out(target: Path, compression: str) -> None:
    unpacked(
        tar_of(("a/b/file", tarfile.REGTYPE, "x"), (".wh.kept", tarfile.REGTYPE, "k"), compression=compression), target
    )
    assert (target / "a/b/file").read_text() == "x"
    assert (target / ".wh.kept").read_text() == "k"
    assert stat.S_IMODE(os.stat(target / "a").st_mode) == 0o755


def test_tar_needs_a_folder(target: Path) -> None:
    (target / "file").touch()
    for place in ("file", "nothing"):
        with pytest.raises(CannotCopy, match="must be a directory"):
            unpacked(tar_of(), target, place)


@pytest.mark.parametrize("content", [b"", b"no tar at all", b"\x1f\x8b\x08\x00", b"\x00" * 100])
def test_what_is_no_tar_is_told(target: Path, content: bytes) -> None:
    with pytest.raises(InvalidArchive):
        unpacked(io.BytesIO(content), target)


def test_tar_that_is_cut_short_is_told(target: Path) -> None:
    whole = tar_of(("file", tarfile.REGTYPE, "x" * 5000)).getvalue()
    with pytest.raises(InvalidArchive):
        unpacked(io.BytesIO(whole[:2000]), target)
    assert os.listdir(target) == []


# --- hostile


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder that no copy may touch."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("secret")
    os.chmod(tmp_path / "host/secret", 0o600)
    return tmp_path / "host"


@pytest.mark.parametrize(
    "members",
    [
        [("../host/new", tarfile.REGTYPE, "x")],
        [("a/../../host/new", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, "HOST"), ("link/new", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, "../host"), ("link/new", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, "HOST/secret"), ("link", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, "HOST/secret"), ("hard", tarfile.LNKTYPE, "link"), ("hard", tarfile.REGTYPE, "x")],
        [("hard", tarfile.LNKTYPE, "../host/secret")],
        [("link", tarfile.SYMTYPE, "HOST"), ("hard", tarfile.LNKTYPE, "link/secret")],
        [("link", tarfile.SYMTYPE, "HOST"), ("link", tarfile.DIRTYPE, "")],
        [("link", tarfile.SYMTYPE, "HOST/secret"), ("link", tarfile.FIFOTYPE, "")],
    ],
)
def test_no_entry_of_a_tar_leaves_the_tree(host: Path, target: Path, members: list[tuple[str, bytes, str]]) -> None:
    before = trees.listing(host)
    placed = [(name, kind, text.replace("HOST", str(host))) for name, kind, text in members]
    try:
        unpacked(tar_of(*placed), target)
    except (InvalidArchive, CannotCopy, KernelError):
        pass
    assert trees.listing(host) == before
    for path in target.rglob("*"):
        assert path.is_symlink() or not path.is_file() or path.read_text() != "secret"


def test_links_of_the_tree_lead_within_it(host: Path, target: Path) -> None:
    """As a container with /lib -> /usr/lib has them, and one that is made to look for the host's files."""
    (target / "usr/lib").mkdir(parents=True)
    os.symlink("/usr/lib", target / "lib")
    os.symlink(str(host), target / "out")
    unpacked(tar_of(("lib/new", tarfile.REGTYPE, "x")), target)
    assert (target / "usr/lib/new").read_text() == "x"
    with pytest.raises(KernelError):
        unpacked(tar_of(("out/new", tarfile.REGTYPE, "x")), target)
    assert os.listdir(host) == ["secret"]


def test_copy_into_a_folder_that_is_a_link_does_not_follow_it(host: Path, source: Path, target: Path) -> None:
    (target / "all").mkdir()
    os.symlink(str(host), target / "all/folder")
    with pytest.raises(CannotCopy):
        copied(source, "all", target, "/")
    os.symlink(str(host / "secret"), target / "file")
    with pytest.raises(CannotCopy, match="there is no directory"):  # where the link leads within the tree
        copied(source, "all/file", target, "file")
    assert (host / "secret").read_text() == "secret"
    assert os.listdir(host) == ["secret"]


def racing(deed: Callable[[], object], seconds: float) -> threading.Event:
    """Do something again and again in a thread, until the event that is returned is set."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            deed()

    threading.Thread(target=run, daemon=True).start()
    timer = threading.Timer(seconds, over.set)
    timer.daemon = True
    timer.start()
    return over


def test_races_of_a_container_reach_nothing_of_the_host(host: Path, source: Path, target: Path, tmp_path: Path) -> None:
    """A folder of the container is one moment a folder, and the next a link to the host's."""
    (target / "flip/all").mkdir(parents=True)
    (target / "flip/secret").write_text("harmless")
    os.symlink(str(host), target / "link")
    (host / "all").mkdir()
    before = trees.listing(host)
    outside = tmp_path / "outside"
    outside.mkdir()

    exchange = ctypes.CDLL(None, use_errno=True).renameat2
    names = os.fsencode(target / "flip"), os.fsencode(target / "link")

    def flip() -> None:
        assert exchange(-100, names[0], -100, names[1], 2) == 0  # RENAME_EXCHANGE

    over = racing(flip, 2.0)
    taken, put = 0, 0
    while not over.is_set():
        for deed in (
            lambda: copied(target, "flip/secret", outside, "got", follow=True),
            lambda: copied(target, "flip", outside, "tree", follow=False),
            lambda: copied(source, "all/file", target, "flip/new"),
            lambda: copied(source, "all/.", target, "flip/all", archive=True),
            lambda: unpacked(tar_of(("flip/all/deep/x", tarfile.REGTYPE, "x")), target),
        ):
            try:
                deed()
                put += 1
            except (CannotCopy, KernelError, NotFound):
                taken += 1
    assert put
    assert taken
    assert trees.listing(host) == before
    assert not [path for path in outside.rglob("*") if path.is_file() and path.read_text() == "secret"]


def test_name_that_becomes_a_link_while_it_is_made_changes_nothing_elsewhere(host: Path, target: Path) -> None:
    """A pipe gets its mode under a name that a program may have made a link meanwhile."""
    made = os.mknod

    def then_a_link(name: str, *args: int, dir_fd: int) -> None:
        made(name, *args, dir_fd=dir_fd)
        os.unlink(name, dir_fd=dir_fd)
        os.symlink(str(host / "secret"), name, dir_fd=dir_fd)

    before = trees.listing(host)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing.os, "mknod", then_a_link)
        unpacked(tar_of(("pipe", tarfile.FIFOTYPE, "")), target)
    assert trees.listing(host) == before


@pytest.mark.parametrize("name", ["sub/pipe", f"sub/{'n' * 256}"])
def test_what_is_refused_is_told_of_the_entry(target: Path, name: str) -> None:
    """Not of the descriptor, or of the name that it has until it is whole."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type = tarfile.FIFOTYPE
        info.pax_headers = {"SCHILY.xattr.user.note": "no pipe can have one"}
        tar.addfile(info)
    out.seek(0)
    with pytest.raises(KernelError) as caught:
        unpacked(out, target)
    assert caught.value.path == name
    assert os.listdir(target / "sub") == []


def test_tree_deeper_than_there_are_descriptors_says_so(source: Path, target: Path) -> None:
    import resource

    fd = os.open(source / "all", os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with pytest.raises(KernelError) as caught:
            copied(source, "all", target, "all")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "raise the limit" in str(caught.value.remedy)
    copied(source, "all", target, "again")
