"""The conformance kit on every driver of ours, on each filesystem it works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from layerstore import config, plugins
from layerstore.driver import StorageDriver
from layerstore.testing.conformance import DriverConformance
from layerstore.testing.conformance.containers import Containers
from layerstore.testing.conformance.sealing import Sealing
from layerstore.testing.conformance.subject import Subject
from testing.drivers import CASES, VARIANTS, Case

pytestmark = pytest.mark.root


FUSE_FAULTS = {
    "an xattr": "a copy-up for an xattr loses setuid",
    "another value of an xattr": "a copy-up for an xattr loses setuid",
    "an xattr less": "a copy-up for an xattr loses setuid",
    "xattrs with overlay's names": "it keeps these names for itself",
    "new files belong to the group of their directory": "a copy-up of a directory loses setgid",
    "special files go and change": "it cannot copy a device up: EIO",
    "test_reading_changes_nothing": "opening for writing copies up, and that alters the time of the directory",
}
"""What fuse-overlayfs does otherwise than the kernel, by program or test. Nothing that the driver could mend."""

COSTLY = ("Breaking.", "Finding.", "Sealing.test_a_sealed_layer_fits", "Layers.test_as_many", "Layers.test_many_layers")
"""What takes long, and is much the same on each filesystem."""

MANY = ("Containers.test_edits_are_seen", "Layers.test_a_stack_shows", "Sealing.test_a_sealed_layer_means")
"""What has many cases: on all but the first filesystem of a driver one in so many, and not the same on each."""

EACH = 4

COPIED = ("aufs.mode=copy",)

EXACT = ("Breaking.", "Copies.", "Finding.", "PowerCuts.", "Sealing.")
"""Classes of the kit in which nearly every test meets a fault of fuse-overlayfs."""


class Ours(Subject):
    """A case says which driver it is."""

    @pytest.fixture
    def driver(self, case: Case) -> type[StorageDriver]:
        return plugins.find(case.driver)

    @pytest.fixture
    def options(self, case: Case, driver: type[StorageDriver]) -> Any:
        return config.driver_options(config.Config(storage_opts=case.options), case.driver, driver.options)

    @pytest.fixture(autouse=True)
    def expect_faults_of_others(self, case: Case, request: pytest.FixtureRequest) -> None:
        fault = FUSE_FAULTS.get(request.node.callspec.params.get("program", request.node.originalname))
        if case.is_fuse and fault:
            request.applymarker(pytest.mark.xfail(reason=f"fuse-overlayfs: {fault}", strict=True))

    @pytest.fixture(autouse=True)
    def leave_the_rest_for_the_night(self, case: Case, request: pytest.FixtureRequest, *, thorough: bool) -> None:
        name = request.function.__qualname__
        if not thorough and not case.is_first:
            if name.startswith(COSTLY):
                pytest.skip("by night: by day it is tried on one filesystem, and without fuse-overlayfs")
            if name.startswith(MANY) and crc32(request.node.name.encode()) % EACH:
                pytest.skip("by night: by day it is tried on one filesystem, and some of it on each")
        if not thorough and case.options == COPIED and name.startswith("Breaking."):
            pytest.skip("by night: by day vfs is broken off, which copies as aufs does")
        if case.is_fuse and request.function.__qualname__.startswith(EXACT):
            pytest.skip("fuse-overlayfs gives what it copies up other times and modes: see FUSE_FAULTS")

    @pytest.fixture
    def keeps_times(self, case: Case) -> bool:
        return not case.is_fuse

    @pytest.fixture
    def home(self, case: Case, backing: Callable[[str], Path]) -> Path:
        return backing(case.filesystem) / case.driver


@pytest.mark.parametrize("case", CASES, ids=str)
class TestDrivers(Ours, DriverConformance):
    """Every behaviour, of each driver in each of its modes."""


@pytest.mark.parametrize("case", VARIANTS, ids=str)
class TestOptions(Ours, Containers, Sealing):
    """What concerns containers, where an option has them written otherwise."""
