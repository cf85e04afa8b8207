"""Any tree comes out as it went in: from a tree to another, and by way of a tar."""

from __future__ import annotations

import io
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.wild import Wild
from layerstore.changes import compare_trees
from layerstore.copying import Tree, copy, copy_from_tar, copy_to_tar
from layerstore.kernel.files import remove_tree
from layerstore.testing.filesystems import Filesystems
from support.properties import by_day

pytestmark = pytest.mark.root

KINDS = ("ext4", "xfs", "btrfs", "tmpfs")


@pytest.fixture(scope="module")
def places(filesystems: Filesystems) -> Callable[[int], Path]:
    """`places(seed)`: a new folder, on a filesystem that the number chooses."""
    made = 0

    def place(seed: int) -> Path:
        nonlocal made
        made += 1
        folder = filesystems.shared(KINDS[seed % len(KINDS)]) / f"wild-{made}"
        folder.mkdir()
        return folder

    return place


@contextmanager
def opened(*paths: Path) -> Iterator[list[int]]:
    with ExitStack() as fds:
        found = []
        for path in paths:
            found.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
            fds.callback(os.close, found[-1])
        yield found


def without_sockets(tree: Path) -> None:
    """Remove what is never copied, and leave the times of its folder as they were."""
    for path in sorted(tree.rglob("*")):
        if stat.S_ISSOCK(path.lstat().st_mode):
            before = path.parent.stat()
            path.unlink()
            os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))


@given(seed=st.integers(0, 2**32))
@by_day(60)
def test_any_tree_is_copied_to_the_last_bit(places: Callable[[int], Path], seed: int) -> None:
    folder = places(seed)
    try:
        Wild(folder / "old", random.Random(seed)).grow(seed % 40)
        without_sockets(folder / "old")
        (folder / "tar").mkdir()
        with opened(folder) as [fd]:
            tree = Tree(fd, "here")
            copy(tree, "old", tree, "new", owner=(1, 1), archive=True, follow=False)
            out = io.BytesIO()
            copy_to_tar(tree, "old", out, follow=False)
            out.seek(0)
            copy_from_tar(out, tree, "tar", archive=False)
        with opened(folder / "old", folder / "new", folder / "tar/old") as [old, new, unpacked]:
            assert list(compare_trees(new, old, content=True)) == []
            assert list(compare_trees(unpacked, old, content=True)) == []
            assert os.fstat(old).st_mtime_ns == os.fstat(new).st_mtime_ns == os.fstat(unpacked).st_mtime_ns
    finally:
        remove_tree(folder)
