"""The engine on a tree that already holds the parents, as drivers with dependent layers have it; or on an overlay.

Whatever lies in the tree was made by other layers or by a container, and is as hostile as the tar.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from layerstore.changes import compare_trees
from layerstore.driver import Dialect, Mount
from layerstore.errors import InvalidArchive, KernelError
from layerstore.kernel.mounts import attach, unmount
from layerstore.tar import Level, Unpacked, pack, unpack, verify
from layerstore.testing import tars, trees
from layerstore.testing.model import Tree
from layerstore.testing.strategies import posix_acl
from layerstore.testing.tars import Entry, archive, fifo, file, hardlink, opaque, symlink, whiteout
from tar.conftest import Scratch
from tar.engine import Pieces, diff_id, exported
from tar.test_hostile import guarded

pytestmark = pytest.mark.root

Push = Callable[..., Unpacked]


@pytest.fixture
def tree(folder: Path) -> Path:
    """A tree to fill by hand and to unpack onto."""
    path = folder / "tree"
    path.mkdir()
    return path


@pytest.fixture
def push(folder: Path, tree: Path) -> Push:
    """`push(entry, ...)`: unpack a layer of these onto the tree; what was stored has to be exact."""
    numbers = iter(range(1000))

    def unpack_onto(*entries: Entry) -> Unpacked:
        return onto(tree, folder / f"skeleton{next(numbers)}", entries)

    return unpack_onto


def onto(tree: Path, skeleton: Path, entries: Sequence[Entry]) -> Unpacked:
    tar = archive(*entries)
    below = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = unpack(
            Pieces(tar, 1000), tree, dialect=Dialect.MERGED, skeleton=skeleton, expected=diff_id(tar), below=below
        )
    finally:
        os.close(below)
    assert exported(skeleton, tree, diff_id(tar)) == tar
    assert list(verify(skeleton, tree, dialect=Dialect.MERGED, level=Level.CONTENT)) == []
    return done


# --- what lies in the tree -------------------------------------------------------------------------------------------


def outside(canary: Path) -> dict[str, str]:
    """Targets of symbolic links in the parents' tree that would lead out of it."""
    return {"absolute": str(canary), "relative": "../../canary", "far up": "../" * 30 + str(canary).lstrip("/")}


@pytest.mark.parametrize("target", outside(Path("/x")))
@pytest.mark.parametrize(
    "entries",
    [
        [file(b"link/file", b"changed")],
        [file(b"link", b"changed")],
        [tars.folder(b"link", mode=0o711), file(b"link/file", b"changed")],
        [tars.folder(b"link/sub", mode=0o700, uid=5), fifo(b"link/pipe")],
        [symlink(b"link/sub", b"nowhere")],
        [whiteout(b"link/file")],
        [whiteout(b"link")],
        [opaque(b"link")],
        [opaque(b"")],
        [hardlink(b"copy", b"link/file"), hardlink(b"link/copy", b"link/file")],
        [file(b"dir/link/file", b"changed"), whiteout(b"dir/link"), file(b"dir/link/file", b"again")],
        [symlink(b"other", b"link/sub"), file(b"other/link", b"changed"), file(b"other/../file", b"changed")],
    ],
    ids=lambda entries: " ".join(os.fsdecode(entry.name) for entry in entries),
)
def test_a_link_of_the_parents_leads_nowhere_else(entries: list[Entry], target: str, scratch: Scratch) -> None:
    with scratch() as place, guarded(place) as work:
        tree = work / "tree"
        (tree / "dir").mkdir(parents=True)
        for link in (tree / "link", tree / "dir" / "link"):
            link.symlink_to(outside(place / "canary")[target])
        with suppress(InvalidArchive):  # or it is kept within the tree
            onto(tree, work / "skeleton", entries)


