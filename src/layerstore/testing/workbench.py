"""`Workbench`: a home with its driver, and the core's part in a driver's work: keys, filling, mounts, removal.

What the core does with a driver it does here in its plainest form, without a database and without tar, so that a driver
can be tried by itself. Layers are filled from `tars.Entry` values, in the driver's dialect. Each is a `Layer`, and what
its state is from then on is known here: a driver's `seal` makes a committed one of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from attrs import evolve

from layerstore.changes import Changes
from layerstore.driver import Dialect, Layer, LayerKey, State, StorageDriver, Usage, blamed
from layerstore.driver import look as look_into
from layerstore.kernel.files import copy_root_attributes, remove_tree, syncfs
from layerstore.kernel.mounts import mounting
from layerstore.testing import trees
from layerstore.testing.edits import MountedTree, fill
from layerstore.testing.tars import Entry, file
from layerstore.testing.without_root import marks

__all__ = ["Workbench", "key", "keys_of"]

_OPAQUE, _WHITEOUT = b".wh..wh..opq", b".wh."

Driver = TypeVar("Driver", bound=StorageDriver)


def key() -> LayerKey:
    """A name for a layer, as the core gives them."""
    return LayerKey(os.urandom(16).hex())


def keys_of(*layers: Layer) -> list[LayerKey]:
    """Their keys, sorted: to be compared with `Workbench.keys`."""
    return sorted(layer.key for layer in layers)


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
                for found in self.keys():
                    parts.callback(self.remove, Layer(found))

    def remove_all(self) -> None:
        """Remove each layer, as the core would, and give back what the driver holds open."""
        for found in self.keys():
            self.remove(Layer(found))
        self.driver.close()
        self.empty_staging()

    # --- layers ------------------------------------------------------------------------------------------------------

    def staged(self, parents: Sequence[Layer] = (), *entries: Entry) -> Layer:
        """A layer that is filled and not sealed. `.wh.` names mean what they mean in a layer's tar."""
        made = Layer(key(), State.STAGED)
        self.create(made, parents)
        dialect = self.driver.capabilities.dialect
        if parents and dialect is not Dialect.MERGED:
            # A root directory that the layer does not list looks as the parents': this is the core's to see to.
            with self.look(parents[0], parents[1:]) as below:
                copy_root_attributes(below, self.tree(made))
        with MountedTree(self.tree(made)) as tree:
            _fill(tree, entries, dialect)
        return made

    def seal(self, layer: Layer, parents: Sequence[Layer] = ()) -> Layer:
        """As the core does it: sync, seal, remove what the driver has replaced."""
        sealed = self.seal_only(layer, parents)
        if sealed.key != layer.key:
            self.remove(layer)
        return sealed

    def seal_only(self, layer: Layer, parents: Sequence[Layer] = ()) -> Layer:
        """Sync and seal. What the driver has replaced is still there, as before the core has written its row."""
        syncfs(self.driver.home)
        return self.driver_seal(layer, parents)

    def driver_seal(self, layer: Layer, parents: Sequence[Layer] = ()) -> Layer:
        """The driver's own part of that."""
        with blamed(self.driver.name, "seal", layer):
            return Layer(self.driver.seal(layer, parents))

    def empty_staging(self, *, keep: Layer | None = None) -> None:
        """Delete what was removed, or left by a death, as the core does."""
        for name in os.listdir(self.driver.staging):
            if keep is None or name != keep.key:
                remove_tree(self.driver.staging / name)

    def layer(self, parents: Sequence[Layer] = (), *entries: Entry, **files: str) -> Layer:
        """A committed layer with these entries, or files with these texts."""
        texts = [file(name.encode(), text.encode()) for name, text in files.items()]
        return self.seal(self.staged(parents, *entries, *texts), parents)

    def stack(self, *layers: Sequence[Entry]) -> list[Layer]:
        """Committed layers on each other, given bottom to top; returned nearest first, as parents are."""
        made: list[Layer] = []
        for entries in layers:
            made.insert(0, self.layer(made, *entries))
        return made

    def container(self, parents: Sequence[Layer] = (), **more: Any) -> Layer:
        """The writable layer of a container."""
        made = Layer(key(), State.WRITABLE)
        self.create(made, parents, **more)
        return made

    def create(self, layer: Layer, parents: Sequence[Layer] = (), **more: Any) -> None:
        """The same, of a given name; or a staged one, which is empty."""
        with blamed(self.driver.name, "create", layer):
            self.driver.create(layer, parents, **more)

    def remove(self, layer: Layer) -> None:
        """Into the staging folder, where it stays for now."""
        with blamed(self.driver.name, "remove", layer):
            self.driver.remove(layer)

    def keys(self) -> list[LayerKey]:
        """All that the driver knows of in its home, sorted."""
        return sorted(self.driver.keys())

    def has(self, layer: Layer) -> bool:
        """Does the driver know of it, in its home?"""
        return layer.key in self.keys()

    # --- trees -------------------------------------------------------------------------------------------------------

    @contextmanager
    def mount(self, layer: Layer, parents: Sequence[Layer] = ()) -> Iterator[Path]:
        """The writable tree of a container."""
        with blamed(self.driver.name, "mount", layer):
            self.driver.prepare(layer, parents, read_only=False)
            self.driver.prepare(layer, parents, read_only=False)
        recipe = self.driver.mounts(layer, parents, read_only=False)
        place = self.driver.mountpoint(layer)
        mounting.attach(recipe, place)
        self.mounted.append(place)
        try:
            yield place
        finally:
            mounting.unmount(place)
            self.mounted.remove(place)
            if self.driver.capabilities.dialect is not Dialect.OVERLAY:
                syncfs(self.driver.home)

    @contextmanager
    def edit(self, layer: Layer, parents: Sequence[Layer] = ()) -> Iterator[MountedTree]:
        """The same, to be edited by names of any bytes."""
        with self.mount(layer, parents) as place, MountedTree(place) as tree:
            yield tree

    @contextmanager
    def look(self, layer: Layer, parents: Sequence[Layer] = ()) -> Iterator[Path]:
        """The tree of any layer, to read."""
        with look_into(self.driver, layer, parents) as tree:
            yield Path(f"/proc/self/fd/{tree}")

    def listing(self, layer: Layer, parents: Sequence[Layer] = ()) -> dict[str, trees.Entry]:
        """Everything that is seen there."""
        with self.look(layer, parents) as place:
            return trees.listing(place)

    def tree(self, layer: Layer) -> Path:
        """The directory of its own files, in the driver's dialect."""
        return self.driver.tree(layer)

    def work_folder(self, layer: Layer, parents: Sequence[Layer] = ()) -> Path | None:
        """The work directory of a writable mount, if it is one that has any."""
        self.driver.prepare(layer, parents, read_only=False)
        recipe = self.driver.mounts(layer, parents, read_only=False)
        found = [value for mount in recipe for name, value in mount.options if name == "workdir"]
        return Path(found[0]) if found and found[0] else None

    def changes(self, layer: Layer, parents: Sequence[Layer] = ()) -> Changes:
        """What the driver finds."""
        with blamed(self.driver.name, "compare", layer):
            return self.driver.changes(layer, parents)

    def notes(self) -> tuple[tuple[str, str], ...]:
        """What `info` shows of the driver."""
        return self.driver.probe(self.driver.home, self.driver.settings).notes

    def usage(self, layer: Layer, parents: Sequence[Layer] = ()) -> Usage:
        """What the driver says that it occupies."""
        return self.driver.usage(layer, parents)

    def graph_data(self, layer: Layer, parents: Sequence[Layer] = ()) -> Mapping[str, str]:
        """What the driver gives to `inspect`."""
        return self.driver.graph_data(layer, parents)


