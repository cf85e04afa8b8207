"""The tar engine under faults: of memory, of folders that are listed, of data, and of every other call."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

from layerstore.changes import compare_trees
from layerstore.digest import DiffID
from layerstore.driver import Dialect
from layerstore.errors import KernelError
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.tar import (
    Damage,
    Level,
    adopt_implied,
    export,
    implied_digest,
    pack,
    pack_tree,
    shadow_of,
    unpack,
    verify,
)
from layerstore.testing import tars
from layerstore.testing.tars import Sparse, archive, file, folder, hardlink, opaque, sparse, symlink, whiteout
from support.faults import Faults, Kind, Outcome

LOWER = archive(
    folder(b"d", mode=0o700, uid=9, xattrs={b"user.old": b"1"}),
    file(b"d/old", b"old"),
    folder(b"d/sub", mode=0o750),
    file(b"d/sub/hidden", b"hidden"),
    folder(b"d/sub/more"),
    file(b"d/sub/more/hidden", b"hidden, too"),
    symlink(b"way", b"d"),
    file(b"below", b"of the parents" * 50, uid=7, xattrs={b"user.below": b"2"}),
    symlink(b"below-link", b"somewhere"),
    file(b"gone", b"going"),
)
LAYER = archive(
    folder(b"./", mode=0o751),
    file(b"d/implied/deeper/f", b"in directories that are not listed"),
    file(b"way/g", b"by way of a link of the parents", xattrs={b"user.x": b"y", b"user.z": b"w" * 300}),
    file(b"f", b"first" * 300),
    hardlink(b"early", b"late"),
    hardlink(b"f-again", b"f"),
    file(b"f", b"second" * 300, uid=5, mode=0o4755),
    file(b"late", b"late"),
    hardlink(b"copied", b"below"),
    hardlink(b"copied-link", b"below-link"),
    file(b"below", b"now of the layer"),
    sparse(b"s0", 100_000, (4096, b"x" * 5000), (50_000, b"y" * 10), form=Sparse.PAX_1_0),
    sparse(b"s1", 100_000, *((at * 4096, b"z" * 512) for at in range(24)), form=Sparse.GNU),
    file(b"n" * 90 + b"/" + b"m" * 200, b"a long name"),
    symlink(b"l", b"to/" + b"t" * 200),
    tars.fifo(b"p"),
    tars.char(b"c", 1, 3, xattrs={b"user.refused": b"1", b"trusted.kept": b"2"}),
    tars.char(b"whiteout-like", 0, 0),
    folder(b"empty", mode=0o711, mtime=5),
    file(b"once", b"a file"),
    folder(b"once"),
    file(b".wh..wh.plnk/1.2", b"of aufs"),
    hardlink(b"plinked", b".wh..wh.plnk/1.2"),
    whiteout(b"gone"),
    whiteout(b"hollow/nothing"),
    opaque(b"d/sub"),
    file(b"d/sub/new", b"new"),
)
DIFF_ID = DiffID("sha256:" + hashlib.sha256(LAYER).hexdigest())


@frozen
class Case:
    """The layer is unpacked on its parents, here."""

    dialect: Dialect
    parents: Path
    tree: Path
    skeleton: Path

    def unpack(self) -> object:
        merged = self.dialect is Dialect.MERGED
        with opened(self.tree if merged else self.parents, FOLDER) as below:
            return unpack(
                io.BytesIO(LAYER),
                self.tree,
                dialect=self.dialect,
                skeleton=self.skeleton,
                expected=DIFF_ID,
                below=below,
                threads=1,
            )

    def export(self) -> bytes:
        collected = bytearray()
        export(self.skeleton, self.tree, collected.extend, expected=DIFF_ID)
        return bytes(collected)

    def verify(self) -> list[Damage]:
        return list(verify(self.skeleton, self.tree, dialect=self.dialect, level=Level.CONTENT))


@pytest.fixture
def scratch(backing: Callable[[str], Path]) -> Path:
    return backing("ext4")


@pytest.fixture(params=Dialect, ids=lambda dialect: dialect.value)
def prepare(request: pytest.FixtureRequest, scratch: Path) -> Callable[[], Case]:
    """Parents that are there, and a new place for the layer each time."""
    case = Case(request.param, scratch / "parents", scratch / "tree", scratch / "skeleton")
    _unpack_parents(case.parents)

    def new() -> Case:
        shutil.rmtree(case.tree, ignore_errors=True)
        shutil.rmtree(shadow_of(case.skeleton), ignore_errors=True)
        case.skeleton.unlink(missing_ok=True)
        if case.dialect is Dialect.MERGED:
            _unpack_parents(case.tree)
        else:
            case.tree.mkdir()
        return case

    return new


def _unpack_parents(tree: Path) -> None:
    tree.mkdir()
    unpack(io.BytesIO(LOWER), tree, dialect=Dialect.MERGED, skeleton=tree.with_suffix(".skeleton"), bottom=True)
    tree.with_suffix(".skeleton").unlink()


def left_nothing(outcome: Outcome[Case]) -> None:
    assert not outcome.case.skeleton.exists(), "a skeleton is left that nobody may believe"
    assert threading.active_count() == 1, "a thread is left"


def told_the_call(outcome: Outcome[Case]) -> None:
    """The call that failed is the one that the error names."""
    assert isinstance(outcome.error, KernelError)
    told, failed = outcome.error.call, outcome.call
    assert told == failed or {told, failed} <= XATTR_CALLS, f"{failed} failed, and was told as {told}"
    assert outcome.error.path is not None


XATTR_CALLS = {"setxattr", "fsetxattr", "lsetxattr"}


# --- in --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lasting", [False, True])
def test_unpacking_without_memory(faults: Faults, prepare: Callable[[], Case], *, lasting: bool) -> None:
    met = faults.walk(Kind.MEMORY, errno.ENOMEM, prepare, Case.unpack, left_nothing, lasting=lasting)
    assert met > 100


def test_unpacking_where_a_folder_cannot_be_listed(faults: Faults, prepare: Callable[[], Case]) -> None:
    """Only in a merged tree are folders read: what is opaque there loses what the parents have in it."""

    def named(outcome: Outcome[Case]) -> None:
        left_nothing(outcome)
        assert isinstance(outcome.error, KernelError)
        assert outcome.error.path is not None
        assert outcome.error.path in {"/once", "/d/sub", "/d/sub/more"}

    met = faults.walk(Kind.LISTING, errno.EIO, prepare, Case.unpack, named)
    assert (met > 0) == (prepare().dialect is Dialect.MERGED)


def test_unpacking_where_data_cannot_be_written(faults: Faults, prepare: Callable[[], Case]) -> None:
    assert faults.walk(Kind.DATA, errno.EIO, prepare, Case.unpack, left_nothing) > 10


def test_unpacking_that_is_interrupted_goes_on(faults: Faults, prepare: Callable[[], Case]) -> None:
    plain = prepare().unpack()
    for outcome in faults.outcomes(Kind.DATA, errno.EINTR, prepare, Case.unpack):
        assert outcome.error is None
        assert outcome.result == plain
        assert outcome.case.verify() == []
        assert outcome.case.export() == LAYER


def test_unpacking_where_any_other_call_fails(faults: Faults, prepare: Callable[[], Case]) -> None:
    met = 0
    for outcome in faults.outcomes(Kind.CALL, errno.EIO, prepare, Case.unpack):
        met += 1
        if outcome.error is not None:
            told_the_call(outcome)
            assert outcome.error.errno == errno.EIO  # type: ignore[attr-defined]  # it is a KernelError
            left_nothing(outcome)
        else:  # removing a tree of the parents has more than one way
            assert outcome.case.dialect is Dialect.MERGED
            assert outcome.case.verify() == []
            assert os.listdir(outcome.case.tree / "d" / "sub") == ["new"]
    assert met > 100


IMPLIED = ("", "d", "d/sub/", "hollow/", "below//")


@pytest.mark.parametrize(("kind", "number"), [(Kind.MEMORY, errno.ENOMEM), (Kind.CALL, errno.EIO)])
def test_looks_of_implied_directories(faults: Faults, prepare: Callable[[], Case], kind: Kind, number: int) -> None:
    def unpacked() -> Case:
        case = prepare()
        for path in ("d/sub", "hollow"):
            (case.tree / path).mkdir(parents=True, exist_ok=True)
        return case

    def look(case: Case) -> object:
        with opened(case.parents, FOLDER) as below:
            return implied_digest(IMPLIED, below)

    def adopt(case: Case) -> object:
        with opened(case.parents, FOLDER) as below:
            return adopt_implied(case.tree, IMPLIED, below, case.dialect)

    check = told_the_call if kind is Kind.CALL else lambda outcome: None
    assert faults.walk(kind, number, unpacked, look, check) > 3
    met = 0
    for outcome in faults.outcomes(kind, number, unpacked, adopt):
        met += 1
        if outcome.error is not None:
            check(outcome)
        else:  # removing a directory has more than one way
            assert not (outcome.case.tree / "hollow").exists()
    assert met > 10


# --- out -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(prepare: Callable[[], Case]) -> Callable[[], Case]:
    """A layer that is whole, the same each time."""
    case = prepare()
    case.unpack()
    return lambda: case


def test_export_without_memory(faults: Faults, stored: Callable[[], Case]) -> None:
    assert faults.walk(Kind.MEMORY, errno.ENOMEM, stored, Case.export) > 10
    assert stored().export() == LAYER


def test_export_of_what_cannot_be_read(faults: Faults, stored: Callable[[], Case]) -> None:
    def named(outcome: Outcome[Case]) -> None:
        assert isinstance(outcome.error, KernelError)
        assert outcome.error.layer == DIFF_ID
        assert outcome.error.path is not None

    assert faults.walk(Kind.DATA, errno.EIO, stored, Case.export, named) > 10
    assert faults.walk(Kind.CALL, errno.EIO, stored, Case.export, told_the_call) > 10


def test_an_interrupted_export_goes_on(faults: Faults, stored: Callable[[], Case]) -> None:
    for outcome in faults.outcomes(Kind.DATA, errno.EINTR, stored, Case.export):
        assert outcome.error is None
        assert outcome.result == LAYER


def test_verifying_without_memory(faults: Faults, stored: Callable[[], Case]) -> None:
    assert faults.walk(Kind.MEMORY, errno.ENOMEM, stored, Case.verify) > 10
    assert stored().verify() == []


def test_what_cannot_be_read_is_damaged(faults: Faults, stored: Callable[[], Case]) -> None:
    met = 0
    for outcome in faults.outcomes(Kind.DATA, errno.EIO, stored, Case.verify):
        met += 1
        assert outcome.error is None
        assert isinstance(outcome.result, list)
        [damage] = outcome.result
        assert damage.what == f"the file cannot be read ({os.strerror(errno.EIO)})"
    assert met > 10


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_verifying_where_any_other_call_fails(faults: Faults, stored: Callable[[], Case], number: int) -> None:
    """It is an error, or damage that says so; never a layer that is whole, and for want of descriptors never damage."""
    met = 0
    for outcome in faults.outcomes(Kind.CALL, number, stored, Case.verify):
        met += 1
        if outcome.error is not None:
            told_the_call(outcome)
            assert outcome.error.errno == number  # type: ignore[attr-defined]  # it is a KernelError
        else:
            assert number == errno.EIO
            assert isinstance(outcome.result, list)
            [damage] = outcome.result
            assert os.strerror(number) in damage.what
    assert met > 30


def test_verifying_where_a_folder_cannot_be_listed(faults: Faults, stored: Callable[[], Case]) -> None:
    def named(outcome: Outcome[Case]) -> None:
        assert isinstance(outcome.error, KernelError)
        assert outcome.error.path is not None
        assert (outcome.case.tree / outcome.error.path[1:]).is_dir()

    met = faults.walk(Kind.LISTING, errno.EIO, stored, Case.verify, named)
    assert (met > 0) == (stored().dialect is not Dialect.MERGED)


# --- packing ---------------------------------------------------------------------------------------------------------


@contextmanager
def changed(scratch: Path) -> Iterator[Callable[[Path | None], object]]:
    """A packer of what a program has changed in a tree; it is given a place for the skeleton."""
    parents, tree = scratch / "parents", scratch / "tree"
    for one in (parents, tree):
        _unpack_parents(one)
    (tree / "gone").unlink()
    (tree / "new").write_bytes(b"new" * 1000)
    os.setxattr(tree / "new", "user.one", b"1")
    (tree / "d" / "old").write_bytes(b"altered")
    (tree / "d" / ("n" * 150)).mkdir()
    (tree / "empty").touch()
    os.symlink("s" * 200, tree / "link")
    for number in range(40):
        (tree / f"linked{number}").write_text("")
        os.link(tree / f"linked{number}", tree / f"linked{number}-again")
    os.mkfifo(tree / "pipe")
    with opened(tree, FOLDER) as root, opened(parents, FOLDER) as below:
        changes = compare_trees(root, below)
        yield lambda skeleton: pack(changes, root, skeleton=skeleton)


def test_packing_under_faults(faults: Faults, scratch: Path) -> None:
    skeleton = scratch / "packed"

    def prepare() -> Path:
        skeleton.unlink(missing_ok=True)
        return skeleton

    def check(outcome: Outcome[Path]) -> None:
        assert not skeleton.exists(), "a skeleton is left that nobody may believe"

    def check_call(outcome: Outcome[Path]) -> None:
        check(outcome)
        assert isinstance(outcome.error, KernelError)
        assert outcome.error.call == outcome.call

    with changed(scratch) as act:
        plain = act(None)
        assert faults.walk(Kind.MEMORY, errno.ENOMEM, prepare, act, check) > 50
        assert faults.walk(Kind.MEMORY, errno.ENOMEM, prepare, act, check, lasting=True) > 50
        assert faults.walk(Kind.DATA, errno.EIO, prepare, act, check) > 1
        assert faults.walk(Kind.CALL, errno.EIO, prepare, act, check_call) > 50
        for outcome in faults.outcomes(Kind.DATA, errno.EINTR, prepare, act):
            assert outcome.result == plain
        written: list[bytes] = []
        export(skeleton, scratch / "tree", lambda piece: written.append(bytes(piece)), expected=act(None).diff_id)  # type: ignore[attr-defined]  # it is a Packed


def test_a_tree_that_cannot_be_listed_is_not_packed(faults: Faults, scratch: Path) -> None:
    _unpack_parents(scratch / "tree")
    with opened(scratch / "tree", FOLDER) as root:

        def named(outcome: Outcome[None]) -> None:
            assert isinstance(outcome.error, KernelError)
            assert outcome.error.path is not None
            assert (scratch / "tree" / outcome.error.path.lstrip("/")).is_dir()

        assert (
            faults.walk(Kind.LISTING, errno.EIO, lambda: None, lambda _: pack_tree(root, lambda piece: None), named) > 3
        )
