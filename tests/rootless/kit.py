"""The conformance kit, as test_kit.py has an ordinary user run it: in a user namespace, below the current folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore import plugins
from layerstore.driver import StorageDriver
from layerstore.testing.conformance import DriverConformance


class TestWithoutRoot(DriverConformance):
    @pytest.fixture
    def driver(self) -> type[StorageDriver]:
        return plugins.find(os.environ["DRIVER"])

    @pytest.fixture(autouse=True)
    def leave_out_what_the_kernel_does_otherwise(self, request: pytest.FixtureRequest) -> None:
        if os.environ["DRIVER"] == "overlay2" and request.node.name.endswith("[a new link to a file of the image]"):
            pytest.skip("without `trusted.overlay.origin`, a file that is copied up gets another inode number at once")

    @pytest.fixture
    def home(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            yield Path(folder) / "home"
