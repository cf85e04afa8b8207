"""Random stacks of random layers: what is seen is what the model says, on every filesystem and in every dialect."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from diff.conftest import Scratch, scratch_on
from diff.engine import Stack, assert_stacks_as_the_model
from layerstore.driver import Dialect
from layerstore.testing import strategies
from layerstore.testing.filesystems import FILESYSTEMS, Filesystems

pytestmark = pytest.mark.root


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.value)
@settings(deadline=None)
@given(layers=strategies.stacks())
def test_a_stack_is_what_the_model_says(layers: list[strategies.Layer], dialect: Dialect, scratch: Scratch) -> None:
    with scratch() as folder:
        assert_stacks_as_the_model(Stack(folder / "stack", dialect), *layers)


@pytest.mark.parametrize("kind", [kind for kind in FILESYSTEMS if kind != "ext4"])
@settings(deadline=None)
@given(layers=strategies.stacks(min_layers=2))
def test_a_stack_is_the_same_on_every_filesystem(
    layers: list[strategies.Layer], kind: str, filesystems: Filesystems
) -> None:
    with scratch_on(filesystems, kind)() as folder:
        assert_stacks_as_the_model(Stack(folder / "stack", Dialect.OVERLAY), *layers)
