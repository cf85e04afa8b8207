"""`Workbench`: a home with its driver, and the core's part in a driver's work: keys, filling, mounts, removal.

What the core does with a driver it does here in its plainest form, without a database and without tar, so that a driver
can be tried by itself. Layers are filled from `tars.Entry` values, in the driver's dialect.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from layerstore.changes import Changes
from layerstore.driver import Dialect, LayerKey, StorageDriver, Usage
from layerstore.kernel.files import copy_root_attributes, remove_tree, syncfs
from layerstore.kernel.mounts import mounting
from layerstore.testing import trees
from layerstore.testing.edits import MountedTree, fill
from layerstore.testing.tars import Entry, file

__all__ = ["Workbench", "key"]

_OPAQUE, _WHITEOUT = b".wh..wh..opq", b".wh."

Driver = TypeVar("Driver", bound=StorageDriver)


def key() -> LayerKey:
    """A name for a layer, as the core gives them."""
    return LayerKey(os.urandom(16).hex())


class Workbench(Generic[Driver]):
    """One driver at work in `home`. A context manager: at its end nothing is mounted, and all layers are gone."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.mounted: list[Path] = []

    @classmethod
    def of(cls, kind: type[Driver], home: Path, options: Any = None) -> Self:
        """A driver of this class, with its home and a staging folder beside it, as in a data-root."""
        staging = home.with_name("staging")
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging.mkdir(mode=0o700, exist_ok=True)
        return cls(kind(home, staging, kind.options() if options is None else options))

    def again(self) -> Self:
        """What another process has: a driver of its own in the same home, with a staging folder of its own."""
        staging = self.driver.home.with_name(f"staging-{os.urandom(4).hex()}")
        staging.mkdir(mode=0o700)
        return type(self)(type(self.driver)(self.driver.home, staging, self.driver.settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmount and remove all, and the folders too."""
        for place in reversed(self.mounted):
            mounting.unmount(place, lazy=True)
        self.mounted.clear()
        with ExitStack() as parts:
            for folder in (self.driver.home, *self.driver.home.parent.glob("staging*")):
                parts.callback(remove_tree, folder)
            parts.callback(self.driver.close)
            if self.driver.home.exists():  # or another bench, in the same home, was closed before
                for layer in self.keys():
                    parts.callback(self.remove, layer)

    def remove_all(self) -> None:
        """Remove each layer, as the core would, and give back what the driver holds open."""
        for layer in self.keys():
            self.remove(layer)
        self.driver.close()
        self.empty_staging()

    # --- layers ------------------------------------------------------------------------------------------------------

    def staged(self, parents: Sequence[LayerKey] = (), *entries: Entry) -> LayerKey:
        """A layer that is filled and not sealed. `.wh.` names mean what they mean in a layer's tar."""
        made = key()
        self.driver.create(made, parents, staged=True)
        dialect = self.driver.capabilities.dialect
        if parents and dialect is not Dialect.MERGED:
            # A root directory that the layer does not list looks as the parents': this is the core's to see to.
            with self.look(parents[0], parents[1:]) as below:
                copy_root_attributes(below, self.tree(made))
        with MountedTree(self.tree(made)) as tree:
            _fill(tree, entries, dialect)
        return made

    def seal(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> LayerKey:
        """As the core does it: sync, seal, remove what the driver has replaced."""
        sealed = self.seal_only(layer, parents)
        if sealed != layer:
            self.remove(layer)
        return sealed

    def seal_only(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> LayerKey:
        """Sync and seal. What the driver has replaced is still there, as before the core has written its row."""
        syncfs(self.driver.home)
        return self.driver_seal(layer, parents)

    def driver_seal(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> LayerKey:
        """The driver's own part of that."""
        return self.driver.seal(layer, parents)

    def empty_staging(self, *, keep: LayerKey | None = None) -> None:
        """Delete what was removed, or left by a death, as the core does."""
        for name in os.listdir(self.driver.staging):
            if name != keep:
                remove_tree(self.driver.staging / name)

    def layer(self, parents: Sequence[LayerKey] = (), *entries: Entry, **files: str) -> LayerKey:
        """A committed layer with these entries, or files with these texts."""
        texts = [file(name.encode(), text.encode()) for name, text in files.items()]
        return self.seal(self.staged(parents, *entries, *texts), parents)

    def stack(self, *layers: Sequence[Entry]) -> list[LayerKey]:
        """Committed layers on each other, given bottom to top: their keys, nearest first, as parents are."""
        keys: list[LayerKey] = []
        for entries in layers:
            keys.insert(0, self.layer(keys, *entries))
        return keys

    def container(self, parents: Sequence[LayerKey] = (), **more: Any) -> LayerKey:
        """The writable layer of a container."""
        made = key()
        self.create(made, parents, **more)
        return made

    def create(self, layer: LayerKey, parents: Sequence[LayerKey] = (), **more: Any) -> None:
        """The same, of a given name."""
        self.driver.create(layer, parents, **more)

    def remove(self, layer: LayerKey) -> None:
        """Into the staging folder, where it stays for now."""
        self.driver.remove(layer)

    def keys(self) -> list[LayerKey]:
        """All that the driver knows of in its home."""
        return list(self.driver.layers())

    def has(self, layer: LayerKey) -> bool:
        """Does the driver know of it?"""
        return layer in list(self.driver.layers())

    # --- trees -------------------------------------------------------------------------------------------------------

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
            if self.driver.capabilities.dialect is not Dialect.OVERLAY:
                syncfs(self.driver.home)

    @contextmanager
    def edit(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> Iterator[MountedTree]:
        """The same, to be edited by names of any bytes."""
        with self.mount(layer, parents) as place, MountedTree(place) as tree:
            yield tree

    @contextmanager
    def look(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> Iterator[Path]:
        """The tree of any layer, to read."""
        with mounting.detached(self.driver.mounts(layer, parents, read_only=True)) as tree:
            yield Path(f"/proc/self/fd/{tree}")

    def listing(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> dict[str, trees.Entry]:
        """Everything that is seen there."""
        with self.look(layer, parents) as place:
            return trees.listing(place)

    def tree(self, layer: LayerKey) -> Path:
        """The directory of its own files, in the driver's dialect."""
        return self.driver.tree(layer)

    def work_folder(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> Path | None:
        """The work directory of a writable mount, if it is one that has any."""
        recipe = self.driver.mounts(layer, parents, read_only=False)
        found = [value for mount in recipe for name, value in mount.options if name == "workdir"]
        return Path(found[0]) if found and found[0] else None

    def changes(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> Changes:
        """What the driver finds."""
        return self.driver.changes(layer, parents)

    def usage(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> Usage:
        """What the driver says that it occupies."""
        return self.driver.usage(layer, parents)

    def graph_data(self, layer: LayerKey, parents: Sequence[LayerKey] = ()) -> Mapping[str, str]:
        """What the driver gives to `inspect`."""
        return self.driver.graph_data(layer, parents)


def _fill(tree: MountedTree, entries: Sequence[Entry], dialect: Dialect) -> None:
    for entry in entries:
        folder, _, name = entry.name.rpartition(b"/")
        prefix = folder + b"/" if folder else b""
        if not name.startswith(_WHITEOUT):
            if dialect is Dialect.MERGED:
                _make_room(tree, entry)
            fill(tree, entry)
        elif dialect is Dialect.AUFS:
            tree.write(entry.name, b"")
        elif dialect is Dialect.OVERLAY and name == _OPAQUE:
            tree.setxattr(folder, b"trusted.overlay.opaque", b"y")
        elif dialect is Dialect.OVERLAY:
            tree.mknod(prefix + name.removeprefix(_WHITEOUT), stat.S_IFCHR)
            tree.setxattr(folder, b"trusted.overlay.origin", b"")
        elif name == _OPAQUE:
            for child in tree.names(folder):
                tree.remove(prefix + child)
        else:
            tree.remove(prefix + name.removeprefix(_WHITEOUT))
    # What was made in a directory has changed its time.
    for entry in entries:
        if entry.kind.name == "FOLDER":
            tree.utimes(entry.name.strip(b"/"), entry.mtime)


def _make_room(tree: MountedTree, entry: Entry) -> None:
    """In a whole tree, what the layers below have at this path goes, but for a directory under a directory."""
    path = entry.name.strip(b"/")
    kind = tree.kind(path)
    if kind is not None and not (kind == stat.S_IFDIR and entry.kind.name == "FOLDER"):
        tree.remove(path)
