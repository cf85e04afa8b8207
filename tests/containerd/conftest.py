"""Stores with each driver that are served to containerd, by this process, on a socket in a folder of the test's own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import layerstore
from containerd.client import Client
from layerstore.faces.containerd.server import Server

FILESYSTEM_OF = {"overlay2": "ext4", "erofs": "ext4", "vfs": "xfs", "btrfs": "btrfs", "aufs": "ext4"}


@pytest.fixture
def socket() -> Iterator[Path]:
    """A path for a socket: short, whatever the folder of the tests is called."""
    with tempfile.TemporaryDirectory(prefix="ls ") as folder:
        yield Path(folder) / "snap.sock"


@pytest.fixture
def open_store(backing: Callable[[str], Path]) -> Iterator[Callable[..., layerstore.Store]]:
    """`open_store("btrfs")`: a store with this driver; called again, the same. Closed with the test."""
    places: dict[str, Path] = {}
    with ExitStack() as opened:

        def make(driver: str = "overlay2", **settings: Any) -> layerstore.Store:
            place = places.setdefault(driver, backing(FILESYSTEM_OF[driver]))
            config = layerstore.Config(
                data_root=place / "store", exec_root=place / "exec", storage_driver=driver, **settings
            )
            return opened.enter_context(layerstore.open(config=config))

        yield make


@pytest.fixture
def serve(socket: Path) -> Iterator[Callable[[layerstore.Store], Client]]:
    """`serve(store)`: a client of it. What containerd has is below `containerd` beside the socket."""
    with ExitStack() as running:

        def start(store: layerstore.Store) -> Client:
            running.enter_context(Server(store, socket, socket.parent / "containerd", socket.parent / "none.sock"))
            return running.enter_context(Client(socket))

        yield start