OLD: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("old"),
    "fifo": lambda path: os.mkfifo(path),
    "character device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "zero device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, 0),
    "block device": lambda path: os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 200)),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "directory": lambda path: path.mkdir(),
    "full directory": lambda path: (path / "a" / "b").mkdir(parents=True),
}
NEW: dict[str, Entry] = {
    "file": file(b"d/x", b"new", mode=0o640, uid=5, mtime=77),
    "empty file": file(b"d/x", b"", mode=0o4755),
    "symlink": symlink(b"d/x", b"y"),
    "fifo": fifo(b"d/x", mode=0o640),
    "hard link": hardlink(b"d/x", b"source"),
    "directory": tars.folder(b"d/x", mode=0o711, mtime=77),
    "implied directory": file(b"d/x/y", b"new"),
}


def marked(path: Path, flag: str) -> None:
    subprocess.run(["chattr", f"+{flag}", path], check=True)


def replace(old: str, new: str, attribute: str, tree: Path, push: Push) -> dict[str, trees.Entry]:
    """Make `old` at d/x of the parents, with this attribute of chattr(1), then unpack `new` onto it."""
    (tree / "d").mkdir()
    OLD[old](tree / "d" / "x")
    (tree / "source").write_text("source")
    if attribute:
        marked(tree / "d" / "x", attribute)
    os.utime(tree / "d", ns=(5, 5))
    push(NEW[new])
    seen = trees.listing(tree)
    assert seen["d"].mtime_ns == 5
    return seen


@pytest.mark.parametrize(
    ("old", "new"),
    [(old, new) for old in OLD for new in NEW if not (old.endswith(("link", "itself")) and new == "implied directory")],
)
def test_anything_can_take_the_place_of_anything(old: str, new: str, tree: Path, push: Push) -> None:
    seen = replace(old, new, "", tree, push)
    kept = {"d/x/a", "d/x/a/b"} if old == "full directory" and seen["d/x"].type == "folder" else set()
    made = {"d/x/y"} if new == "implied directory" else set()
    assert set(seen) == {"", "d", "d/x", "source", *kept, *made}
    if new == "file":
        entry = seen["d/x"]
        assert (entry.type, entry.size, entry.mode, entry.uid, entry.mtime_ns) == ("file", 3, 0o640, 5, 77)


@pytest.mark.parametrize("attribute", ["i", "a"], ids=["immutable", "append-only"])
@pytest.mark.parametrize("new", NEW)
def test_what_cannot_be_changed_is_replaced_all_the_same(new: str, attribute: str, tree: Path, push: Push) -> None:
    assert "d/x" in replace("file", new, attribute, tree, push)


@pytest.mark.parametrize("new", ["file", "symlink", "hard link"])
def test_a_directory_that_cannot_be_changed_is_replaced_with_all_in_it(new: str, tree: Path, push: Push) -> None:
    assert set(replace("full directory", new, "i", tree, push)) == {"", "d", "d/x", "source"}


def test_a_whiteout_takes_immutable_files_and_deep_trees(tree: Path, push: Push) -> None:
    for name in ("d", "o"):
        here = tree / name
        here.mkdir()
        marks = here / "marked"
        marks.write_text("x")
        marked(marks, "i")
        os.chmod(here, 0)
        fd = os.open(here, os.O_PATH)
        for _ in range(40):  # 40 * 201 bytes: beyond PATH_MAX
            os.mkdir("n" * 200, dir_fd=fd)
            fd, above = os.open("n" * 200, os.O_PATH, dir_fd=fd), fd
            os.close(above)
        os.close(fd)
    push(whiteout(b"d"), opaque(b"o"))
    assert set(trees.listing(tree)) == {"", "o"}


def test_an_immutable_directory_of_the_parents_is_an_error_with_its_path(tree: Path, push: Push) -> None:
    (tree / "d").mkdir()
    marked(tree / "d", "i")
    try:
        with pytest.raises(KernelError) as caught:
            push(file(b"d/x"))
        assert caught.value.path == "/d/x"
    finally:
        subprocess.run(["chattr", "-i", tree / "d"], check=True)


