"""A driver that keeps every layer as a full copy of its stack: what `vfs` is, in its smallest form.

Its layers depend on their parents, so it takes the core through everything that overlay2 never does: layers are
unpacked one after another, each on the last, and a layer that was staged before its parents were known is spooled.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from attrs import frozen

from layerstore.changes import Changes, compare_trees
from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, LayerKey, Mount, StorageDriver
from layerstore.errors import KernelError
from layerstore.kernel.files import fsync_folder, remove_tree


@frozen
class Settings:
    """It has no options."""


class Plain(StorageDriver):
    """Copies of whole trees."""

    name: ClassVar[str] = "plain"
    capabilities: ClassVar[Capabilities] = Capabilities(
        dialect=Dialect.MERGED,
        independent_layers=False,
        copy_on_write=CopyOnWrite.NONE,
        quota=False,
        max_depth=None,
    )
    options: ClassVar[type] = Settings

    @classmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        return Backing("any", CopyOnWrite.NONE, quota=False)

    def create(
        self, layer: LayerKey, parents: Sequence[LayerKey], *, staged: bool = False, size: int | None = None
    ) -> None:
        folder = self.staging / layer
        (folder / "merged").mkdir(parents=True)
        try:
            if parents:
                _copy(self.tree(parents[0]), folder / "tree")
            else:
                (folder / "tree").mkdir()
        except KernelError:
            remove_tree(folder)
            raise
        if not staged:
            folder.rename(self.home / layer)

    def tree(self, layer: LayerKey) -> Path:
        staged = self.staging / layer
        return (staged if staged.exists() else self.home / layer) / "tree"

    def mounts(self, layer: LayerKey, parents: Sequence[LayerKey], *, read_only: bool) -> Sequence[Mount]:
        return (Mount("bind", str(self.tree(layer)), read_only=read_only),)

    def seal(self, layer: LayerKey, parents: Sequence[LayerKey]) -> LayerKey:
        sealed = LayerKey(f"{layer}s")
        old = self.staging / layer
        if old.exists():
            old.rename(self.home / sealed)
        else:
            # What is a container's stays one until the row is written: a new object, as a snapshot is.
            copy = self.staging / sealed
            _copy(self.home / layer, copy)
            os.sync()
            copy.rename(self.home / sealed)
        fsync_folder(self.home)
        return sealed

    def remove(self, layer: LayerKey) -> None:
        try:
            (self.home / layer).rename(self.staging / layer)
        except FileNotFoundError:
            pass

    def layers(self) -> Iterator[LayerKey]:
        return (LayerKey(name) for name in os.listdir(self.home))

    def changes(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Changes:
        with ExitStack() as opened:
            fds = []
            for key in (layer, *parents[:1]):
                fds.append(os.open(self.tree(key), os.O_RDONLY | os.O_DIRECTORY))
                opened.callback(os.close, fds[-1])
            return compare_trees(fds[0], fds[1] if parents else None)

    def graph_data(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Mapping[str, str]:
        return {"SourceDir": str(self.tree(layer))}


def _copy(source: Path, target: Path) -> None:
    try:
        subprocess.run(["cp", "-a", source, target], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        full = b"No space left" in error.stderr
        raise KernelError("cp", errno.ENOSPC if full else errno.ENOENT, path=source) from error
