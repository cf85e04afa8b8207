"""Hard links and symbolic links: in all orders, to all that there is, and through all that there is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from layerstore.driver import Dialect
from layerstore.errors import InvalidArchive
from layerstore.testing import trees
from layerstore.testing.strategies import capability
from layerstore.testing.tars import Entry, archive, char, fifo, file, folder, hardlink, opaque, symlink, whiteout
from tar.engine import Stack

Stacked = Callable[..., dict[str, trees.Entry]]

pytestmark = pytest.mark.root


def test_a_hard_link_is_a_second_name(stacked: Stacked) -> None:
    seen = stacked([file(b"a", b"content"), hardlink(b"b", b"a"), folder(b"d"), hardlink(b"d/c", b"b")])
    assert seen["a"].names == ("a", "b", "d/c")


@pytest.mark.parametrize("target", [b"d/a", b"/d/a", b"./d/a", b"d//a", b"/./d/./a"])
def test_the_target_of_a_hard_link_is_within_the_layer(target: bytes, stacked: Stacked) -> None:
    seen = stacked([folder(b"d"), file(b"d/a", b"content"), hardlink(b"b", target)])
    assert seen["b"].names == ("b", "d/a")


ENTRIES = [file(b"a", b"content"), hardlink(b"b", b"a"), hardlink(b"c", b"b")]


@pytest.mark.parametrize(
    "order", list(permutations(ENTRIES)), ids=lambda order: "".join(e.name.decode() for e in order)
)
def test_a_hard_link_may_come_before_its_target(order: tuple[Entry, ...], stacked: Stacked) -> None:
    assert stacked(list(order))["a"].names == ("a", "b", "c")


@pytest.mark.parametrize(
    "target", [symlink(b"a", b"nowhere"), fifo(b"a"), char(b"a", 1, 3)], ids=["symlink", "fifo", "device"]
)
def test_not_only_files_have_hard_links(target: Entry, stacked: Stacked) -> None:
    seen = stacked([target, hardlink(b"b", b"a", mode=target.mode)])
    assert seen["b"].names == ("a", "b")


def test_a_hard_link_to_a_symbolic_link_is_not_followed(stacked: Stacked) -> None:
    seen = stacked([file(b"a", b"content"), symlink(b"l", b"a"), hardlink(b"b", b"l", mode=0o777)])
    assert (seen["b"].type, seen["b"].target) == ("symlink", "a")


def test_a_hard_link_goes_through_linked_directories(stacked: Stacked) -> None:
    seen = stacked([folder(b"d"), file(b"d/a", b"x"), symlink(b"l", b"/d"), hardlink(b"b", b"l/a")])
    assert seen["b"].names == ("b", "d/a")


LOWER_FILE = file(
    b"a", b"lower", mode=0o4711, uid=3, gid=4, mtime=10**18 + 7, xattrs={b"security.capability": capability()}
)


def test_a_hard_link_to_a_lower_file_is_a_copy(stacked: Stacked, stack: Stack) -> None:
    seen = stacked([LOWER_FILE], [hardlink(b"b", b"a", mode=0o4711, uid=3, gid=4, mtime=10**18 + 7)])
    assert seen["a"].names == ("a",)
    assert seen["b"].names == ("b",)
    assert (seen["b"].size, seen["b"].mode, seen["b"].uid, seen["b"].mtime_ns) == (5, 0o4711, 3, 10**18 + 7)
    assert dict(seen["b"].xattrs) == {"security.capability": capability()}


def test_a_layer_says_that_it_needs_its_parents(stack: Stack) -> None:
    if stack.dialect is Dialect.MERGED:
        pytest.skip("always has its parents")
    stack.push(archive(file(b"a")))
    assert stack.push(archive(hardlink(b"b", b"a"))).with_parents
    assert not stack.push(archive(file(b"c"), hardlink(b"d", b"c"))).with_parents


def test_two_links_to_one_lower_file_are_one_copy(stacked: Stacked) -> None:
    seen = stacked([file(b"a", b"lower")], [hardlink(b"b", b"a"), hardlink(b"c", b"a"), hardlink(b"d", b"c")])
    assert seen["a"].names == ("a",)


@pytest.mark.parametrize(
    "target", [symlink(b"a", b"nowhere"), fifo(b"a", uid=3), char(b"a", 1, 3)], ids=["symlink", "fifo", "device"]
)
def test_a_lower_file_of_any_kind_can_be_linked(target: Entry, stacked: Stacked) -> None:
    seen = stacked([target], [hardlink(b"b", b"a", mode=target.mode)])
    assert seen["b"].type == seen["a"].type


def test_a_lower_file_is_linked_and_removed_in_one_layer(stacked: Stacked) -> None:
    # So does a rename look in the tar of a layer: the new name first, or the whiteout.
    seen = stacked([folder(b"d"), file(b"d/a", b"moved")], [hardlink(b"b", b"d/a"), whiteout(b"d/a")])
    assert set(seen) == {"", "b", "d"}
    assert seen["b"].size == 5


def test_a_copy_of_a_lower_file_stays_when_that_is_hidden(stacked: Stacked) -> None:
    seen = stacked([folder(b"d"), file(b"d/a", b"x")], [hardlink(b"b", b"d/a")], [opaque(b"d")])
    assert seen["b"].size == 1


def test_a_new_file_under_one_of_two_names_leaves_the_other(stacked: Stacked) -> None:
    seen = stacked([file(b"a", b"old"), hardlink(b"b", b"a")], [file(b"a", b"newer")])
    assert (seen["a"].size, seen["b"].size) == (5, 3)


def test_a_name_is_used_again_after_it_was_linked(stacked: Stacked) -> None:
    seen = stacked([file(b"a", b"first"), hardlink(b"b", b"a"), file(b"a", b"second")])
    assert (seen["a"].size, seen["b"].size) == (6, 5)
    assert seen["a"].names == ("a",)


def test_a_link_replaces_a_file_of_the_same_layer(stacked: Stacked) -> None:
    seen = stacked([file(b"a", b"a"), file(b"b", b"lost"), hardlink(b"b", b"a")])
    assert seen["b"].names == ("a", "b")


@pytest.mark.parametrize(
    "entries",
    [
        [hardlink(b"b", b"missing")],
        [hardlink(b"b", b"b")],
        [hardlink(b"b", b"c"), hardlink(b"c", b"b")],
        [folder(b"d"), hardlink(b"b", b"d")],
        [hardlink(b"b", b"")],
        [hardlink(b"b", b"/")],
        [hardlink(b"b", b"../a"), file(b"a")],
        [file(b"a"), hardlink(b"b", b"a/c")],
        [whiteout(b"a"), hardlink(b"b", b".wh.a")],
    ],
    ids=["missing", "itself", "circle", "directory", "nothing", "root", "outside", "below a file", "whiteout"],
)
def test_a_hard_link_to_what_cannot_be_linked_is_refused(entries: list[Entry], stack: Stack) -> None:
    with pytest.raises(InvalidArchive):
        stack.push(archive(*entries))


def test_a_directory_can_be_behind_a_link_of_the_same_layer(stacked: Stacked) -> None:
    seen = stacked([folder(b"d"), symlink(b"l", b"d"), file(b"l/a", b"x"), symlink(b"d/up", b"/"), file(b"l/up/b")])
    assert {"d/a", "b"} <= set(seen)


@pytest.mark.parametrize("target", [b"d", b"/d", b"./d", b"d/", b"e/../d", b"../../d", b"second"])
def test_a_directory_can_be_behind_a_link_of_a_lower_layer(target: bytes, stacked: Stacked) -> None:
    lower = [folder(b"d", mode=0o700), folder(b"e"), symlink(b"l", target), symlink(b"second", b"d")]
    seen = stacked(lower, [file(b"l/a", b"x")])
    assert seen["l"].type == "symlink"
    assert seen["d/a"].size == 1
    assert seen["d"].mode == 0o700


def test_usrmerge_is_respected(stacked: Stacked) -> None:
    """The one that everybody meets: /bin and /lib are links, and a package of old has files in them."""
    lower = [folder(b"usr"), folder(b"usr/bin"), folder(b"usr/lib"), symlink(b"bin", b"usr/bin")]
    seen = stacked(lower, [file(b"bin/tool", b"x", mode=0o755), symlink(b"bin/alias", b"tool")])
    assert seen["bin"].type == "symlink"
    assert {"usr/bin/tool", "usr/bin/alias"} <= set(seen)


def test_a_listed_directory_takes_the_place_of_a_lower_link(stacked: Stacked) -> None:
    lower = [folder(b"d"), file(b"d/old"), symlink(b"l", b"d")]
    seen = stacked(lower, [folder(b"l"), file(b"l/a")])
    assert seen["l"].type == "folder"
    assert set(seen) == {"", "d", "d/old", "l", "l/a"}


def test_a_removed_link_leads_nowhere(stacked: Stacked) -> None:
    seen = stacked([folder(b"d"), symlink(b"l", b"d")], [whiteout(b"l"), file(b"l/a")])
    assert seen["l"].type == "folder"
    assert "d/a" not in seen


def test_a_link_to_a_directory_that_only_lower_layers_have(stacked: Stacked) -> None:
    seen = stacked([folder(b"d", mode=0o700, uid=5)], [symlink(b"l", b"d"), file(b"l/a")])
    assert seen["d/a"].type == "file"
    assert (seen["d"].mode, seen["d"].uid) == (0o700, 5)


@pytest.mark.parametrize("first", [hardlink(b"b", b"late"), symlink(b"b", b"late")], ids=["waiting", "symlink"])
def test_a_link_means_the_entry_of_its_own_layer_and_not_the_parents(first: Entry, stacked: Stacked) -> None:
    # `b` is of this layer from the first entry on, even while nobody knows yet what that leads to.
    seen = stacked([file(b"b", b"lower")], [first, hardlink(b"c", b"b", mode=first.mode), file(b"late", b"x")])
    assert seen["c"].names == seen["b"].names
    assert seen["c"].size != 5


def test_a_link_that_waits_goes_with_its_directory(stacked: Stacked) -> None:
    seen = stacked([hardlink(b"d/b", b"nowhere"), file(b"d", b"now a file")])
    assert set(seen) == {"", "d"}


def test_nothing_lies_below_a_link_that_waits(stack: Stack) -> None:
    with pytest.raises(InvalidArchive, match="no directory"):
        stack.push(archive(hardlink(b"b", b"late"), file(b"b/x"), file(b"late")))


@pytest.mark.parametrize("way", [[], [symlink(b"l", b"d")]], ids=["directly", "by a symlink"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_hard_link_cannot_replace_the_directory_it_leads_into(layers: int, way: list[Entry], stack: Stack) -> None:
    entries = [folder(b"d"), file(b"d/f", b"x"), *way]
    if layers == 2:
        stack.push(archive(*entries))
        entries = []
    with pytest.raises(InvalidArchive, match="replaces the directory"):
        stack.push(archive(*entries, hardlink(b"d", b"l/f" if way else b"d/f")))


def test_a_link_below_the_name_of_a_lower_link_replaces_the_latter(stacked: Stacked) -> None:
    # `l/f` is `e/f`, so `l` may become another name of it: nothing of it lies below `l` itself.
    seen = stacked([folder(b"e"), symlink(b"l", b"e")], [file(b"l/f", b"x"), hardlink(b"l", b"l/f")])
    assert seen["l"].names == ("e/f", "l")
