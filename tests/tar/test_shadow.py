"""A tree that is a filesystem of its own, as a btrfs subvolume is: what the tar replaces has to get out of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.driver import Dialect
from layerstore.tar import export, shadow_of, unpack
from support import images as make

pytestmark = pytest.mark.root


@pytest.mark.parametrize("dialect", list(Dialect))
def test_replaced_files_leave_the_tree(dialect: Dialect, backing: Callable[[str], Path]) -> None:
    tree, skeleton = backing("ext4") / "tree", backing("tmpfs") / "skeleton"
    tree.mkdir()
    layer = make.layer(
        make.folder("./", mode=0o751),
        make.file("a", "first" * 1000),
        make.hard_link("b", "a"),
        make.file(".wh..wh.plnk/1.2", "stored apart", mode=0o640, uid=5),
        make.hard_link("one", ".wh..wh.plnk/1.2"),
        make.hard_link("two", ".wh..wh.plnk/1.2"),
        make.file("c", "once"),
        make.file("c", "twice"),
        make.file("c", "and again"),
    )
    facts = unpack(io.BytesIO(layer), tree, dialect=dialect, skeleton=skeleton, bottom=True)
    assert sorted(os.listdir(tree)) == ["a", "b", "c", "one", "two"]
    assert (tree / "c").read_text() == "and again"
    assert (tree / "one").read_text() == "stored apart"
    assert (tree / "one").stat().st_ino == (tree / "two").stat().st_ino
    assert (tree / "one").stat().st_uid == 5
    assert tree.stat().st_mtime == make.EPOCH
    assert sorted(os.listdir(shadow_of(skeleton))) == ["0", "1", "2"]
    out = bytearray()
    export(skeleton, tree, out.extend, expected=facts.diff_id)
    assert bytes(out) == layer
