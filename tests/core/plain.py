"""A driver that keeps every layer as a full copy of its stack: what `vfs` is, in its smallest form.

Its layers depend on their parents, so it takes the core through everything that overlay2 never does: layers are
unpacked one after another, each on the last, and a layer that was staged before its parents were known is spooled.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from attrs import frozen

from layerstore.changes import Changes, compare_trees
from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, Layer, LayerKey, Mount, StorageDriver
from layerstore.errors import DriverNotSupported
from layerstore.kernel.files import fsync_folder, remove_tree


@frozen
class Settings:
    """It has no options."""


class Plain(StorageDriver):
    """Copies of whole trees."""

    name: ClassVar[str] = "plain"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.MERGED)
    options: ClassVar[type] = Settings

    @classmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        return Backing("any", CopyOnWrite.NONE, quota=False)

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        if size is not None:
            raise DriverNotSupported("plain cannot limit a container", remedy="Leave the size out.")
        folder = self.staging / layer.key
        (folder / "merged").mkdir(parents=True)
        try:
            if parents:
                _copy(self.tree(parents[0]), folder / "tree")
            else:
                (folder / "tree").mkdir()
        except BaseException:
            remove_tree(folder)
            raise
        if not layer.is_staged:
            folder.rename(self.home / layer.key)

    def tree(self, layer: Layer) -> Path:
        return (self.staging if layer.is_staged else self.home) / layer.key / "tree"

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        return (Mount("bind", str(self.tree(layer)), read_only=read_only),)

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        sealed = LayerKey(f"{layer.key}s")
        if layer.is_staged:
            (self.staging / layer.key).rename(self.home / sealed)
        else:
            # What is a container's stays one until the row is written: a new object, as a snapshot is.
            copy = self.staging / sealed
            _copy(self.home / layer.key, copy)
            os.sync()
            copy.rename(self.home / sealed)
        fsync_folder(self.home)
        return sealed

    def remove(self, layer: Layer) -> None:
        try:
            (self.home / layer.key).rename(self.staging / layer.key)
        except FileNotFoundError:
            pass

    def keys(self) -> Iterable[LayerKey]:
        return map(LayerKey, os.listdir(self.home))

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        with ExitStack() as opened:
            fds = []
            for one in (layer, *parents[:1]):
                fds.append(os.open(self.tree(one), os.O_RDONLY | os.O_DIRECTORY))
                opened.callback(os.close, fds[-1])
            return compare_trees(fds[0], fds[1] if parents else None)

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        return {"SourceDir": str(self.tree(layer))}


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True, capture_output=True)
