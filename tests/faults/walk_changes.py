"""changes/ under faults: each way to find out what differs, and what is made of the answer."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from attrs import evolve, frozen

from kernel.wild import Wild
from layerstore.changes import (
    Changes,
    Marks,
    clamp_times,
    compare_copied,
    compare_trees,
    make_exact,
    overlay_changes,
    snapshot_changes,
    stacked_changes,
    write_changes,
)
from layerstore.changes.linked import link_stack
from layerstore.errors import KernelError
from layerstore.kernel import btrfs
from layerstore.kernel.copying import copy_tree
from layerstore.kernel.files import remove_tree
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.kernel.mounts import Mount, mount_id, mounting
from layerstore.testing import trees
from support.faults import Faults, Kind, Outcome

Backing = Callable[[str], Path]
FAULTS = ((Kind.MEMORY, errno.ENOMEM), (Kind.LISTING, errno.EIO))


def lower_tree(folder: Path) -> Path:
    """What the parents show."""
    lower = folder / "lower"
    Wild(lower, random.Random(3)).grow(12)
    for name in ("replaced/inner", "kept/deep", "merged/of/folders"):
        (lower / name).mkdir(parents=True)
        (lower / name / "file").write_text(name)
        os.setxattr(lower / name / "file", "user.one", b"1")
    for name in ("a", "b"):
        (lower / name).write_text("linked")
    os.link(lower / "a", lower / "kept" / "also a")
    os.symlink("somewhere", lower / "symlink")
    return lower


def edit(tree: Path) -> None:
    """As a container might."""
    (tree / "b").unlink()
    (tree / "kept" / "deep" / "file").write_text("altered")
    (tree / "merged" / "of" / "new").mkdir()
    (tree / "merged" / "of" / "new" / "file").write_text("new")
    os.link(tree / "merged" / "of" / "new" / "file", tree / "merged" / "of" / "twice")
    (tree / "a").write_text("altered, under both names")
    os.utime(tree / "symlink", (1, 1), follow_symlinks=False)


@contextmanager
def descriptors(*paths: Path) -> Iterator[list[int]]:
    with ExitStack() as all_of_them:
        yield [all_of_them.enter_context(opened(path, FOLDER)) for path in paths]


def find_under_faults(faults: Faults, find: Callable[[], Changes], *roots: Path, least: int) -> None:
    """Each fault is an error, or was put up with rightly; the answer is never another one."""
    plain = find()

    def named(outcome: Outcome[None]) -> None:
        if isinstance(outcome.error, MemoryError):
            assert outcome.nth == 1  # the list itself, before there is anything to tell of
            return
        assert isinstance(outcome.error, KernelError)
        assert outcome.error.path is not None
        assert any(os.path.lexists(f"{root}{outcome.error.path}") for root in roots), outcome.error

    for kind, number in FAULTS:
        assert faults.walk(kind, number, lambda: None, lambda _: find(), named) >= (least if kind is Kind.MEMORY else 3)
    for kind in (Kind.DATA, Kind.LISTING):
        for outcome in faults.outcomes(kind, errno.EINTR, lambda: None, lambda _: find()):
            assert outcome.result == plain, outcome.error
    for kind in (Kind.DATA, Kind.CALL):
        for outcome in faults.outcomes(kind, errno.EIO, lambda: None, lambda _: find()):
            assert outcome.error is not None or outcome.result == plain
    assert find() == plain


# --- finding out ------------------------------------------------------------------------------------------------------


def test_comparing_trees_under_faults(faults: Faults, backing: Backing) -> None:
    folder = backing("ext4")
    lower, new = lower_tree(folder), folder / "new"
    copy_tree(lower, new)
    edit(new)
    with descriptors(new, lower) as (now, before):
        find_under_faults(faults, lambda: compare_trees(now, before, content=True), new, lower, least=100)
        find_under_faults(faults, lambda: compare_trees(now, None), new, least=50)


def test_comparing_a_copy_under_faults(faults: Faults, backing: Backing) -> None:
    folder = backing("ext4")
    lower, new = lower_tree(folder), folder / "new"
    raw = copy_tree(lower, new).raw
    edit(new)
    with descriptors(new, lower) as (now, before):
        find_under_faults(faults, lambda: compare_copied(now, before, raw), new, lower, least=50)


def test_comparing_a_snapshot_under_faults(faults: Faults, backing: Backing) -> None:
    folder = backing("btrfs")
    btrfs.create(folder / "old")
    lower, old, new = lower_tree(folder), folder / "old", folder / "new"
    copy_tree(lower, old / "tree")
    btrfs.snapshot(old, new)
    since = btrfs.info(new).created
    edit(new / "tree")
    with descriptors(new, old) as (now, before):
        find_under_faults(faults, lambda: snapshot_changes(now, before, since), new, old, least=40)


def test_comparing_several_uppers_under_faults(faults: Faults, backing: Backing) -> None:
    """The second was edited on the first, and has it for a lower directory."""
    folder = backing("ext4")
    first = overlay_upper_of(folder)
    upper, merged = folder / "second", folder / "merged"
    for name in ("second", "work2", "merged"):
        (folder / name).mkdir()
    lowers = (("lowerdir+", str(first)), ("lowerdir+", str(folder / "lower")))
    mounting.attach(
        [Mount("overlay", "overlay", (*lowers, ("upperdir", str(upper)), ("workdir", str(folder / "work2"))))], merged
    )
    (merged / "b").write_text("made anew")
    remove_tree(merged / "merged" / "of" / "new")
    (merged / "kept" / "deep" / "more").touch()
    mounting.unmount(merged)
    mounting.attach([Mount("overlay", "overlay", (("lowerdir+", str(upper)), *lowers), read_only=True)], merged)
    with descriptors(upper, first, merged, folder / "lower") as (near, far, now, before):
        found = stacked_changes([near, far], now, before)
        assert found == compare_trees(now, before, content=True)
        roots = merged, folder / "lower", first
        find_under_faults(faults, lambda: stacked_changes([near, far], now, before), *roots, least=50)
    mounting.unmount(merged)


def overlay_upper_of(folder: Path) -> Path:
    """An upper directory on a lower one that is made for it."""
    lower_tree(folder)
    return overlay_upper(folder)


@frozen
class Stacked:
    """An upper directory, and what the stack shows with it and without."""

    upper: Path
    merged: Path
    lower: Path
    marks: Marks

    def find(self) -> Changes:
        with descriptors(self.upper, self.merged, self.lower) as fds:
            return overlay_changes(*fds, marks=self.marks)

    def make_exact(self) -> bool:
        with descriptors(self.upper, self.merged, self.lower) as fds:
            return make_exact(*fds, marks=self.marks)


def overlay_upper(folder: Path) -> Path:
    """Edited through overlay, and with what only a mount of another kind leaves: a whiteout of nothing."""
    upper, merged = folder / "upper", folder / "edited"
    for name in ("upper", "work", "edited"):
        (folder / name).mkdir()
    mount(folder / "lower", upper, folder / "work", merged)
    edit(merged)
    remove_tree(merged / "replaced")
    (merged / "replaced" / "inner").mkdir(parents=True)
    (merged / "replaced" / "inner" / "mine").touch()
    os.chmod(merged / "kept", 0o700)
    os.chmod(merged / "kept", 0o755)  # copied up, and as it was
    mounting.unmount(merged)
    os.mknod(upper / "of nothing", 0o020000, os.makedev(0, 0))
    return upper


def branch_upper(folder: Path, marks: Marks) -> Path:
    """Written by hand: what is removed and replaced, and marks that say nothing."""
    upper = folder / "upper"
    (upper / "replaced" / "inner").mkdir(parents=True)
    (upper / "replaced" / ".wh..wh..opq").touch()
    (upper / "replaced" / "inner" / "mine").touch()
    (upper / ".wh.b").touch()
    (upper / ".wh.of nothing").touch()
    (upper / ".wh..wh.plnk" / "inner").mkdir(parents=True)
    copy_tree(folder / "lower" / "kept", upper / "kept")
    (upper / "kept" / "deep" / "file").write_text("altered")
    if marks is Marks.FUSE:
        os.setxattr(upper / "replaced", "trusted.overlay.opaque", b"y")
        os.setxattr(upper / "kept", "user.fuseoverlayfs.origin", b"x")
        os.mknod(upper / "symlink", 0o020000, os.makedev(0, 0))
    return upper


def mount(lower: Path, upper: Path, work: Path, merged: Path) -> None:
    options = (("lowerdir+", str(lower)), ("upperdir", str(upper)), ("workdir", str(work)))
    mounting.attach([Mount("overlay", "overlay", options)], merged)


def mount_anew(folder: Path) -> None:
    """A mount keeps what it has once looked up, whatever becomes of its upper directory."""
    if mount_id(folder / "merged") is not None:
        mounting.unmount(folder / "merged")
    for name in ("work", "merged"):
        remove_tree(folder / name)
        (folder / name).mkdir()
    mount(folder / "lower", folder / "upper", folder / "work", folder / "merged")


def shown(folder: Path, upper: Path) -> Path:
    """The tree that marks of aufs show."""
    edited = folder / "edited"
    edited.mkdir(exist_ok=True)
    link_stack([upper, folder / "lower"], edited)
    if (upper / "symlink").is_char_device():  # which hides what fuse-overlayfs has removed
        (edited / "symlink").unlink()
    return edited


def as_written(upper: Path) -> dict[str, trees.Entry]:
    """Its listing, but for times at which marks were made, and origins that overlay notes at a mount."""
    return {path: _without_chance(path, entry) for path, entry in trees.listing(upper).items()}


def _without_chance(path: str, entry: trees.Entry) -> trees.Entry:
    mark = ".wh." in path or entry.type == "character device"
    kept = tuple((name, value) for name, value in entry.xattrs if name != "trusted.overlay.origin")
    return evolve(entry, mtime_ns=0 if mark else entry.mtime_ns, xattrs=kept)


@pytest.fixture(params=Marks, ids=lambda marks: marks.name.lower())
def stacked(request: pytest.FixtureRequest, backing: Backing) -> Iterator[Callable[[], Stacked]]:
    """A stack with such marks, anew each time."""
    folder, marks = backing("ext4"), request.param
    lower = lower_tree(folder)
    template = overlay_upper(folder) if marks is Marks.OVERLAY else branch_upper(folder, marks)
    template = template.rename(folder / "template")
    upper, merged = folder / "upper", folder / "merged"
    if marks is not Marks.OVERLAY:
        shown(folder, template).rename(merged)

    def new() -> Stacked:
        if marks is Marks.OVERLAY and mount_id(merged) is not None:
            mounting.unmount(merged)
        remove_tree(upper)
        copy_tree(template, upper)
        if marks is Marks.OVERLAY:
            mount_anew(folder)
        return Stacked(upper, merged, lower, marks)

    yield new
    if marks is Marks.OVERLAY:
        mounting.unmount(merged)


def test_an_upper_directory_under_faults(faults: Faults, stacked: Callable[[], Stacked]) -> None:
    case = stacked()
    assert len(case.find()) > 3
    find_under_faults(faults, case.find, case.upper, case.merged, case.lower, least=30)


def test_making_an_upper_directory_exact_under_faults(faults: Faults, stacked: Callable[[], Stacked]) -> None:
    """What the stack shows stays, whatever fails, and what was begun can be done again."""
    case = stacked()
    before, changes = trees.listing(case.merged), case.find()
    assert case.make_exact()
    wanted = as_written(case.upper)

    def check(outcome: Outcome[Stacked]) -> None:
        ignoring = ("mtime_ns",) if outcome.call == "futimens" else ()  # nobody can set a time back then
        if case.marks is Marks.OVERLAY:
            mount_anew(case.upper.parent)
        trees.assert_same(before, trees.listing(case.merged), ignoring=ignoring)
        assert case.find() == changes or ignoring
        case.make_exact()
        trees.assert_same(wanted, as_written(case.upper), ignoring=ignoring)

    for kind, number in FAULTS:
        assert faults.walk(kind, number, stacked, Stacked.make_exact, check) > 3
    for outcome in faults.outcomes(Kind.CALL, errno.EIO, stacked, Stacked.make_exact):
        assert outcome.error is None or isinstance(outcome.error, KernelError)
        check(outcome)


# --- making layers ----------------------------------------------------------------------------------------------------


def test_writing_changes_under_faults(faults: Faults, backing: Backing) -> None:
    folder = backing("ext4")
    lower, new, target = lower_tree(folder), folder / "new", folder / "target"
    copy_tree(lower, new)
    edit(new)
    with descriptors(new, lower) as (now, before):
        changes = compare_trees(now, before, content=True)

    def fresh() -> Path:
        remove_tree(target)
        target.mkdir()
        return target

    def write(path: Path) -> None:
        with descriptors(new, path) as fds:
            write_changes(changes, *fds)

    make_under_faults(faults, fresh, write)


def test_clamping_times_under_faults(faults: Faults, backing: Backing) -> None:
    folder = backing("ext4")
    lower, new = lower_tree(folder), folder / "new"
    moment = 1_500_000_000 * 10**9

    def fresh() -> Changes:
        remove_tree(new)
        copy_tree(lower, new)
        edit(new)
        with descriptors(new, lower) as (now, before):
            return compare_trees(now, before, content=True)

    def clamp(changes: Changes) -> bool:
        with opened(new, FOLDER) as tree:
            return clamp_times(changes, tree, moment)

    assert clamp(fresh())
    for outcome in faults.outcomes(Kind.CALL, errno.EIO, fresh, clamp):
        if outcome.error is not None:
            assert isinstance(outcome.error, KernelError)
            assert outcome.error.path is not None
            clamp(outcome.case)  # it goes on from where it was broken off
        assert not clamp(outcome.case)


def test_a_tree_of_links_under_faults(faults: Faults, backing: Backing) -> None:
    folder = backing("ext4")
    lower_tree(folder)
    upper, target = branch_upper(folder, Marks.AUFS), folder / "target"

    def fresh() -> Path:
        remove_tree(target)
        target.mkdir()
        return target

    make_under_faults(faults, fresh, lambda path: link_stack([upper, folder / "lower"], path))


def make_under_faults(faults: Faults, fresh: Callable[[], Path], make: Callable[[Path], None]) -> None:
    path = fresh()
    make(path)
    wanted = trees.listing(path)

    def named(outcome: Outcome[Path]) -> None:
        assert isinstance(outcome.error, KernelError)
        assert outcome.error.path is not None

    assert faults.walk(Kind.MEMORY, errno.ENOMEM, fresh, make, named) > 10
    for kind in (Kind.LISTING, Kind.DATA, Kind.CALL):
        for outcome in faults.outcomes(kind, errno.EIO, fresh, make):
            if outcome.error is None:
                trees.assert_same(wanted, trees.listing(outcome.case))
            else:
                named(outcome)
