"""What every part of the kit has in common: the driver that is tried, at work, and a look at it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from layerstore.driver import Layer, StorageDriver
from layerstore.testing import trees
from layerstore.testing.conformance.examples import BASE
from layerstore.testing.editing import ModelTree
from layerstore.testing.remains import Remains, paths_below
from layerstore.testing.tars import Entry
from layerstore.testing.workbench import Workbench


def model_of(*layers: Sequence[Entry]) -> ModelTree:
    """What these layers show, given bottom to top."""
    model = ModelTree()
    for entries in layers:
        model.apply(entries)
    return model.branch()


def assert_tree(model: ModelTree, seen: trees.Tree) -> None:
    """A listing of a real tree is what the model says. The model learns the times that nobody could know before."""
    model.learn(seen)
    trees.assert_same(model.listing(seen), seen)


_KEY = re.compile("[0-9a-f]{32}")


class Subject:
    """What the subclass says: a fixture `driver`, the class to be tested; `home` and `options` if it wants."""

    @pytest.fixture
    def keeps_times(self) -> bool:
        """False for a driver that leaves mounting to a program which changes times on its own, as fuse-overlayfs does.

        Times in a container are then taken from what is seen. Those of committed layers still have to stay.
        """
        return True

    @pytest.fixture
    def thorough(self) -> bool:
        """By night every point of failure is tried, by day some of each kind."""
        return os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

    @pytest.fixture
    def driver(self) -> type[StorageDriver]:
        """The class that is tested."""
        raise pytest.UsageError("A subclass of DriverConformance needs a fixture `driver`: the class to be tested")

    @pytest.fixture
    def home(self, backing: Callable[[str], Path]) -> Path:
        """Where the driver may keep its layers. Does not exist yet; its parent is empty."""
        return backing("ext4") / "home"

    @pytest.fixture
    def options(self, driver: type[StorageDriver]) -> Any:
        """An instance of the driver's options class."""
        return driver.options()

    @pytest.fixture
    def bench(self, driver: type[StorageDriver], home: Path, options: Any) -> Iterator[Workbench[StorageDriver]]:
        """The driver at work."""
        driver.probe(home, options)
        with Workbench.of(driver, home, options) as bench:
            before = Remains.of(bench.driver)
            yield bench
            bench.remove_all()
            left = Remains.of(bench.driver).more_than(before, ignoring=("home", "staging", "groups"))
            left += [path for path in paths_below(home) if _KEY.search(path)]
            assert not left, f"all its layers are removed, and there is still {left[:5]}"

    @pytest.fixture
    def image(self, bench: Workbench[StorageDriver]) -> list[Layer]:
        """A committed layer, as the parents of what stands on it."""
        return bench.stack(BASE)
