"""What a layer removes from those below, in every mixture and order, and the same in each dialect."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import pytest
from attrs import evolve

from layerstore.driver import Dialect
from layerstore.errors import CannotRepresent, InvalidArchive
from layerstore.testing import trees
from layerstore.testing.tars import Entry, archive, file, folder, hardlink, opaque, symlink, whiteout
from tar.engine import Stack, assert_stacks_as_the_model

Stacked = Callable[..., dict[str, trees.Entry]]

pytestmark = pytest.mark.root

LOWER = [
    folder(b"dir", mode=0o700, uid=7),
    file(b"dir/old", b"old"),
    folder(b"dir/sub"),
    file(b"dir/sub/older", b"older"),
    file(b"file", b"file"),
    symlink(b"link", b"dir"),
]
ALL = {"dir", "dir/old", "dir/sub", "dir/sub/older", "file", "link"}


def names(seen: dict[str, trees.Entry]) -> set[str]:
    return set(seen) - {""}


def test_a_whiteout_removes_a_file(stacked: Stacked) -> None:
    seen = stacked(LOWER, [whiteout(b"file"), whiteout(b"dir/old")])
    assert names(seen) == {"dir", "dir/sub", "dir/sub/older", "link"}


def test_a_whiteout_removes_a_whole_directory(stacked: Stacked) -> None:
    assert names(stacked(LOWER, [whiteout(b"dir")])) == {"file", "link"}


def test_a_whiteout_removes_a_link_and_not_its_target(stacked: Stacked) -> None:
    assert names(stacked(LOWER, [whiteout(b"link")])) == {"dir", "dir/old", "dir/sub", "dir/sub/older", "file"}


def test_a_whiteout_of_what_is_not_there_is_nothing(stacked: Stacked) -> None:
    assert names(stacked(LOWER, [whiteout(b"nothing"), whiteout(b"dir/nothing")])) == ALL


def test_what_was_removed_can_come_back(stacked: Stacked) -> None:
    seen = stacked(LOWER, [whiteout(b"dir")], [file(b"dir/new", b"new")])
    assert names(seen) == {"dir", "dir/new", "file", "link"}
    assert seen["dir"].mode == 0o755


def test_an_opaque_directory_has_only_its_own(stacked: Stacked) -> None:
    seen = stacked(LOWER, [folder(b"dir"), opaque(b"dir"), file(b"dir/new")])
    assert names(seen) == {"dir", "dir/new", "file", "link"}


def test_an_opaque_directory_that_is_not_listed_keeps_its_attributes(stacked: Stacked) -> None:
    seen = stacked(LOWER, [opaque(b"dir")])
    assert names(seen) == {"dir", "file", "link"}
    assert (seen["dir"].mode, seen["dir"].uid) == (0o700, 7)


def test_an_opaque_root_hides_everything_below(stacked: Stacked, stack: Stack) -> None:
    seen = stacked(LOWER, [file(b"new"), opaque(b"")], [file(b"newer")])
    assert names(seen) == {"new", "newer"}
    assert [layer.unpacked.root_opaque for layer in stack.layers] == [False, True, False]


MIXTURES: dict[str, Sequence[Entry]] = {
    "a file and its whiteout": [file(b"file", b"new"), whiteout(b"file")],
    "a directory and its whiteout": [folder(b"dir"), whiteout(b"dir")],
    "a directory, what is in it, and its whiteout": [folder(b"dir"), file(b"dir/new"), whiteout(b"dir")],
    "a file instead of a directory, and its whiteout": [file(b"dir", b"now a file"), whiteout(b"dir")],
    "a directory instead of a file, and its whiteout": [folder(b"file"), whiteout(b"file")],
    "a directory instead of a link, and its whiteout": [folder(b"link"), whiteout(b"link")],
    "a whiteout and the opaque mark": [folder(b"dir"), whiteout(b"dir"), opaque(b"dir")],
    "a whiteout below an opaque directory": [opaque(b"dir"), whiteout(b"dir/old"), file(b"dir/new")],
    "opaque, and an old name again": [opaque(b"dir"), file(b"dir/old", b"new")],
    "opaque within opaque": [opaque(b"dir"), opaque(b"dir/sub"), folder(b"dir/sub")],
    "opaque root and a directory of old": [opaque(b""), folder(b"dir"), whiteout(b"file")],
    "whiteouts at three depths": [whiteout(b"dir/sub/older"), whiteout(b"dir/old"), whiteout(b"file")],
    "twice the same whiteout": [whiteout(b"file"), whiteout(b"file")],
    "twice the opaque mark": [opaque(b"dir"), opaque(b"dir"), file(b"dir/new")],
    "a whiteout, and an opaque mark in what it hides": [whiteout(b"dir"), opaque(b"dir"), file(b"new")],
    "a whiteout, and an opaque mark deeper in what it hides": [whiteout(b"dir"), opaque(b"dir/sub/deep"), folder(b"x")],
    "a whiteout and an opaque mark of what nobody has": [whiteout(b"no/a"), opaque(b"no/a"), folder(b"dir/own")],
    "whiteouts and an opaque mark below a file": [whiteout(b"file/a"), opaque(b"file/a"), whiteout(b"file/b")],
    "an opaque mark below a file of its own layer": [file(b"dir", b"now a file"), opaque(b"dir/sub")],
    "opaque below a file, and its whiteout": [opaque(b"file"), whiteout(b"file"), file(b"dir/new")],
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_the_order_of_entries_makes_no_difference(mixture: str, stack: Stack) -> None:
    results: list[dict[str, trees.Entry]] = []
    for order in permutations(MIXTURES[mixture]):
        fresh = Stack(stack.folder / f"order{len(results)}", stack.dialect)
        results.append(assert_stacks_as_the_model(fresh, LOWER, order))
    assert all(names(result) == names(results[0]) for result in results)


@pytest.mark.parametrize(
    "layer",
    [
        [whiteout(b"dir"), folder(b"dir"), file(b"dir/new")],
        [folder(b"dir"), file(b"dir/new"), whiteout(b"dir")],
        [whiteout(b"dir"), file(b"dir/new")],
        [file(b"dir/new"), whiteout(b"dir")],
    ],
    ids=["whiteout first", "whiteout last", "implied, whiteout first", "implied, whiteout last"],
)
def test_a_directory_in_the_place_of_a_removed_one_is_empty_below(layer: list[Entry], stacked: Stacked) -> None:
    seen = stacked(LOWER, layer)
    assert names(seen) == {"dir", "dir/new", "file", "link"}
    assert (seen["dir"].mode, seen["dir"].uid) == (0o755, 0)


@pytest.mark.parametrize("order", list(permutations([whiteout(b"dir"), whiteout(b"dir/old")])))
def test_a_whiteout_inside_a_removed_directory_is_dropped(order: tuple[Entry, ...], stacked: Stacked) -> None:
    assert names(stacked(LOWER, list(order))) == {"file", "link"}


@pytest.mark.parametrize("path", [b"file", b"dir/old", b"file/deep/er"])
def test_an_opaque_mark_implies_its_directory_as_a_file_in_it_would(path: bytes, stacked: Stacked) -> None:
    seen = stacked(LOWER, [opaque(path)])
    assert seen[os.fsdecode(path)].type == "folder"


@pytest.mark.parametrize("mark", [whiteout(b"link/new"), opaque(b"link")], ids=["whiteout", "opaque"])
def test_a_mark_below_links_in_a_ring_hides_nothing(mark: Entry, stack: Stack, stacked: Stacked) -> None:
    ring = [symlink(b"link", b"other"), symlink(b"other", b"link")]
    if mark.name.endswith(b".wh..wh..opq"):
        stack.push(archive(*ring))
        with pytest.raises(InvalidArchive, match="too many symlinks"):
            stack.push(archive(mark))
    else:
        assert names(stacked(ring, [mark])) == {"link", "other"}


THROUGH = [
    [file(b"link/new"), folder(b"link")],
    [file(b"link/new"), symlink(b"link", b"elsewhere")],
    [file(b"link/new"), file(b"link", b"now a file")],
    [file(b"link/new"), whiteout(b"link")],
    [file(b"link/new"), opaque(b"")],
    [opaque(b"link"), whiteout(b"link")],
    [whiteout(b"link/old"), file(b"link", b"now a file")],
    [file(b"link/new"), opaque(b""), file(b"link/newer")],
    [opaque(b"link"), opaque(b""), opaque(b"link")],
]


@pytest.mark.parametrize("layer", THROUGH, ids=lambda layer: ", ".join(os.fsdecode(entry.name) for entry in layer))
def test_a_lower_link_is_followed_until_it_is_replaced(layer: list[Entry], stacked: Stacked) -> None:
    """A layer that is unpacked without its parents has to find out afterwards that there was a link."""
    seen = stacked(LOWER, layer)
    assert "link/new" not in seen
    assert ("dir/old" in seen) == (layer[0].name == b"link/new" and not any(e.name == b".wh..wh..opq" for e in layer))


def test_a_whiteout_hides_nothing_of_later_layers(stacked: Stacked) -> None:
    seen = stacked(LOWER, [whiteout(b"file"), whiteout(b"dir")], [file(b"file", b"back"), folder(b"dir")])
    assert names(seen) == {"dir", "file", "link"}


def test_a_whiteout_in_the_bottom_layer_is_not_seen(stacked: Stacked) -> None:
    seen = stacked([folder(b"dir"), whiteout(b"dir/old"), whiteout(b"gone"), file(b"dir/new"), opaque(b"dir")])
    assert names(seen) == {"dir", "dir/new"}


def test_a_whiteout_in_a_directory_of_one_layer_only_is_not_seen(stacked: Stacked) -> None:
    seen = stacked(LOWER, [folder(b"own"), whiteout(b"own/gone"), file(b"own/here")], [file(b"x")])
    assert "own/gone" not in seen
    assert "own/here" in seen


def test_a_whiteout_in_an_opaque_directory_is_not_seen(stacked: Stacked) -> None:
    seen = stacked(LOWER, [folder(b"dir"), opaque(b"dir"), whiteout(b"dir/old"), file(b"dir/new")])
    assert names(seen) == {"dir", "dir/new", "file", "link"}


@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"3", b"5", b"7"])
def test_a_whiteout_may_be_an_entry_of_any_type(kind: bytes, stacked: Stacked) -> None:
    # aufs itself makes them hard links to one another.
    mark = evolve(whiteout(b"file"), typeflag=kind, target=b".wh..wh.aufs" if kind in b"12" else b"")
    assert "file" not in stacked(LOWER, [mark])


@pytest.mark.parametrize("length", [251, 252, 255])
@pytest.mark.parametrize("layer", ["at the root", "deeper", "in an implied directory"])
def test_a_whiteout_of_the_longest_name(length: int, layer: str, stack: Stack, stacked: Stacked) -> None:
    # The mark has four bytes more than a name can have, and is no name, but where marks are files.
    name = b"n" * length
    lower = [file(name), folder(b"d"), file(b"d/" + name)]
    path = {"at the root": name, "deeper": b"d/" + name, "in an implied directory": b"d/e/" + name}[layer]
    if stack.dialect is Dialect.AUFS and length > 251:
        stack.push(archive(*lower))
        before = trees.listing(stack.folder)
        with pytest.raises(CannotRepresent, match="251 bytes") as caught:
            stack.push(archive(file(b"new"), whiteout(path)))
        assert caught.value.path == "/" + os.fsdecode(path)
        assert caught.value.remedy is not None
        trees.assert_same(before, trees.listing(stack.folder), ignoring=["mtime_ns"])
    else:
        seen = stacked(lower, [file(b"new"), whiteout(path)])
        assert os.fsdecode(path) not in seen


def test_a_whiteout_of_the_longest_name_that_hides_nothing_needs_no_mark(stack: Stack, stacked: Stacked) -> None:
    name = b"n" * 255
    assert names(stacked(LOWER, [file(name), whiteout(name), opaque(b"dir"), whiteout(b"dir/" + name)])) == {
        "dir", "file", "link", os.fsdecode(name),
    }  # fmt: skip


def test_a_whiteout_goes_through_a_link(stacked: Stacked) -> None:
    assert "dir/old" not in stacked(LOWER, [whiteout(b"link/old")])


@pytest.mark.parametrize("where", [b"", b"dir/", b"nowhere/", b"file/"])
@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh..."])
def test_a_whiteout_of_no_name_is_refused(name: bytes, where: bytes, stack: Stack) -> None:
    stack.push(archive(*LOWER))
    with pytest.raises(InvalidArchive, match=r"\.wh\."):
        stack.push(archive(file(where + name)))


@pytest.mark.parametrize("name", [b".wh..wh.aufs", b".wh..wh.orph/", b".wh..wh.plnk/"])
def test_what_aufs_keeps_for_itself_is_no_file(name: bytes, stacked: Stacked) -> None:
    kind = folder if name.endswith(b"/") else file
    assert names(stacked(LOWER, [kind(name), file(b"new")])) == {*ALL, "new"}


def test_links_to_the_store_of_aufs_are_files(stacked: Stacked) -> None:
    seen = stacked(
        [
            folder(b".wh..wh.plnk", mode=0o700),
            file(b".wh..wh.plnk/12.34", b"content", mode=0o600, uid=5),
            folder(b"dir"),
            hardlink(b"dir/one", b".wh..wh.plnk/12.34", mode=0o600, uid=5),
            hardlink(b"two", b".wh..wh.plnk/12.34", mode=0o600, uid=5),
        ]
    )
    assert names(seen) == {"dir", "dir/one", "two"}
    assert seen["two"].names == ("dir/one", "two")
    assert (seen["two"].size, seen["two"].mode, seen["two"].uid) == (7, 0o600, 5)


def test_a_name_may_look_like_a_whiteout_without_being_one(stacked: Stacked) -> None:
    seen = stacked([file(b".wh"), file(b".whx"), file(b"a.wh.b"), folder(b"wh.")], [file(b"x")])
    assert names(seen) == {".wh", ".whx", "a.wh.b", "wh.", "x"}


def test_overlay_layers_hold_whiteouts_that_the_kernel_knows(folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    stack.push(archive(*LOWER))
    tree = stack.push(archive(whiteout(b"file"), whiteout(b"dir/old"), opaque(b"dir/sub"))).tree
    for name in ("file", "dir/old"):
        facts = (tree / name).lstat()
        assert stat.S_ISCHR(facts.st_mode)
        assert facts.st_rdev == 0
    assert os.getxattr(tree / "dir/sub", "trusted.overlay.opaque") == b"y"
    # Without this, readdir would list them wherever overlay does not merge the directory.
    assert os.getxattr(tree / "dir", "trusted.overlay.origin") == b""


def test_aufs_layers_hold_whiteouts_as_the_tar_has_them(folder: Path) -> None:
    stack = Stack(folder, Dialect.AUFS)
    stack.push(archive(*LOWER))
    tree = stack.push(archive(whiteout(b"file"), whiteout(b"dir/old"), opaque(b"dir/sub"))).tree
    assert {str(path.relative_to(tree)) for path in tree.rglob("*")} == {
        ".wh.file",
        "dir",
        "dir/.wh.old",
        "dir/sub",
        "dir/sub/.wh..wh..opq",
    }
