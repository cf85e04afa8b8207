"""kernel/ under faults: listing a folder, copying data, copying and removing a tree, asking the kernel."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.wild import Wild
from layerstore.errors import KernelError
from layerstore.kernel import btrfs
from layerstore.kernel.copying import Copied, copy_tree, fill_tree
from layerstore.kernel.files import copy_data, lists_types, remove_tree
from layerstore.kernel.mounts import mounts_below
from layerstore.testing import trees
from support.faults import Faults, Kind, Outcome

Backing = Callable[[str], Path]


def make_source(folder: Path) -> Path:
    """Each type of file, several names, attributes, and more levels than descriptors are kept for."""
    Wild(folder / "source", random.Random(5)).grow(25)
    deep = folder.joinpath("source", *(["deep"] * 36))
    deep.mkdir(parents=True)
    (deep / "one").write_bytes(b"x" * 9000)
    os.link(deep / "one", deep / "another")
    os.link(deep / "one", folder / "source" / "third")
    (folder / "source" / "holes").touch()
    os.truncate(folder / "source" / "holes", 1 << 20)
    return folder / "source"


@pytest.fixture
def scratch(backing: Backing) -> Path:
    return backing("ext4")


@pytest.fixture
def source(scratch: Path) -> Path:
    return make_source(scratch)


@pytest.fixture
def fresh(scratch: Path) -> Callable[[], Path]:
    """A target that is not there yet, the same each time."""

    def clear() -> Path:
        remove_tree(scratch / "target")
        return scratch / "target"

    return clear


@pytest.fixture
def filled(source: Path, fresh: Callable[[], Path]) -> Callable[[], Path]:
    """The same as `source`, each time."""

    def fill() -> Path:
        target = fresh()
        copy_tree(source, target)
        return target

    return fill


def lies_in_target(outcome: Outcome[Path]) -> None:
    """The error names a place in the tree that was worked on."""
    assert isinstance(outcome.error, KernelError)
    assert outcome.error.path is not None
    assert outcome.error.path.startswith(str(outcome.case))


def test_a_folder_that_cannot_be_listed_is_an_error(faults: Faults, tmp_path: Path) -> None:
    for kind, number in ((Kind.LISTING, errno.EIO), (Kind.MEMORY, errno.ENOMEM)):
        assert faults.walk(kind, number, lambda: tmp_path, lists_types) > 0


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_an_interrupted_copy_goes_on(faults: Faults, scratch: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"end"
    (scratch / "from").write_bytes(content)

    def copy(path: Path) -> int:
        with open(scratch / "from", "rb") as source, open(path, "wb") as target:
            return copy_data(source.fileno(), target.fileno())

    met = 0
    for outcome in faults.outcomes(Kind.DATA, errno.EINTR, lambda: scratch / "to", copy):
        met += 1
        assert outcome.error is None
        assert outcome.case.read_bytes() == content
    assert met > 0


# --- copying a tree ---------------------------------------------------------------------------------------------------


def copier(source: Path, *, threads: int = 1, share: bool = True) -> Callable[[Path], Copied]:
    return lambda target: copy_tree(source, target, threads=threads, share=share)


@pytest.mark.parametrize("lasting", [False, True])
def test_copying_a_tree_without_memory(
    faults: Faults, source: Path, fresh: Callable[[], Path], *, lasting: bool
) -> None:
    met = faults.walk(Kind.MEMORY, errno.ENOMEM, fresh, copier(source), lies_in_target, lasting=lasting)
    assert met > 50
    trees.assert_same(trees.listing(source), trees.listing(source.with_name("target")))


@pytest.mark.parametrize(("kind", "share"), [(Kind.LISTING, True), (Kind.DATA, True), (Kind.DATA, False)])
def test_copying_a_tree_that_cannot_be_read(
    faults: Faults, source: Path, fresh: Callable[[], Path], kind: Kind, *, share: bool
) -> None:
    assert faults.walk(kind, errno.EIO, fresh, copier(source, share=share), lies_in_target) > 3


@pytest.mark.parametrize("share", [True, False])
def test_copying_a_tree_that_is_interrupted_goes_on(
    faults: Faults, source: Path, fresh: Callable[[], Path], *, share: bool
) -> None:
    for kind in (Kind.DATA, Kind.LISTING):
        for outcome in faults.outcomes(kind, errno.EINTR, fresh, copier(source, share=share)):
            assert outcome.error is None
            trees.assert_same(trees.listing(source), trees.listing(outcome.case))


def test_copying_a_tree_where_any_other_call_fails(faults: Faults, source: Path, fresh: Callable[[], Path]) -> None:
    before, met = trees.listing(source), 0
    for outcome in faults.outcomes(Kind.CALL, errno.EIO, fresh, copier(source)):
        met += 1
        if outcome.error is None:
            trees.assert_same(before, trees.listing(outcome.case))
        else:
            lies_in_target(outcome)
    assert met > 100


def test_copying_by_threads_under_faults(faults: Faults, source: Path, fresh: Callable[[], Path]) -> None:
    """A thread that cannot be had is done without, but for the first."""
    for number in range(300):
        (source / f"many{number}").mkdir()
    before = trees.listing(source)
    for kind, code in ((Kind.THREAD, errno.EAGAIN), (Kind.LISTING, errno.EIO)):
        for outcome in faults.outcomes(kind, code, fresh, copier(source, threads=3)):
            if outcome.error is None:
                assert (kind, outcome.nth > 1) == (Kind.THREAD, True)
                trees.assert_same(before, trees.listing(outcome.case))
            elif outcome.nth > 40:
                break  # the same for each of the 300 folders


# --- putting one upper directory below another ------------------------------------------------------------------------


def make_uppers(folder: Path) -> tuple[Path, Path]:
    """Two upper directories of overlay, the nearer one first, that meet in every way."""
    near, far = folder / "near", folder / "far"
    for upper in (near, far):
        (upper / "both/inner").mkdir(parents=True)
        (upper / "both/inner" / upper.name).write_text(upper.name)
        (upper / "both/file").write_text(upper.name)
        (upper / f"only {upper.name}").mkdir()
    for name in ("hides", "opaque"):
        (near / name).mkdir()
        (near / name / "mine").touch()
    os.setxattr(near / "opaque", "trusted.overlay.opaque", b"y")
    (far / "opaque").mkdir()
    (far / "opaque/hidden").touch()
    os.mknod(far / "hides", 0o020000, os.makedev(0, 0))
    os.mknod(near / "gone", 0o020000, os.makedev(0, 0))
    (far / "gone").mkdir()
    os.mknod(far / "both/inner/removed", 0o020000, os.makedev(0, 0))
    os.setxattr(far / "both/inner", "trusted.overlay.origin", b"")
    os.setxattr(far / "both", "trusted.overlay.opaque", b"y")
    os.link(far / "both/inner/far", far / "both/linked")
    return near, far


def test_filling_an_upper_directory_under_faults(faults: Faults, scratch: Path, fresh: Callable[[], Path]) -> None:
    near, far = make_uppers(scratch)

    def anew() -> Path:
        target = fresh()
        copy_tree(near, target)
        return target

    def fill(target: Path) -> None:
        fill_tree(far, target, threads=1)

    wanted = anew()
    fill(wanted)
    plain = trees.listing(wanted)
    assert os.getxattr(wanted / "both", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(wanted / "hides", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(wanted / "both/inner", "trusted.overlay.origin") == b""
    assert [path.name for path in sorted((wanted / "opaque").iterdir())] == ["mine"]
    assert (wanted / "gone").is_char_device()
    assert (wanted / "both/file").read_text() == "near"
    for kind, number in ((Kind.MEMORY, errno.ENOMEM), (Kind.LISTING, errno.EIO)):
        assert faults.walk(kind, number, anew, fill, lies_in_target) > 3
    for kind in (Kind.DATA, Kind.LISTING):
        for outcome in faults.outcomes(kind, errno.EINTR, anew, fill):
            assert outcome.error is None
            trees.assert_same(plain, trees.listing(outcome.case))
    met = 0
    for outcome in faults.outcomes(Kind.CALL, errno.EIO, anew, fill):
        met += 1
        if outcome.error is None:
            trees.assert_same(plain, trees.listing(outcome.case))
        else:
            lies_in_target(outcome)
    assert met > 30


# --- removing a tree --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "number"), [(Kind.MEMORY, errno.ENOMEM), (Kind.LISTING, errno.EIO)])
def test_removing_a_tree_under_faults(faults: Faults, filled: Callable[[], Path], kind: Kind, number: int) -> None:
    def check(outcome: Outcome[Path]) -> None:
        lies_in_target(outcome)
        assert outcome.case.exists()
        remove_tree(outcome.case)
        assert not outcome.case.exists()

    assert faults.walk(kind, number, filled, lambda path: remove_tree(path, threads=1), check) > 30


def test_removing_a_tree_where_any_other_call_fails(faults: Faults, filled: Callable[[], Path]) -> None:
    met = 0
    for outcome in faults.outcomes(Kind.CALL, errno.EIO, filled, lambda path: remove_tree(path, threads=1)):
        met += 1
        assert (outcome.error is None) == (not outcome.case.exists())
        remove_tree(outcome.case)
    assert met > 100


# --- what is asked of the kernel --------------------------------------------------------------------------------------


def test_mounts_are_never_left_out_for_want_of_memory(faults: Faults) -> None:
    before = mounts_below(Path("/"))
    for outcome in faults.outcomes(Kind.MEMORY, errno.ENOMEM, lambda: Path("/"), mounts_below):
        assert isinstance(outcome.error, KernelError) or outcome.result == before


def test_the_trees_of_btrfs_without_memory(faults: Faults, backing: Backing) -> None:
    folder = backing("btrfs")
    btrfs.create(folder / "one")
    btrfs.create(folder / "one" / "inner")
    for ask in (btrfs.nested, lambda place: btrfs.written(place, 0), btrfs.quota_state, btrfs.groups):
        assert faults.walk(Kind.MEMORY, errno.ENOMEM, lambda: folder / "one", ask) > 0
