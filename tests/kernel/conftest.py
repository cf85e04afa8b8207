"""Fixtures of the kernel's tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.stacks import Stack, make_stack
from layerstore.kernel.mounts import Mount, mount_id, mounting


@pytest.fixture
def stack(backing: Callable[[str], Path]) -> Stack:
    """Three lower directories and what a writable mount needs, on ext4."""
    return make_stack(backing("ext4"), 3)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Path:
    """An empty folder: on a filesystem of the tests' own where they may mount one."""
    if os.geteuid() != 0:
        return Path(request.getfixturevalue("tmp_path"))
    return Path(request.getfixturevalue("backing")("ext4"))


@pytest.fixture(params=["by descriptor", "by mount(2)"])
def interface(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to mount: the second is that of kernels before 6.13."""
    monkeypatch.setattr(mounting, "_by_descriptor", request.param == "by descriptor")
    return str(request.param)


@pytest.fixture
def mounted() -> Iterator[Callable[[list[Mount], Path], int]]:
    """`attach`, undone after the test."""
    places: list[Path] = []

    def mount(recipe: list[Mount], target: Path) -> int:
        identity = mounting.attach(recipe, target)
        places.append(target)
        return identity

    yield mount
    for place in reversed(places):
        if mount_id(place) is not None:
            mounting.unmount(place, lazy=True)
