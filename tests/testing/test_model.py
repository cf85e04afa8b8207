"""The model by itself: what it refuses, what it takes for a change, and that its strategies draw what can be done."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.testing import ModelTree, edits, tars
from layerstore.testing.edits import Edit
from layerstore.testing.strategies import edits as drawn_edits
from layerstore.testing.strategies import trees
from layerstore.testing.tars import file, folder, hardlink, symlink


def image(*, breaks_links: bool = False) -> ModelTree:
    tree = ModelTree(breaks_links=breaks_links)
    tree.apply([folder(b"d"), file(b"d/f", b"x"), file(b"a", b"x"), hardlink(b"b", b"a"), symlink(b"l", b"d")])
    return tree


def changes(tree: ModelTree, parent: ModelTree | None) -> list[str]:
    return list(map(str, tree.changes(parent)))


REFUSED: dict[str, tuple[Edit, int]] = {
    "what is not there": (edits.unlink(b"x"), errno.ENOENT),
    "a parent that is a file": (edits.write(b"a/x"), errno.ENOTDIR),
    "a parent that is a link": (edits.write(b"l/x"), errno.ENOTDIR),
    "a name that is taken": (edits.mkdir(b"a"), errno.EEXIST),
    "a link to a directory": (edits.link(b"x", b"d"), errno.EPERM),
    "a directory that is full": (edits.rmdir(b"d"), errno.ENOTEMPTY),
    "a directory of the image that is renamed": (edits.rename(b"d", b"x"), errno.EXDEV),
    "a file over a directory": (edits.rename(b"a", b"d"), errno.EISDIR),
    "an attribute that is not there": (edits.removexattr(b"a", b"user.x"), errno.ENODATA),
    "writing to a link": (edits.write(b"l"), errno.ELOOP),
    "removing the root": (edits.rmdir(b""), errno.ENOTEMPTY),
}


@pytest.mark.parametrize("case", REFUSED)
def test_edits_that_cannot_be_made_are_refused_as_a_filesystem_does(case: str) -> None:
    edit, number = REFUSED[case]
    box = image().branch()

    with pytest.raises(OSError, match=r".") as caught:
        edit.apply(box)

    assert caught.value.errno == number
    assert changes(box, image()) == []


@pytest.mark.parametrize(
    ("breaks_links", "content", "found"), [(True, b"x", ["C /a"]), (False, b"xy", ["C /a", "C /b"])]
)
def test_a_write_through_one_of_several_names(*, breaks_links: bool, content: bytes, found: list[str]) -> None:
    below = image(breaks_links=breaks_links)
    box = below.branch()

    box.append(b"a", b"y")

    assert box.read(b"b") == content
    assert changes(box, below) == found


def test_a_time_that_the_clock_sets_is_another_one() -> None:
    below = image()
    box = below.branch()
    box.write(b"d/f", b"x")
    assert changes(box, below) == ["C /d", "C /d/f"]

    box.utimes(b"d/f", tars.EPOCH * tars.SECOND)
    assert changes(box, below) == []


def test_the_root_of_nothing_is_plain() -> None:
    box = ModelTree()
    box.chmod(b"", 0o700)
    assert changes(box, None) == ["C /"]
    assert box.commit(None).root.mode == 0o700


@given(trees().flatmap(lambda tree: st.tuples(st.just(tree), drawn_edits(tree))))
def test_a_commit_is_its_changes_and_nothing_else(case: tuple[ModelTree, list[Edit]]) -> None:
    tree, steps = case
    box = tree.branch()
    for edit in steps:
        edit.apply(box)

    made = box.commit(tree)

    assert changes(made, tree) == changes(box, tree)
    assert changes(made.branch(), made) == []
    if not steps:
        assert changes(box, tree) == []


def test_an_edit_is_shown_as_the_call_that_makes_it() -> None:
    makers: dict[str, Callable[..., Edit]] = {name: getattr(edits, name) for name in edits.__all__}
    for edit in (edits.write(b"a\xff", b"ab" * 100 + b"a"), edits.chmod(b"", 0o755), edits.chown(b"x", 1, 2)):
        assert eval(repr(edit), makers) == edit
