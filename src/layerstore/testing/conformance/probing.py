"""What a driver says of itself, and what it finds out about a place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, StorageDriver
from layerstore.errors import DriverNotSupported
from layerstore.testing.conformance.subject import Subject
from layerstore.testing.remains import paths_below
from layerstore.testing.workbench import Workbench


class Probing(Subject):
    """What it is, and whether it can work here."""

    def test_it_says_what_it_is(self, driver: type[StorageDriver], options: Any) -> None:
        assert driver.name
        assert driver.name == driver.name.strip().lower(), "as in daemon.json"
        assert isinstance(driver.capabilities, Capabilities)
        assert isinstance(driver.capabilities.dialect, Dialect)
        assert driver.capabilities.max_depth is None or driver.capabilities.max_depth > 0
        assert attrs.has(driver.options), "options is an attrs class"
        assert isinstance(driver.options(), driver.options), "each option has a default"

    def test_a_probe_says_what_it_found_and_leaves_nothing(
        self, driver: type[StorageDriver], home: Path, options: Any
    ) -> None:
        before = os.listdir(home.parent)

        found = driver.probe(home, options)

        assert isinstance(found, Backing)
        assert found.filesystem
        assert isinstance(found.copy_on_write, CopyOnWrite)
        assert all(isinstance(word, str) for note in found.notes for word in note)
        assert os.listdir(home.parent) == before, "a home that does not exist is not made by a probe"
        home.mkdir()
        assert driver.probe(home, options) == found
        assert os.listdir(home) == []

    def test_a_probe_of_a_home_in_use_leaves_nothing(self, bench: Workbench[StorageDriver]) -> None:
        driver = bench.driver
        bench.layer(file="x")
        driver.probe(driver.home, driver.settings)  # the first may note what it found
        before = paths_below(driver.home)

        driver.probe(driver.home, driver.settings)

        assert paths_below(driver.home) == before

    def test_a_refusal_has_a_reason_and_a_remedy(self, driver: type[StorageDriver], options: Any) -> None:
        """Nothing can be kept in /proc."""
        with pytest.raises(DriverNotSupported) as caught:
            driver.probe(Path("/proc/self/home"), options)

        assert len(str(caught.value).split()) > 2, "the reason, in words"
        assert caught.value.remedy, "what the user could do"
