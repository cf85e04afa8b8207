"""Where the tests of indexes have their tars, and whether this kernel mounts them at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from indexes.engine import Stack, assert_stacks_as_the_model, erofs
from layerstore.errors import KernelError
from layerstore.indexes import write_index
from layerstore.kernel.mounts import detached
from layerstore.testing import trees
from layerstore.testing.filesystems import Filesystems
from tar.conftest import Scratch, scratch_on


@pytest.fixture(scope="session")
def scratch(filesystems: Filesystems, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """`with scratch() as folder`: an empty folder on ext4, gone afterwards. Skips where no erofs can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    reason = _refusal(tmp_path_factory.mktemp("erofs"))
    if reason is not None:
        pytest.skip(reason)
    return scratch_on(filesystems, "ext4")


@cache
def _refusal(folder: Path) -> str | None:
    index = folder / "index"
    write_index((), index)
    try:
        with detached([erofs(index, ())]):
            return None
    except KernelError as error:
        return f"this kernel mounts no file as erofs: {error.message}"


@pytest.fixture
def folder(scratch: Scratch) -> Iterator[Path]:
    """One empty folder on ext4."""
    with scratch() as path:
        yield path


@pytest.fixture
def stack(folder: Path) -> Stack:
    """An empty stack."""
    return Stack(folder / "stack")


@pytest.fixture
def stacked(stack: Stack) -> Callable[..., dict[str, trees.Entry]]:
    """Lay layers on each other, each a list of entries, hold them against the model, and give what is seen."""
    return partial(assert_stacks_as_the_model, stack)
