"""Stores that take in little, and what has to be left of them: nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import layerstore
from layerstore import Limits, Store
from transfer.archives import staying

Opened = Callable[..., Store]
"""`limited(layer_size=4096)`."""


@pytest.fixture
def limited(data_root: Path) -> Iterator[Opened]:
    """A store with these limits, and the usual ones for all else. Whatever was refused may leave nothing in it."""
    with ExitStack() as opened:

        def make(*, driver: str = "overlay2", root: Path = data_root, **limits: int) -> Store:
            config = layerstore.Config(
                data_root=root,
                exec_root=root.with_name(f"exec-{root.name}"),
                storage_driver=driver,
                limits=Limits(**limits),
            )
            return opened.enter_context(layerstore.open(config=config))

        yield make


def require_empty(store: Store) -> None:
    """Nothing may be left of what was refused: no row, no folder, no file of a download."""
    root = store.data_root
    assert staying(root) == []
    assert store.images() == []
    assert store.check() == []
    for name in (store.info().driver, "skeletons", "partial", "blobs"):
        folder = root / name
        found = (
            []
            if not folder.is_dir()
            else [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
        )
        assert found == [], name