def _fill(tree: MountedTree, entries: Sequence[Entry], dialect: Dialect) -> None:
    for entry in entries:
        folder, _, name = entry.name.rpartition(b"/")
        prefix = folder + b"/" if folder else b""
        if not name.startswith(_WHITEOUT):
            if dialect is Dialect.MERGED:
                _make_room(tree, entry)
            fill(tree, _escaped(entry) if dialect is Dialect.OVERLAY else entry)
        elif dialect is Dialect.AUFS:
            tree.write(entry.name, b"")
        elif dialect is Dialect.OVERLAY and name == _OPAQUE:
            tree.setxattr(folder, marks() + b"opaque", b"y")
        elif dialect is Dialect.OVERLAY:
            tree.mknod(prefix + name.removeprefix(_WHITEOUT), stat.S_IFCHR)
            tree.setxattr(folder, marks() + b"origin", b"")
        elif name == _OPAQUE:
            for child in tree.names(folder):
                tree.remove(prefix + child)
        else:
            tree.remove(prefix + name.removeprefix(_WHITEOUT))
    # What was made in a directory has changed its time.
    for entry in entries:
        if entry.kind.name == "FOLDER":
            tree.utimes(entry.name.strip(b"/"), entry.mtime)


def _escaped(entry: Entry) -> Entry:
    """Overlay keeps xattrs of its own names for itself: those of a program it stores under a longer one."""
    own = marks()
    names = {own + name if name.startswith(own) else name: value for name, value in entry.xattrs.items()}
    return evolve(entry, xattrs={name.replace(own + own, own + b"overlay."): value for name, value in names.items()})


def _make_room(tree: MountedTree, entry: Entry) -> None:
    """In a whole tree, what the layers below have at this path goes, but for a directory under a directory."""
    path = entry.name.strip(b"/")
    kind = tree.kind(path)
    if kind is not None and not (kind == stat.S_IFDIR and entry.kind.name == "FOLDER"):
        tree.remove(path)
