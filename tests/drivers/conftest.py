"""A driver to work with, and the core's part in its work: keys, mounts, removal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from layerstore.driver import LayerKey
from layerstore.kernel import mount as mounting
from layerstore.kernel.files import remove_tree
from layerstore_overlay2 import Overlay2, Settings


def key() -> LayerKey:
    return LayerKey(os.urandom(16).hex())


@define
class Workbench:
    """A home with its driver, and what the core does with both."""

    driver: Overlay2
    mounted: list[Path] = field(factory=list)

    def layer(self, parents: Sequence[LayerKey] = (), **files: str) -> LayerKey:
        """A committed layer with these files."""
        made = key()
        self.driver.create(made, parents, staged=True)
        for name, text in files.items():
            (self.driver.tree(made) / name).write_text(text)
        return self.driver.seal(made, parents)

    def container(self, parents: Sequence[LayerKey] = (), **more: Any) -> LayerKey:
        made = key()
        self.driver.create(made, parents, **more)
        return made

    @contextmanager
    def mount(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> Iterator[Path]:
        """The writable tree of a container."""
        place = self.driver.mountpoint(layer)
        mounting.attach(self.driver.mounts(layer, parents, read_only=False), place)
        self.mounted.append(place)
        try:
            yield place
        finally:
            mounting.unmount(place)
            self.mounted.remove(place)

    @contextmanager
    def look(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> Iterator[Path]:
        """The tree of any layer, to read."""
        with mounting.detached(self.driver.mounts(layer, parents, read_only=True)) as tree:
            yield Path(f"/proc/self/fd/{tree}")


@pytest.fixture
def workbench(backing: Callable[[str], Path]) -> Iterator[Callable[..., Workbench]]:
    """`workbench("xfs", volatile=True)`: a new home on such a filesystem, with a driver of these options."""
    made: list[Workbench] = []

    def make(kind: str = "ext4", folder: Path | None = None, **options: Any) -> Workbench:
        folder = folder or backing(kind)
        home, staging = folder / "overlay2", folder / "staging"
        home.mkdir(mode=0o700, exist_ok=True)
        staging.mkdir(mode=0o700, exist_ok=True)
        made.append(Workbench(Overlay2(home, staging, Settings(**options))))
        return made[-1]

    yield make
    for bench in made:
        for place in bench.mounted:
            mounting.unmount(place, lazy=True)
        remove_tree(bench.driver.home)
