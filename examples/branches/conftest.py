"""Fixtures for tests that each want a root filesystem to themselves, and want it at once.

What is dear is made once a session and kept by a checkpoint; each test gets a container that begins there, does with it
what it wants, and leaves nothing. `session_layer_store` is of layerstore's own plugin, which pytest finds by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from layerstore import Checkpoint, Container, Store

SETUP = """
mkdir /srv /srv/accounts
for number in 1 2 3 4 5 6 7 8 9; do echo "balance 100" > /srv/accounts/$number; done
"""


@pytest.fixture(scope="session")
def warm(session_layer_store: Store) -> Checkpoint:
    """An image, what has to be done once, and the checkpoint after it."""
    [image] = session_layer_store.load(os.environ.get("IMAGE", "image.tar"))
    box = session_layer_store.create_container(image)
    box.run(["sh", "-c", SETUP], isolation="process", check=True)
    return box.checkpoint("warm")


@pytest.fixture
def branch(warm: Checkpoint) -> Iterator[Container]:
    """A container that is this test's own."""
    [box] = warm.fork()
    yield box
    box.remove(force=True, lasts=False)
