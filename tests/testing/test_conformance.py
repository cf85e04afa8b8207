"""The conformance kit on every driver of ours, on each filesystem it works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerstore import config, plugins
from layerstore.driver import StorageDriver
from layerstore.testing.conformance import DriverConformance
from testing.drivers import CASES, Case

pytestmark = pytest.mark.root


@pytest.mark.parametrize("case", CASES, ids=str)
class TestDrivers(DriverConformance):
    """Every behaviour, of each driver in each of its modes."""

    @pytest.fixture
    def driver(self, case: Case) -> type[StorageDriver]:
        return plugins.find(case.driver)

    @pytest.fixture
    def options(self, case: Case, driver: type[StorageDriver]) -> Any:
        return config.driver_options(config.Config(storage_opts=case.options), case.driver, driver.options)

    @pytest.fixture
    def home(self, case: Case, backing: Callable[[str], Path]) -> Path:
        return backing(case.filesystem) / case.driver