@pytest.mark.parametrize(
    "entries",
    [
        [file(b"a", b"new", mode=0o600)],
        [symlink(b"a", b"x")],
        [whiteout(b"a")],
        [hardlink(b"a", b"c")],
        [tars.folder(b"a", mode=0o700)],
        [hardlink(b"n", b"a"), file(b"a", b"new")],
        [file(b"a", b"1"), file(b"a", b"2")],
    ],
    ids=["file", "symlink", "whiteout", "hard link", "directory", "linked and replaced", "twice"],
)
def test_a_file_is_replaced_by_a_new_inode(entries: list[Entry], tree: Path, push: Push) -> None:
    """Its other names, and who shares its blocks or has it open, keep what they had."""
    (tree / "a").write_text("old")
    (tree / "c").write_text("another")
    os.link(tree / "a", tree / "b")
    os.setxattr(tree / "b", "user.x", b"y")
    os.utime(tree / "b", ns=(5, 5))
    os.chmod(tree / "b", 0o4711)
    before = trees.listing(tree)["b"]
    number = (tree / "b").stat().st_ino
    with open(tree / "b", "rb") as opened:
        push(*entries)
        assert opened.read() == b"old"
    after = trees.listing(tree)["b"]
    assert after == trees.Entry(**{**{name: getattr(before, name) for name in trees.FACTS}, "names": ("b",)})
    assert (tree / "b").stat().st_ino == number
    assert not (tree / "a").exists() or (tree / "a").lstat().st_ino != number


def test_a_directory_becomes_a_file_and_a_directory_again_within_one_layer(tree: Path, push: Push) -> None:
    (tree / "d" / "old").mkdir(parents=True)
    (tree / "d" / "file").write_text("old")
    os.setxattr(tree / "d", "system.posix_acl_default", posix_acl())
    push(file(b"d/new", b"1"), file(b"d", b"now a file"), tars.folder(b"d", mode=0o711), file(b"d/again", b"2"))
    seen = trees.listing(tree)
    assert set(seen) == {"", "d", "d/again"}
    assert (seen["d"].mode, seen["d"].xattrs, seen["d/again"].xattrs) == (0o711, (), ())


def test_a_sticky_directory_with_default_acls_hands_nothing_down_and_stays_as_it_is(tree: Path, push: Push) -> None:
    d = tree / "d"
    d.mkdir()
    os.chown(d, 7, 8)
    os.chmod(d, 0o3777)
    os.setxattr(d, "system.posix_acl_default", posix_acl())
    (d / "theirs").write_text("x")
    os.chown(d / "theirs", 9, 9)
    os.utime(d, ns=(5, 5))
    before = trees.listing(tree)["d"]
    push(file(b"d/theirs", b"new", mode=0o666), tars.folder(b"d/e/f", mode=0o777), fifo(b"d/p", mode=0o666))
    seen = trees.listing(tree)
    assert seen["d"] == before
    for name in ("d/theirs", "d/e", "d/e/f", "d/p"):
        assert (seen[name].gid, seen[name].xattrs) == (0, ())
    assert [seen[name].mode for name in ("d/theirs", "d/e/f", "d/p")] == [0o666, 0o777, 0o666]


@pytest.mark.parametrize("length", [251, 252, 255])
def test_names_of_the_greatest_length_are_replaced_and_removed(length: int, tree: Path, push: Push) -> None:
    name = b"n" * length
    for at in ("replaced", "removed", "linked"):
        (tree / at).mkdir()
        (tree / at / os.fsdecode(name)).write_text("old")
    push(
        file(b"replaced/" + name, b"new"),
        whiteout(b"removed/" + name),
        hardlink(b"linked/copy", b"linked/" + name),
    )
    assert (tree / "replaced" / os.fsdecode(name)).read_bytes() == b"new"
    assert os.listdir(tree / "removed") == []
    assert (tree / "linked" / "copy").read_bytes() == b"old"


