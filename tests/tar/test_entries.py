"""What a skeleton says of a layer's names, held against the tar that it was made of; and damaged ones, which say so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.changes import compare_trees
from layerstore.driver import Dialect
from layerstore.errors import Damaged
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.tar import EntryKind, LayerEntry, entries, pack
from layerstore.tar.entries import _entries
from layerstore.tar.skeleton import SkeletonReader
from layerstore.testing import tars
from layerstore.testing.tars import Sparse, archive, file, folder, hardlink, opaque, sparse, symlink, whiteout
from tar.conftest import Scratch
from tar.engine import Stack

pytestmark = pytest.mark.root

LAYER = archive(
    folder(b"d", mode=0o700, uid=9, gid=8, mtime=5_000_000_001),
    file(b"d/f", b"four", mode=0o4755, uid=7),
    file(b"d/same", b"four"),
    hardlink(b"again", b"d/f"),
    symlink(b"l", b"away"),
    tars.fifo(b"p"),
    tars.char(b"c", 1, 3),
    sparse(b"s", 100_000, (4096, b"x" * 5000), form=Sparse.PAX_1_0),
    file(b"implied/in", b""),
    whiteout(b"gone"),
    whiteout(b"hollow/gone"),
    opaque(b"d"),
    file(b"\xff\n" + b"n" * 90, b"any bytes"),
)


def listed(layer: Path) -> dict[bytes, LayerEntry]:
    found = list(entries(layer))
    assert len({entry.path for entry in found}) == len(found)
    return {entry.path: entry for entry in found}


def test_each_name_has_what_the_tar_says(stack: Stack) -> None:
    stack.push(archive(folder(b"hollow"), file(b"hollow/gone", b"")))
    found = listed(stack.push(LAYER).skeleton)
    kinds = {path: entry.kind for path, entry in found.items() if path and not entry.implied}
    assert kinds == {
        b"d": EntryKind.FOLDER,
        b"d/f": EntryKind.FILE,
        b"d/same": EntryKind.FILE,
        b"again": EntryKind.HARD_LINK,
        b"l": EntryKind.SYMLINK,
        b"p": EntryKind.FIFO,
        b"c": EntryKind.CHARACTER_DEVICE,
        b"s": EntryKind.FILE,
        b"implied/in": EntryKind.FILE,
        b"gone": EntryKind.REMOVAL,
        b"hollow/gone": EntryKind.REMOVAL,
        b"\xff\n" + b"n" * 90: EntryKind.FILE,
    }
    one = found[b"d/f"]
    assert (one.mode, one.uid, one.size) == (0o4755, 7, 4)
    assert (found[b"d"].mode, found[b"d"].uid, found[b"d"].gid, found[b"d"].mtime_ns) == (0o700, 9, 8, 5_000_000_001)
    assert found[b"again"].target == b"d/f"
    assert (found[b"again"].size, found[b"again"].mode) == (4, 0o4755)
    assert found[b"c"].device == (1, 3)
    assert (found[b"s"].size, found[b"s"].stored) == (100_000, 5000)
    assert (one.stored, found[b"again"].stored) == (4, 0)
    assert one.content == found[b"d/same"].content != found[b"implied/in"].content
    assert [path for path, entry in found.items() if entry.opaque] == [b"d"]
    assert {path for path, entry in found.items() if entry.covers} == {b"gone", b"hollow/gone"}
    assert {path for path, entry in found.items() if entry.implied and path} <= {b"implied", b"hollow"}


def test_parents_come_before_what_is_in_them(stack: Stack) -> None:
    seen: set[bytes] = set()
    for entry in entries(stack.push(LAYER).skeleton):
        assert not entry.path or os.path.dirname(entry.path) in seen | {b""}
        seen.add(entry.path)


def test_what_is_removed_and_made_again_is_both(stack: Stack) -> None:
    stack.push(archive(folder(b"a"), file(b"a/old", b"old")))
    found = listed(stack.push(archive(whiteout(b"a"), file(b"a/new", b"new"))).skeleton)
    assert found[b"a"].kind is EntryKind.FOLDER
    assert found[b"a"].covers or found[b"a"].opaque


def test_a_packed_tree_is_listed_like_its_tar(folder: Path) -> None:
    tree = folder / "tree"
    tree.mkdir()
    (tree / "f").write_bytes(b"content")
    os.link(tree / "f", tree / "g")
    (tree / "l").symlink_to("f")
    with opened(tree, FOLDER) as root:
        packed = pack(compare_trees(root, None), root, skeleton=folder / "skeleton")
    found = listed(folder / "skeleton")
    assert {path for path in found if path} == {b"f", b"g", b"l"}
    assert packed.entries == len(found)
    assert (found[b"g"].kind, found[b"g"].target) == (EntryKind.HARD_LINK, b"f")


@pytest.fixture(scope="module")
def index(scratch: Scratch) -> bytes:
    with scratch() as place:
        layer = Stack(place / "stack", Dialect.OVERLAY).push(LAYER)
        with SkeletonReader(layer.skeleton) as reader:
            return reader.index()


@given(data=st.data())
def test_a_damaged_index_is_an_error_or_a_list(data: st.DataObject, index: bytes) -> None:
    wrong = bytearray(index)
    for _ in range(data.draw(st.integers(1, 4))):
        wrong[data.draw(st.integers(0, len(wrong) - 1))] = data.draw(st.integers(0, 255))
    wrong = wrong[: data.draw(st.integers(0, len(wrong)))]
    try:
        found = list(_entries(Path("skeleton"), bytes(wrong)))
    except Damaged:
        return
    assert len(found) <= len(index)


def test_each_cut_of_an_index_is_told(index: bytes) -> None:
    for length in range(len(index)):
        with pytest.raises(Damaged):
            list(_entries(Path("skeleton"), index[:length]))
