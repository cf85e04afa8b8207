"""overlay2 to work with, on the test kit's workbench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from layerstore.driver import StorageDriver
from layerstore.store import Store
from layerstore.testing.workbench import Workbench, key, keys_of
from layerstore_overlay2 import Overlay2, Settings

__all__ = ["Workbench", "driver_of", "key", "keys_of"]


def driver_of(store: Store) -> StorageDriver:
    """The driver at work in a store."""
    return store._parts.storage.driver


@pytest.fixture
def workbench(backing: Callable[[str], Path]) -> Iterator[Callable[..., Workbench[Overlay2]]]:
    """`workbench("xfs", volatile=True)`: a new home on such a filesystem, with a driver of these options."""
    with ExitStack() as benches:

        def make(kind: str = "ext4", folder: Path | None = None, **options: Any) -> Workbench[Overlay2]:
            home = (folder or backing(kind)) / "overlay2"
            return benches.enter_context(Workbench.of(Overlay2, home, Settings(**options)))

        yield make
