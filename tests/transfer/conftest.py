"""Fixtures for archives: a store that must be exactly as it was after an archive was refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .archives import staying

if TYPE_CHECKING:
    from layerstore import Store


@pytest.fixture
def content(store: Store, data_root: Path) -> Callable[[], list[str]]:
    """Everything that a store holds: its images with their names, and the folders on disk. Staging has to be empty."""

    def listed() -> list[str]:
        assert staying(data_root) == []
        assert store.check() == []
        images = [f"{image.id} {image.tags}" for image in store.images()]
        layers = [str(path) for home in ("overlay2", "skeletons") for path in (data_root / home).iterdir()]
        return sorted(images + layers)

    return listed
