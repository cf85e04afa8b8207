"""The `vfs` driver: a layer is a directory with the whole tree, and a child begins as a copy of its parent.

`home/dir/<key>` is the tree, and nothing else is needed to read it. A container has two things more: `home/mnt/<key>`,
where it is mounted, and `home/copied/<key>`, what the copier told of its copy, by which changes are found without
reading everything. That file is believed only as far as it fits what is there; without it everything is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from layerstore.changes import Changes, compare_copied, compare_trees
from layerstore.driver import (
    Backing,
    Capabilities,
    Dialect,
    Layer,
    LayerKey,
    Mount,
    State,
    StorageDriver,
    Usage,
    usage_of,
    usage_of_changes,
)
from layerstore.errors import CannotRepresent, DriverNotSupported, named
from layerstore.kernel import files
from layerstore.kernel.copying import Copied, copy_tree, listed
from layerstore.kernel.files.descriptors import FOLDER, opened, write_private
from layerstore_vfs import probing
from layerstore_vfs.settings import Copy, Settings

__all__ = ["Copy", "Settings", "Vfs"]

_DIR, _MNT, _COPIED = "dir", "mnt", "copied"

_KEY = re.compile("[0-9a-f]{32}")


class Vfs(StorageDriver):
    """Layers as whole trees."""

    name: ClassVar[str] = "vfs"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.MERGED)
    options: ClassVar[type] = Settings
    settings: Settings

    def __init__(self, home: Path, staging: Path, options: Settings) -> None:
        super().__init__(home, staging, options)
        for name in (_DIR, _MNT, _COPIED):
            with named("mkdir", home / name):
                (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def probe(cls, home: Path, options: Settings) -> Backing:
        return probing.probe(home, options)

    # ---- layers

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        if size is not None:
            raise DriverNotSupported(
                "vfs cannot limit the size of a container",
                remedy="Leave the size out, or use overlay2 on xfs or ext4 with project quotas, or btrfs.",
            )
        made = self.staging / layer.key
        try:
            copied = self._make(made, parents)
            if not layer.is_staged:
                self._keep(layer, parents, copied)
        except BaseException:
            if not layer.is_staged:
                self.remove(layer)  # it may have come into the home before something failed
            files.remove_tree(made)
            raise

    def tree(self, layer: Layer) -> Path:
        return self.staging / layer.key if layer.is_staged else self.home / _DIR / layer.key

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        # A container's tree is already what the layer is to be, where it is to be.
        if layer.is_staged:
            files.rename_durably(self.tree(layer), self.home / _DIR / layer.key)
        else:
            files.fsync_folder(self.home / _DIR)
        return layer.key

    def remove(self, layer: Layer) -> None:
        if layer.is_staged:
            return
        self._clear_away(layer)
        with named("rename", self.tree(layer)):
            files.move_away(self.tree(layer), self.staging / layer.key)

    def keys(self) -> Iterable[LayerKey]:
        found: set[str] = set()
        for name in (_DIR, _MNT, _COPIED):
            with named("listdir", self.home / name):
                found.update(filter(_KEY.fullmatch, os.listdir(self.home / name)))
        return map(LayerKey, sorted(found))

    # ---- stacks

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        return (Mount("bind", os.fspath(self.tree(layer)), read_only=read_only),)

    def mountpoint(self, layer: Layer) -> Path:
        return self.home / _MNT / layer.key

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        with opened(self.tree(layer), FOLDER) as new:
            if not parents:
                return compare_trees(new, None, content=True)
            with opened(self.tree(parents[0]), FOLDER) as old:
                return compare_copied(new, old, self._told(layer, parents[0]))

    def segment(self, layer: Layer, parents: Sequence[Layer], key: LayerKey, *, in_use: bool) -> LayerKey | None:
        """A copy of the tree, which shares blocks where the filesystem can: it costs what a container costs."""
        made, kept = self.staging / key, self.home / _DIR / key
        try:
            self._make(made, (layer,))
            files.syncfs(self.home)
            files.rename_durably(made, kept)
        except BaseException:
            files.remove_tree(made)
            files.move_away(kept, made)
            raise
        return key

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        """What it has otherwise than its parent, as docker counts it. No file is read for that without need.

        So of a container that cannot be told by its list, what has its old size and time counts as unaltered.
        """
        if not parents:
            return usage_of(self.tree(layer))
        with opened(self.tree(layer), FOLDER) as new, opened(self.tree(parents[0]), FOLDER) as old:
            told = self._told(layer, parents[0])
            try:
                found = compare_copied(new, old, told) if told else compare_trees(new, old)
            except CannotRepresent:
                return usage_of(self.tree(layer))
            return usage_of_changes(new, found)

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        tree = os.fspath(self.tree(layer))
        merged = os.fspath(self.mountpoint(layer)) if layer.state is State.WRITABLE else tree
        return {"MergedDir": merged, "SourceDir": tree, "UpperDir": tree}

    # ---- private

    def _make(self, tree: Path, parents: Sequence[Layer]) -> Copied | None:
        """A tree as that of the nearest parent, and what is told of the copy, if it is one. Not synced."""
        if not parents:
            with named("mkdir", tree):
                files.make_plain_folder(tree)
            return None
        share = self.settings.copy is not Copy.COPY
        return copy_tree(self.tree(parents[0]), tree, threads=self.settings.threads, share=share)

    def _keep(self, layer: Layer, parents: Sequence[Layer], copied: Copied | None) -> None:
        """Put a container's tree into the home, whole and durable, with what belongs to it first."""
        with named("mkdir", self.mountpoint(layer)):
            self.mountpoint(layer).mkdir(mode=0o700, exist_ok=True)
        files.syncfs(self.home)
        # Now: by the end of a sync, the clock has most likely moved on since the copy, for which this would wait.
        note = b"" if copied is None else copied.note(self.staging / layer.key, parents[0].key)
        if note:
            with named("write", self.home / _COPIED / layer.key):
                write_private(self.home / _COPIED / layer.key, note)
        with named("rename", self.tree(layer)):
            (self.staging / layer.key).rename(self.tree(layer))
        files.fsync_folder(self.home / _DIR)

    def _told(self, layer: Layer, parent: Layer) -> bytes:
        return listed(self.home / _COPIED / layer.key, self.tree(layer), parent.key)

    def _clear_away(self, layer: Layer) -> None:
        """What a layer has beside its tree. The mountpoint first: while something is mounted there, all stays."""
        with named("rmdir", self.mountpoint(layer)):
            files.clear_mountpoint(self.mountpoint(layer), self.staging / f"{layer.key}.{_MNT}")
        with named("unlink", self.home / _COPIED / layer.key):
            (self.home / _COPIED / layer.key).unlink(missing_ok=True)
