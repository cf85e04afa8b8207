"""Where the tests of the tar engine unpack to, and the bounds in which they let it run."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from layerstore.driver import Dialect
from layerstore.testing import trees
from layerstore.testing.filesystems import Filesystems
from tar.engine import Stack, assert_stacks_as_the_model

Scratch = Callable[[], AbstractContextManager[Path]]


@pytest.fixture(scope="session")
def scratch(filesystems: Filesystems) -> Scratch:
    """`with scratch() as folder`: an empty folder on ext4, gone afterwards. For tests that need many of them."""
    return scratch_on(filesystems, "ext4")


def scratch_on(filesystems: Filesystems, kind: str) -> Scratch:
    shared = filesystems.shared(kind)

    @contextmanager
    def folder() -> Iterator[Path]:
        path = Path(tempfile.mkdtemp(prefix="diff-", dir=shared))
        try:
            yield path
        finally:
            # By rm, since a tree may be deeper than PATH_MAX.
            subprocess.run(["rm", "-rf", path], check=True)

    return folder


@pytest.fixture
def folder(scratch: Scratch) -> Iterator[Path]:
    """One empty folder on ext4."""
    with scratch() as path:
        yield path


@pytest.fixture(params=Dialect, ids=lambda dialect: dialect.value)
def stack(request: pytest.FixtureRequest, folder: Path) -> Stack:
    """An empty stack, in each dialect in turn."""
    return Stack(folder / "stack", request.param)


@pytest.fixture
def stacked(stack: Stack) -> Callable[..., dict[str, trees.Entry]]:
    """Unpack layers, each a list of entries, hold them against the model, and give what is seen of the tree."""
    return partial(assert_stacks_as_the_model, stack)
