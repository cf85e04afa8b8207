"""Stores of others, recorded (`record`), beside a store to which they are attached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import layerstore
from attached import record
from layerstore import Store

KINDS = {"containerd": "containerd", "docker": "docker", "podman": "podman", "vfs": "podman"}
"""How each of the recorded stores is attached."""


@pytest.fixture
def place(backing: Callable[[str], Path]) -> Path:
    """A folder on ext4."""
    return backing("ext4")


@pytest.fixture
def peer(place: Path) -> Callable[[str], Path]:
    """`peer("docker")`: the recorded store."""
    return lambda name: record.unpacked(name, place / name)


@pytest.fixture
def attached(place: Path) -> Iterator[Callable[..., Store]]:
    """`attached("docker", driver="vfs")`: a store, open, to which the recorded stores in `place` are attached."""
    with ExitStack() as opened:

        def open_store(*names: str, driver: str = "overlay2") -> Store:
            config = layerstore.Config(
                data_root=place / f"own-{driver}", exec_root=place / "run", storage_driver=driver
            )
            specs = [name if ":" in name else f"{KINDS[name]}:{place / name}" for name in names]
            return opened.enter_context(layerstore.open(config=config, attach=specs))

        yield open_store
