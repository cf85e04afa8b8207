"""What the tests of repairs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import layerstore
from layerstore import Config
from mending.store import Everything, fill


@pytest.fixture
def everything(backing: Callable[[str], Path]) -> Iterator[Callable[[str], Everything]]:
    """`everything("overlay2")`: such a store, closed."""
    with ExitStack() as stack:

        def made(driver: str) -> Everything:
            place = backing("btrfs" if driver == "btrfs" else "ext4")
            options = ("aufs.mode=copy",) if driver == "aufs" else ()
            config = Config(
                data_root=place / f"of-{driver}",
                exec_root=place / "exec",
                storage_driver=driver,
                storage_opts=options,
            )
            found = Everything(config, stack)
            with layerstore.open(config=config) as store:
                fill(store)
            return found

        yield made
