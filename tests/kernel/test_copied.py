"""Finding what was altered in a copy, by the list that its copier made: the same as by reading everything."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.wild import Wild
from layerstore.changes import Changes, compare_copied, compare_trees
from layerstore.kernel.copying import copy_tree
from layerstore.kernel.files import remove_tree
from layerstore.testing.filesystems import Filesystems
from support.properties import by_day

pytestmark = pytest.mark.root

KINDS = ("ext4", "xfs", "btrfs", "tmpfs")


def both_ways(new: Path, old: Path, raw: bytes) -> tuple[Changes, Changes]:
    with ExitStack() as opened:
        fds = []
        for path in (new, old):
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
            opened.callback(os.close, fds[-1])
        return compare_copied(*fds, raw), compare_trees(*fds, content=True)


@pytest.fixture(scope="module")
def places(filesystems: Filesystems) -> Callable[[int], Path]:
    """`places(seed)`: a new folder, on a filesystem that the number chooses."""
    made = 0

    def place(seed: int) -> Path:
        nonlocal made
        made += 1
        folder = filesystems.shared(KINDS[seed % len(KINDS)]) / f"copied-{made}"
        folder.mkdir()
        return folder

    return place


@given(seed=st.integers(0, 2**32), edits=st.integers(0, 12))
@by_day(80)
def test_answer_is_that_of_the_full_comparison(places: Callable[[int], Path], seed: int, edits: int) -> None:
    folder = places(seed)
    try:
        dice = random.Random(seed)
        wild = Wild(folder / "old", dice)
        wild.grow(dice.randrange(5, 50))
        raw = copy_tree(folder / "old", folder / "new").raw
        quick, full = both_ways(folder / "new", folder / "old", raw)
        assert quick == full
        assert len(full) == 0
        wild.root = os.fsencode(folder / "new")
        for _ in range(edits):
            wild.edit(dice.randrange(1, 4))
            quick, full = both_ways(folder / "new", folder / "old", raw)
            assert quick == full
    finally:
        remove_tree(folder)


@given(seed=st.integers(0, 2**32), damage=st.sampled_from(["empty", "cut", "flipped", "noise", "of another", "twice"]))
@by_day(30)
def test_list_that_is_damaged_or_of_another_copy(places: Callable[[int], Path], seed: int, damage: str) -> None:
    folder = places(seed)
    try:
        dice = random.Random(seed)
        wild = Wild(folder / "old", dice)
        wild.grow(30)
        raw = copy_tree(folder / "old", folder / "new").raw
        other = copy_tree(folder / "old", folder / "other").raw
        wild.root = os.fsencode(folder / "new")
        wild.edit(3)
        at = dice.randrange(len(raw))
        lists = {
            "empty": b"",
            "cut": raw[:at],
            "flipped": raw[:at] + bytes([raw[at] ^ 1 << dice.randrange(8)]) + raw[at + 1 :],
            "noise": dice.randbytes(1000),
            "of another": other,
            "twice": raw + raw,
        }
        quick, full = both_ways(folder / "new", folder / "old", lists[damage])
        assert quick == full
    finally:
        remove_tree(folder)


def test_inode_used_again(backing: Callable[[str], Path]) -> None:
    """A new file on the inode of one that was removed, with all that can be set as the other had it."""
    folder = backing("ext4")
    (folder / "old").mkdir()
    for number in range(10):
        (folder / "old" / f"{number}").write_bytes(b"old")
    raw = copy_tree(folder / "old", folder / "new").raw
    inodes = {}
    for number in range(10):
        path = folder / "new" / f"{number}"
        inodes[number] = path.stat().st_ino
        path.unlink()
    reused = 0
    for number in range(10):
        path = folder / "new" / f"{number}"
        path.write_bytes(b"new")
        facts = (folder / "old" / f"{number}").stat()
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        reused += path.stat().st_ino in inodes.values()
    quick, full = both_ways(folder / "new", folder / "old", raw)
    assert reused
    assert quick == full
    assert len(full) == 10


def test_what_is_unaltered_is_not_read(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("ext4", size=32 << 20, options="strictatime")
    old, new = folder / "old", folder / "new"
    for number in range(10):
        (old / f"{number}").mkdir(parents=True)
        (old / f"{number}" / "file").write_text("text")
        os.utime(old / f"{number}" / "file", ns=(0, 0))
    raw = copy_tree(old, new).raw
    (new / "3" / "file").write_text("TEXT")
    os.utime(new / "3" / "file", ns=(0, 0))
    (new / "4" / "added").touch()
    for number in range(10):
        os.utime(old / f"{number}", ns=(0, 0))
    with ExitStack() as opened:
        fds = []
        for path in (new, old):
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
            opened.callback(os.close, fds[-1])
        found = compare_copied(*fds, raw)
    read = {path for path in [*old.iterdir(), *folder.glob("*/*/file")] if path.stat().st_atime_ns}

    # Listed is the one old folder whose names may be others now.
    assert {str(path.relative_to(folder)) for path in read} == {"old/3/file", "new/3/file", "old/4"}
    assert {"C /3", "C /3/file", "C /4", "A /4/added"} <= set(map(str, found))