def test_a_path_as_long_as_any_is_replaced_and_removed(tree: Path, push: Push) -> None:
    deep = b"/".join([b"d" * 255] * 15 + [b"d" * 240])
    assert len(deep) == 4080
    push(file(deep + b"/f", b"1"), file(deep + b"/g", b"2"), file(deep + b"/" + b"n" * 14, b"3"))
    push(file(deep + b"/f", b"new"), whiteout(deep + b"/g"), hardlink(deep + b"/h", deep + b"/" + b"n" * 14))
    fd = os.open(tree, os.O_RDONLY)
    for part in deep.split(b"/"):
        fd, above = os.open(part, os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    assert sorted(os.listdir(fd)) == ["f", "h", "n" * 14]
    os.close(fd)


# --- each layer is its own copy --------------------------------------------------------------------------------------


def test_each_layer_is_exact_in_its_own_copy(folder: Path) -> None:
    """As vfs and btrfs keep them: what later layers replace is not missed in the copy of an earlier one."""
    layers = [
        [
            tars.folder(b"d", mode=0o750, uid=5, mtime=12_345),
            file(b"d/a", b"first"),
            hardlink(b"d/b", b"d/a"),
            file(b"gone", b"x"),
            symlink(b"l", b"d"),
        ],
        [file(b"l/a", b"second"), whiteout(b"gone"), hardlink(b"copy", b"d/b")],
        [whiteout(b"d"), file(b"d", b"no directory"), file(b"copy", b"third"), hardlink(b"kept", b"l")],
    ]
    model = Tree()
    kept: list[tuple[Path, Path, bytes, dict[str, trees.Entry]]] = []
    for number, entries in enumerate(layers):
        tree, skeleton = folder / f"tree{number}", folder / f"skeleton{number}"
        if kept:
            subprocess.run(["cp", "-a", "--reflink=auto", kept[-1][0], tree], check=True)
        else:
            tree.mkdir()
        onto(tree, skeleton, entries)
        model.apply(entries)
        seen = trees.listing(tree)
        trees.assert_same(model.listing(seen), seen)
        kept.append((tree, skeleton, archive(*entries), seen))
    for tree, skeleton, tar, seen in kept:
        trees.assert_same(seen, trees.listing(tree))
        assert exported(skeleton, tree, diff_id(tar)) == tar
        assert list(verify(skeleton, tree, dialect=Dialect.MERGED, level=Level.CONTENT)) == []


# --- onto an overlay -------------------------------------------------------------------------------------------------


@pytest.fixture
def container(folder: Path) -> Iterator[Callable[[str], Path]]:
    """`container("a")`: a writable overlay on the folder `lower`, mounted."""
    mounted: list[Path] = []

    def mount(name: str) -> Path:
        merged, upper, work = (folder / name / part for part in ("merged", "upper", "work"))
        for path in (merged, upper, work):
            path.mkdir(parents=True)
        lower = folder / "lower"
        os.chmod(upper, lower.stat().st_mode & 0o7777)
        options = (("lowerdir+", str(lower)), ("upperdir", str(upper)), ("workdir", str(work)))
        attach([Mount("overlay", "overlay", options, read_only=False)], merged)
        mounted.append(merged)
        return merged

    yield mount
    for path in mounted:
        unmount(path)


def fill(lower: Path) -> None:
    """The image below."""
    for path in ("dir/sub/deep", "moved/sub", "emptied", "opened", "usr/bin", "acl"):
        (lower / path).mkdir(parents=True)
    for path in (
        "dir/a",
        "dir/sub/b",
        "dir/sub/deep/c",
        "moved/m",
        "moved/sub/n",
        "emptied/e",
        "opened/o",
        "usr/bin/t",
    ):
        (lower / path).write_text(f"lower {path}")
    (lower / "bin").symlink_to("usr/bin")
    os.link(lower / "dir" / "a", lower / "linked")
    (lower / "sparse").write_text("x")
    os.truncate(lower / "sparse", 100_000)
    os.mkfifo(lower / "pipe")
    os.setxattr(lower / "acl", "system.posix_acl_default", posix_acl())
    os.setxattr(lower / "dir", "trusted.note", b"lower")
    for path in sorted(lower.rglob("*")):
        os.utime(path, ns=(10**18 + 1, 10**18 + 1), follow_symlinks=False)


def change(merged: Path) -> None:
    """What a container does."""
    (merged / "dir" / "a").write_text("written")
    os.unlink(merged / "dir" / "sub" / "b")
    subprocess.run(["rm", "-r", merged / "moved"], check=True)
    (merged / "moved").mkdir(mode=0o700)
    (merged / "moved" / "new").write_text("new")
    subprocess.run(["rm", "-r", merged / "emptied"], check=True)
    (merged / "emptied").symlink_to("usr")
    os.unlink(merged / "pipe")
    (merged / "pipe").mkdir()
    (merged / "pipe" / "inside").write_bytes(b"\0" * 5000 + b"x")
    os.chmod(merged / "opened", 0o2775)
    os.chown(merged / "opened" / "o", 5, 6)
    os.chmod(merged / "opened" / "o", 0o4711)
    os.setxattr(merged / "opened" / "o", "user.x", bytes(range(256)))
    os.setxattr(merged / "dir", "trusted.note", b"upper")
    (merged / "acl" / "inherits").write_text("x")
    (merged / "bin" / "through").write_text("x")
    os.link(merged / "usr" / "bin" / "t", merged / "t2")
    os.link(merged / "bin" / "through", merged / "dir" / "through")
    os.mknod(merged / "device", stat.S_IFCHR | 0o640, os.makedev(5, 1))
    os.symlink("../nowhere", merged / "dir" / "dangling")
    (merged / ("n" * 255)).write_text("long")
    os.truncate(merged / "sparse", 50_000)
    os.utime(merged / "dir" / "sub", ns=(7, 8))
    os.utime(merged / "dir" / "a", ns=(-5, -5))
    os.utime(merged / "usr", ns=(9, 10**18 + 999_999_999))
    os.utime(merged, ns=(11, 11))


def test_the_changes_of_a_container_are_exact_on_another_mount(folder: Path, container: Callable[[str], Path]) -> None:
    lower = folder / "lower"
    lower.mkdir()
    fill(lower)
    first = container("first")
    change(first)
    tar = bytearray()
    new, old = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (first, lower))
    try:
        packed = pack(compare_trees(new, old, content=True), new, write=tar.extend)
    finally:
        os.close(new)
        os.close(old)
    second = container("second")
    below = os.open(second, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unpack(
            Pieces(bytes(tar), 4096),
            second,
            dialect=Dialect.MERGED,
            skeleton=folder / "skeleton",
            expected=packed.diff_id,
            below=below,
        )
    finally:
        os.close(below)
    trees.assert_same(trees.listing(first), trees.listing(second))
    assert exported(folder / "skeleton", second, packed.diff_id) == tar
    assert list(verify(folder / "skeleton", second, dialect=Dialect.MERGED, level=Level.CONTENT)) == []
    remounted = trees.listing(second)
    unmount(second)
    upper = folder / "second"
    options = (("lowerdir+", str(lower)), ("upperdir", str(upper / "upper")), ("workdir", str(upper / "work")))
    attach([Mount("overlay", "overlay", options, read_only=False)], second)
    trees.assert_same(remounted, trees.listing(second))


def test_a_hostile_tar_on_an_overlay_stays_in_it(folder: Path, container: Callable[[str], Path]) -> None:
    lower = folder / "lower"
    lower.mkdir()
    fill(lower)
    os.symlink("/", lower / "root")
    before = trees.listing(lower)
    merged = container("first")
    marks = {b"trusted.overlay.opaque": b"y", b"trusted.overlay.redirect": b"/usr", b"user.overlay.opaque": b"y"}
    onto(
        merged,
        folder / "skeleton",
        [
            file(b"root/dir/a", b"through", xattrs={b"trusted.overlay.metacopy": b""}),
            tars.folder(b"dir", xattrs=marks),
            opaque(b"dir/sub"),
            whiteout(b"moved"),
            file(b"moved/new", b"x"),
            hardlink(b"copy", b"usr/bin/t"),
            file(b"usr/bin/t", b"new"),
        ],
    )
    seen = trees.listing(merged)
    assert seen["dir/a"].size == 7
    assert {name for name in seen if name.startswith(("dir", "moved"))} == {
        "dir",
        "dir/a",
        "dir/sub",
        "moved",
        "moved/new",
    }
    assert dict(seen["dir"].xattrs) == {os.fsdecode(name): value for name, value in marks.items()}
    assert (seen["copy"].size, seen["usr/bin/t"].size) == (len("lower usr/bin/t"), 3)
    trees.assert_same(before, trees.listing(lower))
