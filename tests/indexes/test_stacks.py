"""Random stacks of random layers, mounted by one index: what is seen is what the model says."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given

from indexes.engine import Stack, assert_stacks_as_the_model, unpacked
from layerstore.errors import InvalidArchive
from layerstore.testing import strategies, tars, trees
from layerstore.testing.model import Refused, Tree
from support.properties import NIGHTLY, by_day
from tar.conftest import Scratch
from tar.test_stacks import ENTRIES, LOWERS

pytestmark = pytest.mark.root

DAY = 3
"""By day one pair in so many."""


@by_day(60, deadline=None)
@given(layers=strategies.stacks())
def test_a_stack_is_what_the_model_says(layers: list[strategies.Layer], scratch: Scratch) -> None:
    with scratch() as folder:
        assert_stacks_as_the_model(Stack(folder / "stack"), *layers)


@by_day(40, deadline=None)
@given(layers=strategies.stacks(min_layers=2, max_layers=5))
def test_a_stack_is_what_unpacking_makes_of_it(layers: list[strategies.Layer], scratch: Scratch) -> None:
    with scratch() as folder:
        stack = Stack(folder / "stack")
        for layer in layers:
            stack.push(layer.tar)
        trees.assert_same(unpacked([layer.tar for layer in layers], folder / "tree"), stack.listing())


@pytest.mark.parametrize("lower", LOWERS)
def test_every_pair_of_entries_is_what_the_model_says(lower: str, scratch: Scratch) -> None:
    with scratch() as folder:
        for number, pair in enumerate(product(ENTRIES, repeat=2)):
            if not NIGHTLY and number % DAY:
                continue
            stack = Stack(folder / str(number))
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
