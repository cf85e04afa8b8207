"""From a container's changes to a layer's tar and back: nothing is lost, nothing added, and it is the same each time.

A container is made on a stack, edited through a real overlay mount by a random script, and packed. The tar, unpacked on
the same stack, has to show what the container showed; and it has to be the same tar whether the changes were found by
the upper directory or by comparing two plain copies of the trees.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from layerstore.changes import Change, Changes, Kind, compare_trees, make_exact, overlay_changes
from layerstore.driver import Dialect, Mount
from layerstore.errors import CannotRepresent, LayerstoreError
from layerstore.kernel.mounts import detached
from layerstore.tar import Packed, pack, pack_tree
from layerstore.testing import strategies, tars, trees
from layerstore.testing.strategies import capability, posix_acl
from layerstore.testing.tars import archive, file, folder, hardlink, symlink
from support.properties import by_day
from tar.conftest import Scratch
from tar.engine import Stack, diff_id, exported, overlay

pytestmark = pytest.mark.root


class Container:
    """A writable layer on a stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.upper = stack.folder / "upper"
        self.work = stack.folder / "work"
        self.upper.mkdir()
        self.work.mkdir()
        with stack.below() as below:
            # As the driver does it: the root of a container looks as that of its image.
            facts = os.stat(below)
            for name in os.listxattr(below):
                os.setxattr(self.upper, name.replace("overlay.", "overlay.overlay.", 1), os.getxattr(below, name))
        os.chown(self.upper, facts.st_uid, facts.st_gid)
        os.chmod(self.upper, facts.st_mode & 0o7777)
        os.utime(self.upper, ns=(facts.st_mtime_ns, facts.st_mtime_ns))

    @property
    def lower(self) -> list[Path]:
        return [layer.tree for layer in self.stack.visible()]

    @contextmanager
    def writable(self) -> Iterator[Path]:
        """The tree, to be changed."""
        options = [("lowerdir+", str(tree)) for tree in [*self.lower, self.stack.folder / "empty"]]
        options += [("upperdir", str(self.upper)), ("workdir", str(self.work))]
        with detached([Mount("overlay", "overlay", tuple(options))]) as tree:
            yield Path(f"/proc/self/fd/{tree}")

    @contextmanager
    def merged(self) -> Iterator[int]:
        """The tree, to be looked at."""
        with detached(overlay([self.upper, *self.lower], self.stack.folder / "empty")) as tree:
            yield tree

    def listing(self) -> dict[str, trees.Entry]:
        with self.merged() as tree:
            return trees.listing(f"/proc/self/fd/{tree}/")

    @contextmanager
    def opened(self) -> Iterator[tuple[int, int, int]]:
        """Upper, merged and lower as directory descriptors."""
        upper = os.open(self.upper, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self.merged() as merged, self.stack.below() as lower:
                yield upper, merged, lower
        finally:
            os.close(upper)

    def changes(self) -> Changes:
        with self.opened() as descriptors:
            return overlay_changes(*descriptors)

    def packed(self, skeleton: Path | None = None) -> tuple[Packed, bytes]:
        collected = bytearray()
        with self.opened() as (upper, merged, lower):
            packed = pack(overlay_changes(upper, merged, lower), merged, skeleton=skeleton, write=collected.extend)
        return packed, bytes(collected)


LOWER = [
    folder(b"./", mode=0o751, mtime=10**18),
    folder(b"d", mode=0o750, uid=5, gid=6, mtime=10**18 + 1, xattrs={b"user.x": b"y"}),
    file(b"d/f", b"content", mode=0o640, uid=7, xattrs={b"user.a": b"1"}),
    file(b"d/setuid", b"#!", mode=0o4755, xattrs={b"security.capability": capability()}),
    folder(b"d/sub", mode=0o700),
    file(b"d/sub/deep", b"deep"),
    file(b"one", b"linked"),
    hardlink(b"two", b"one"),
    symlink(b"l", b"d/f", uid=3),
    file(b"big", b"0123456789" * 2000),
    tars.fifo(b"pipe"),
    tars.char(b"null", 1, 3, mode=0o666),
]


@pytest.fixture
def container(folder: Path) -> Container:
    stack = Stack(folder / "stack", Dialect.OVERLAY)
    stack.push(archive(*LOWER))
    return Container(stack)


Edit = Callable[[Path], object]


def after(container: Container, *edits: Edit) -> list[str]:
    """What `layerstore diff` prints after these edits."""
    with container.writable() as root:
        for edit in edits:
            edit(root)
    return [str(change) for change in container.changes()]


# --- what a change is ------------------------------------------------------------------------------------------------


def test_nothing_is_no_change(container: Container) -> None:
    assert after(container) == []


def test_reading_is_no_change(container: Container) -> None:
    assert after(container, lambda root: (root / "d/f").read_bytes(), lambda root: list(root.rglob("*"))) == []


EDITS: dict[str, tuple[Edit, list[str]]] = {
    "a new file": (lambda root: (root / "d/new").write_text("x"), ["C /d", "A /d/new"]),
    "a new file at the root": (lambda root: (root / "new").write_text("x"), ["A /new"]),
    "a new directory": (lambda root: (root / "e/f/g").mkdir(parents=True), ["A /e", "A /e/f", "A /e/f/g"]),
    "other content": (lambda root: (root / "d/f").write_text("other"), ["C /d", "C /d/f"]),
    "more content": (lambda root: append(root / "d/f"), ["C /d", "C /d/f"]),
    "another mode": (lambda root: (root / "d/f").chmod(0o600), ["C /d", "C /d/f"]),
    "another mode of a directory": (lambda root: (root / "d/sub").chmod(0o711), ["C /d", "C /d/sub"]),
    "another owner": (lambda root: os.chown(root / "d/f", 9, 9), ["C /d", "C /d/f"]),
    "another owner of a link": (lambda root: os.chown(root / "l", 9, 9, follow_symlinks=False), ["C /l"]),
    "another xattr": (lambda root: os.setxattr(root / "d/f", "user.a", b"2"), ["C /d", "C /d/f"]),
    "one xattr less": (lambda root: os.removexattr(root / "d/f", "user.a"), ["C /d", "C /d/f"]),
    "an ACL": (
        lambda root: os.setxattr(root / "d/sub", "system.posix_acl_default", posix_acl()),
        ["C /d", "C /d/sub"],
    ),
    "another time": (lambda root: os.utime(root / "d/f", ns=(1, 1)), ["C /d", "C /d/f"]),
    "a nanosecond": (lambda root: tick(root / "d/f"), ["C /d", "C /d/f"]),
    "a removed file": (lambda root: (root / "d/f").unlink(), ["C /d", "D /d/f"]),
    "a removed directory": (lambda root: shutil.rmtree(root / "d"), ["D /d"]),
    "a removed link": (lambda root: (root / "l").unlink(), ["D /l"]),
    "a renamed file": (lambda root: (root / "d/f").rename(root / "d/g"), ["C /d", "D /d/f", "A /d/g"]),
    "made and removed": (lambda root: make_and_remove(root / "x"), []),
    "another target": (lambda root: relink(root / "l", "elsewhere"), ["C /l"]),
    "a file instead of a directory": (lambda root: refile(root / "d"), ["C /d"]),
    "a directory instead of a file": (lambda root: redirectory(root / "big"), ["C /big", "A /big/new"]),
    "an empty directory instead of a full one": (
        lambda root: remake(root / "d", root, 1),
        ["C /d", "D /d/f", "D /d/setuid", "D /d/sub"],
    ),
    "opened for writing and left": (lambda root: (root / "d/f").open("r+b").close(), []),
    "changed and changed back": (lambda root: back_again(root / "d/f"), []),
    "changed and changed back, a directory": (lambda root: there_and_back(root / "d"), []),
    "another device": (lambda root: renode(root / "null"), ["C /null"]),
    "a new name for a file": (lambda root: os.link(root / "big", root / "bigger"), ["C /big", "A /bigger"]),
}


def make_and_remove(path: Path) -> None:
    path.write_text("x")
    path.unlink()


def there_and_back(path: Path) -> None:
    path.chmod(0o700)
    path.chmod(0o750)


def append(path: Path) -> None:
    with path.open("ab") as opened:
        opened.write(b"x")


def tick(path: Path) -> None:
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def refile(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("now a file")


def redirectory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "new").write_text("x")


def renode(path: Path) -> None:
    path.unlink()
    os.mknod(path, 0o020666, os.makedev(1, 5))


def back_again(path: Path) -> None:
    facts = path.stat()
    content = path.read_bytes()
    path.write_bytes(b"other")
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize("case", EDITS)
def test_one_edit_is_these_changes(case: str, container: Container) -> None:
    edit, expected = EDITS[case]
    assert after(container, edit) == expected
    assert_round_trip(container)


def test_content_that_changed_with_the_old_size_and_time_is_found(container: Container) -> None:
    def edit(root: Path) -> None:
        facts = (root / "d/f").stat()
        (root / "d/f").write_text("CONTENT")
        os.utime(root / "d/f", ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert after(container, edit) == ["C /d", "C /d/f"]


# --- there and back --------------------------------------------------------------------------------------------------


def assert_round_trip(container: Container) -> None:
    """Pack, unpack on the same stack: the same tree. And the same tar, however the changes are found."""
    seen = container.listing()
    packed, tar = container.packed()
    assert packed.diff_id == diff_id(tar)
    assert packed.size == len(tar)
    assert container.packed()[1] == tar, "packed twice, two tars"
    assert by_comparison(container) == tar, "another tar by comparing the trees"
    container.stack.push(tar)
    now = container.stack.listing()
    if packed.entries == 0:
        # The time of the root alone is no change: making a file and removing it again would be one.
        seen[""] = evolve(seen[""], mtime_ns=now[""].mtime_ns)
    assert_same_files(seen, now)


def assert_same_files(seen: trees.Tree, now: trees.Tree) -> None:
    """The same trees. Files that were one before the container opened them for writing, and left, may be one again."""
    again = {
        path: evolve(entry, names=now[path].names)
        if path in now and set(entry.names) <= set(now[path].names)
        else entry
        for path, entry in seen.items()
    }
    trees.assert_same(again, now)


def by_comparison(container: Container) -> bytes:
    """The tar made from two plain copies of the trees, as a driver without overlay has them."""
    with container.opened() as (_, merged, lower):
        places = [container.stack.folder / "copy-new", container.stack.folder / "copy-old"]
        for tree, place in zip((merged, lower), places, strict=True):
            subprocess.run(["cp", "-a", f"/proc/self/fd/{tree}/.", place], check=True, pass_fds=[tree])
    new, old = (os.open(place, os.O_RDONLY) for place in places)
    collected = bytearray()
    try:
        pack(compare_trees(new, old, content=True), new, write=collected.extend)
    finally:
        os.close(new)
        os.close(old)
        subprocess.run(["rm", "-rf", *places], check=True)
    return bytes(collected)


@frozen
class Step:
    """One step of a random edit: what is done, to which paths, with what."""

    name: str
    path: str
    other: str
    value: int

    def run(self, root: Path) -> None:
        target = root / self.path
        if self.name in WRITING and target.exists() and not target.is_file():
            return  # a FIFO would wait for a reader, and a device is one of the machine's
        try:
            STEPS[self.name](root / self.path, root / self.other, self.value)
        except OSError:
            # A script is not planned: what cannot be done (a directory over a file, EXDEV) is skipped.
            pass


def run(script: Sequence[Step], root: Path) -> None:
    """Run the steps in a child that sees nothing but the container: a symlink may lead to any path of the host."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chroot(root)
            os.chdir("/")
            for step in script:
                step.run(Path("/"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


WRITING = {"write", "append", "touch"}
TIMES = [0, 1, -1, -1_500_000_000, 10**18, 10**18 + 1, 2**33 * 10**9, 12 * 10**18]
OWNERS = [0, 1000, 65534, 2**21, 2**32 - 2]
MODES = [0o644, 0o755, 0o4755, 0o2750, 0o1777, 0, 0o600]


def write(path: Path, other: Path, value: int) -> None:
    path.write_bytes(bytes([value]) * (value * 37 % 5000))


def remove(path: Path, other: Path, value: int) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_xattrs(path: Path, other: Path, value: int) -> None:
    for name in os.listxattr(path):
        os.removexattr(path, name)


def remake(path: Path, other: Path, value: int) -> None:
    remove(path, other, value)
    path.mkdir(MODES[value % len(MODES)])


STEPS: dict[str, Callable[[Path, Path, int], object]] = {
    "write": write,
    "append": lambda path, other, value: append(path),
    "touch": lambda path, other, value: path.open("r+b").close(),
    "remove": remove,
    "remake": remake,
    "mkdir": lambda path, other, value: path.mkdir(MODES[value % len(MODES)], parents=True),
    "rename": lambda path, other, value: path.rename(other),
    "link": lambda path, other, value: os.link(path, other, follow_symlinks=False),
    "symlink": lambda path, other, value: path.symlink_to(other.name),
    "chmod": lambda path, other, value: path.chmod(MODES[value % len(MODES)]),
    "chown": lambda path, other, value: os.chown(path, OWNERS[value % len(OWNERS)], value, follow_symlinks=False),
    "utime": lambda path, other, value: os.utime(path, ns=(0, TIMES[value % len(TIMES)]), follow_symlinks=False),
    "setxattr": lambda path, other, value: os.setxattr(
        path, f"user.{value % 3}", bytes([value]), follow_symlinks=False
    ),
    "trusted": lambda path, other, value: os.setxattr(path, "trusted.overlay.x", b"y", follow_symlinks=False),
    "capability": lambda path, other, value: os.setxattr(path, "security.capability", capability(value)),
    "acl": lambda path, other, value: os.setxattr(path, "system.posix_acl_access", posix_acl(named_user=value)),
    "default acl": lambda path, other, value: os.setxattr(path, "system.posix_acl_default", posix_acl()),
    "removexattr": remove_xattrs,
    "fifo": lambda path, other, value: os.mkfifo(path, MODES[value % len(MODES)]),
    "device": lambda path, other, value: os.mknod(path, 0o020600, os.makedev(1 + value % 8, value)),
}

PATHS = [
    "",
    "d",
    "d/f",
    "d/setuid",
    "d/sub",
    "d/sub/deep",
    "one",
    "two",
    "l",
    "big",
    "pipe",
    "null",
    "new",
    "new/a",
    "new/a/b",
    "d/new",
    "d/sub/\udcff",
    "d/" + "n" * 200,
    "N" * 200 + "/" + "n" * 255,
    "l/x",
]


@st.composite
def scripts(draw: st.DrawFn) -> list[Step]:
    step = st.builds(
        Step,
        name=st.sampled_from(sorted(STEPS)),
        path=st.sampled_from(PATHS),
        other=st.sampled_from(PATHS[1:]),
        value=st.integers(0, 255),
    )
    return draw(st.lists(step, min_size=1, max_size=25))


@by_day(40, deadline=None)
@given(script=scripts())
def test_any_edits_come_back_as_they_were(script: Sequence[Step], scratch: Scratch) -> None:
    with scratch() as place:
        stack = Stack(place / "stack", Dialect.OVERLAY)
        stack.push(archive(*LOWER))
        container = Container(stack)
        with container.writable() as root:
            run(script, root)
        assert_round_trip(container)


@by_day(40, deadline=None)
@given(layers=strategies.stacks(max_layers=3), script=scripts())
def test_any_edits_of_any_stack(layers: list[strategies.Layer], script: Sequence[Step], scratch: Scratch) -> None:
    with scratch() as place:
        stack = Stack(place / "stack", Dialect.OVERLAY)
        for layer in layers:
            stack.push(layer.tar)
        container = Container(stack)
        paths = sorted(container.listing())
        with container.writable() as root:
            chosen = [
                Step(step.name, paths[(step.value + number) % len(paths)], step.other, step.value)
                for number, step in enumerate(script)
            ]
            run([chosen[number] if number % 2 else step for number, step in enumerate(script)], root)
        assert_round_trip(container)


# --- sealed, instead of copied ---------------------------------------------------------------------------------------


@by_day(40, deadline=None)
@given(script=scripts())
def test_what_is_sealed_is_what_was_packed(script: Sequence[Step], scratch: Scratch) -> None:
    """After `make_exact` the upper directory is itself the layer, and exports the very tar that was hashed."""
    with scratch() as place:
        stack = Stack(place / "stack", Dialect.OVERLAY)
        stack.push(archive(*LOWER))
        container = Container(stack)
        with container.writable() as root:
            run(script, root)
        seen = container.listing()
        skeleton = place / "skeleton"
        packed, tar = container.packed(skeleton)
        if not container.changes().sealable:
            return
        with container.opened() as descriptors:
            make_exact(*descriptors)
        assert_same_files(seen, container.listing())
        assert container.packed()[1] == tar
        assert exported(skeleton, container.upper, packed.diff_id) == tar


# --- what cannot be, and what is left out ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".wh.x", "d/.wh.x", ".wh..wh..opq", ".wh.d/x"])
def test_a_name_that_means_a_removal_is_refused_with_its_path(name: str, container: Container) -> None:
    with container.writable() as root:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    with pytest.raises(CannotRepresent) as caught:
        container.packed()
    assert caught.value.path is not None
    assert ".wh." in caught.value.path


def test_a_socket_is_left_out_and_named(container: Container) -> None:
    with container.writable() as root, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "d/socket"))
    packed, tar = container.packed()
    assert any("d/socket" in notice for notice in packed.notices)
    container.stack.push(tar)
    assert "d/socket" not in container.stack.listing()


def test_marks_of_overlay_and_labels_of_the_host_are_left_out(container: Container) -> None:
    with container.writable() as root:
        (root / "d/f").write_text("other")
        shutil.rmtree(root / "d/sub")
        (root / "d/sub").mkdir()
        os.setxattr(root / "d/f", "security.selinux", b"label")
    _, tar = container.packed()
    assert b"trusted.overlay" not in tar
    assert b"selinux" not in tar


def test_names_that_overlay_keeps_escaped_come_out_plain(container: Container) -> None:
    with container.writable() as root:
        os.setxattr(root / "d/f", "trusted.overlay.opaque", b"y")
    _, tar = container.packed()
    assert b"SCHILY.xattr.trusted.overlay.opaque=y" in tar


def test_links_stay_links(container: Container) -> None:
    with container.writable() as root:
        (root / "a").write_text("linked")
        os.link(root / "a", root / "b")
        os.link(root / "a", root / "d/c")
        (root / "one").write_text("no longer as two")
    _, tar = container.packed()
    container.stack.push(tar)
    seen = container.stack.listing()
    assert seen["a"].names == ("a", "b", "d/c")


def test_a_whole_tree_is_one_tar(container: Container) -> None:
    collected = bytearray()
    with container.merged() as tree:
        seen = trees.listing(f"/proc/self/fd/{tree}/")
        packed = pack_tree(tree, collected.extend)
    other = Stack(container.stack.folder / "other", Dialect.MERGED)
    other.push(bytes(collected))
    assert packed.diff_id == diff_id(bytes(collected))
    trees.assert_same(seen, other.listing())


def test_an_empty_change_is_an_empty_tar(container: Container) -> None:
    assert container.packed()[1] == bytes(1024)


def test_a_removed_file_of_the_longest_name(folder: Path) -> None:
    stack = Stack(folder / "stack", Dialect.OVERLAY)
    stack.push(archive(tars.file(b"n" * 255), tars.file(b"m")))
    container = Container(stack)
    with container.writable() as root:
        (root / ("n" * 255)).unlink()
    assert_round_trip(container)


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error(container: Container) -> None:
    with container.writable() as root:
        (root / "f").write_bytes(b"x" * (4 << 20))

    def shorten(piece: memoryview) -> None:
        os.truncate(container.upper / "f", 1000)

    with container.opened() as (upper, merged, lower):
        changes = overlay_changes(upper, merged, lower)
        with pytest.raises(LayerstoreError) as caught:
            pack(changes, merged, write=shorten)
    assert caught.value.path is not None
    assert caught.value.path.endswith("/f")


def test_a_change_that_is_no_longer_there_is_an_error(container: Container) -> None:
    with container.opened() as (_, merged, _lower), pytest.raises(LayerstoreError):
        pack(Changes.of([Change(Kind.ADDED, "/not/there")]), merged)


def test_changes_are_sorted_and_told_once(container: Container) -> None:
    with container.writable() as root:
        for name in ("z", "a", "d-", "d/z", "d/a", "d!"):
            (root / name).write_text("x")
    paths = [os.fsencode(change.path) for change in container.changes()]
    assert paths == sorted(set(paths))
