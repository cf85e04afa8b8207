"""Random stacks of random layers: what is seen is what the model says, on every filesystem and in every dialect."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given

from layerstore.driver import Dialect
from layerstore.errors import InvalidArchive
from layerstore.testing import strategies, tars
from layerstore.testing.filesystems import FILESYSTEMS, Filesystems
from layerstore.testing.model import Refused, Tree
from support.properties import NIGHTLY, by_day
from tar.conftest import Scratch, scratch_on
from tar.engine import Stack, assert_stacks_as_the_model

pytestmark = pytest.mark.root


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.value)
@by_day(50, deadline=None)
@given(layers=strategies.stacks())
def test_a_stack_is_what_the_model_says(layers: list[strategies.Layer], dialect: Dialect, scratch: Scratch) -> None:
    with scratch() as folder:
        assert_stacks_as_the_model(Stack(folder / "stack", dialect), *layers)


PATHS = [b"a", b"a/a", b"a/a/a"]
ENTRIES = [
    *(make(path) for make in (tars.file, tars.folder, tars.whiteout, tars.opaque) for path in PATHS),
    tars.opaque(b""),
    tars.file(b"b/a"),
]
LOWERS: dict[str, list[tars.Entry]] = {
    "nothing": [],
    "directories": [tars.folder(b"a/a", mode=0o700), tars.file(b"a/a/a", b"old"), tars.file(b"a/b"), tars.folder(b"b")],
    "a file": [tars.file(b"a", b"old"), tars.symlink(b"b", b"a")],
    "a link": [tars.symlink(b"a", b"b"), tars.folder(b"b/a", mode=0o700)],
    "a link deeper": [tars.symlink(b"a/a", b"b"), tars.folder(b"a/b", mode=0o700), tars.file(b"a/b/a", b"old")],
}


@pytest.mark.parametrize("lower", LOWERS)
@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.value)
def test_every_pair_of_entries_is_what_the_model_says(lower: str, dialect: Dialect, scratch: Scratch) -> None:
    """Chance seldom draws two marks and a link that meet; here all do: by day each in one dialect, by night in all."""
    mine = list(Dialect).index(dialect)
    with scratch() as folder:
        for number, pair in enumerate(product(ENTRIES, repeat=2)):
            if not NIGHTLY and number % len(Dialect) != mine:
                continue
            stack = Stack(folder / str(number), dialect)
            try:
                model = Tree()
                for entries in (LOWERS[lower], pair):
                    model.apply(entries)
            except Refused:
                stack.push(tars.archive(*LOWERS[lower]))
                with pytest.raises(InvalidArchive):
                    stack.push(tars.archive(*pair))
            else:
                assert_stacks_as_the_model(stack, LOWERS[lower], pair)


@pytest.mark.parametrize("kind", [kind for kind in FILESYSTEMS if kind != "ext4"])
@by_day(20, deadline=None)  # each; ext4 has more of them, above
@given(layers=strategies.stacks(min_layers=2))
def test_a_stack_is_the_same_on_every_filesystem(
    layers: list[strategies.Layer], kind: str, filesystems: Filesystems
) -> None:
    with scratch_on(filesystems, kind)() as folder:
        assert_stacks_as_the_model(Stack(folder / "stack", Dialect.OVERLAY), *layers)
