"""The `aufs` driver: a layer is a directory with aufs's marks, which are those of its tar; laid out as dockerd did.

`home/diff/<key>` is the layer; `layers/<key>` has its parents' keys and `mnt/<key>` is the mountpoint. How a stack
becomes a tree is the driver's mode: the kernel's aufs, else a copy (see `copies`); fuse-overlayfs if the user says so.
A committed layer is the same in each. A container is used in the way it was written, whatever the mode is now:
`trees/<key>` is there for one that was copied, `work/<key>/<mode>` for one that was mounted, whose `diff` may hold that
mode's marks.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from attrs import evolve

from layerstore.changes import Changes, Marks, make_exact, overlay_changes, write_changes
from layerstore.driver import (
    Backing,
    Capabilities,
    Dialect,
    Layer,
    LayerKey,
    Mount,
    Slice,
    State,
    StorageDriver,
    Usage,
    usage_of,
)
from layerstore.errors import CannotRepresent, DepthExceeded, DriverNotSupported, KernelError, named
from layerstore.kernel import files
from layerstore.kernel.files.descriptors import FOLDER, open_path, opened, read_own, write_private
from layerstore.kernel.mounts import detached, mount_id
from layerstore_aufs import probing
from layerstore_aufs.copies import LISTS, TREES, Copies, remove_all
from layerstore_aufs.settings import MAX_BRANCHES, Mode, Settings

__all__ = ["Aufs", "Mode", "Settings", "ancestors"]

_DIFF, _LAYERS, _MNT, _WORK = "diff", "layers", "mnt", "work"

_BESIDE = (_MNT, TREES, LISTS, _WORK, _LAYERS)
"""Where else in the home there is something with a layer's key for a name. The mountpoint first: it does not go while
something is mounted there, and then all stays."""

_KEY = re.compile("[0-9a-f]{32}s*")

_EMPTY = ".empty"
"""In the home: the lower directory of a stack that has no other."""


_UNFIT = {
    errno.ENAMETOOLONG: (
        "the removal of a file with a name of more than 251 bytes",
        "Leave that file where it is, or keep the store with another driver.",
    ),
    errno.EBADMSG: ("a file that means a removal (a name .wh.…, a device 0/0)", "Remove it."),
}
"""By the errno of what makes a layer of a container: what a file is that a layer cannot have, and what to do."""


class Aufs(StorageDriver):
    """Layers as directories in aufs's form."""

    name: ClassVar[str] = "aufs"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.AUFS)  # the kernel's has a greatest depth: see `create`
    options: ClassVar[type] = Settings
    settings: Settings

    def __init__(self, home: Path, staging: Path, options: Settings) -> None:
        super().__init__(home, staging, options)
        self._copies = Copies(home, staging, self.tree)
        with named("mkdir", home):
            for folder in (_DIFF, *_BESIDE, _EMPTY):
                (home / folder).mkdir(mode=0o755 if folder == _EMPTY else 0o700, parents=True, exist_ok=True)
        self._copies.sweep()

    @classmethod
    def probe(cls, home: Path, options: Settings) -> Backing:
        backing = probing.find(home, options).backing
        folder = home / _DIFF
        with named("open", folder):
            layers = len(os.listdir(folder)) if folder.is_dir() else 0
        return evolve(backing, notes=(("Root Dir", str(home)), *backing.notes, ("Dirs", str(layers))))

    @cached_property
    def mode(self) -> Mode:
        """How stacks become trees, while this is open."""
        return probing.find(self.home, self.settings).mode

    # ---- layers

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        if size is not None:
            raise DriverNotSupported(
                "aufs cannot limit the size of a container",
                remedy="Leave the size out, or use overlay2 or btrfs.",
            )
        if self.mode is Mode.KERNEL and len(parents) >= MAX_BRANCHES:
            raise DepthExceeded(
                f"aufs cannot stack {len(parents)} layers and a container: the limit is {MAX_BRANCHES}",
                remedy="Use aufs.mode=fuse or copy; or flatten the image: export a container of it, and import that.",
                layer=layer.key,
            )
        folder = self.staging / layer.key
        with named("mkdir", folder):
            try:
                files.make_plain_folder(folder)
                if not layer.is_staged:
                    self._place(layer, parents, folder)
            except BaseException:
                files.remove_tree(folder)
                if not layer.is_staged:
                    gone = self._copies.move(self.home / _DIFF / layer.key, layer.key)
                    remove_all([*self._remove_beside(layer.key), *gone])
                raise

    def tree(self, layer: Layer) -> Path:
        return self.staging / layer.key if layer.is_staged else self.home / _DIFF / layer.key

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        with named("rename", self.home / _DIFF / layer.key):
            if layer.is_staged:
                self._keep(layer.key, parents)
                return layer.key
            try:
                if self._copies.has(layer):
                    return self._seal_copied(layer, parents)
                self._seal_written(layer, parents)
            except KernelError as error:
                reason = _UNFIT.get(error.errno or 0)
                if reason is None:
                    raise
                raise CannotRepresent(
                    f"{error.path}: {reason[0]} cannot be kept in a layer in aufs's form",
                    remedy=reason[1],
                    layer=layer.key,
                    path=error.path,
                ) from error
        return layer.key

    def remove(self, layer: Layer) -> None:
        with named("rename", self.home / _DIFF / layer.key):
            self._copies.forget(layer)  # no name in the home leads to these: a death must leave one that does
            if not layer.is_staged:
                self._remove_beside(layer.key)
                self._copies.move(self.home / _DIFF / layer.key, layer.key)

    def keys(self) -> Iterable[LayerKey]:
        # Nothing else that may lie here is garbage: not docker's own layers, which have longer names.
        with named("open", self.home):
            found = {name for folder in (_DIFF, *_BESIDE) for name in os.listdir(self.home / folder)}
        return (LayerKey(name) for name in sorted(found) if _KEY.fullmatch(name))

    # ---- stacks

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        if self._copies.has(layer):
            return (self._bind(self._copies.tree(layer), read_only=read_only),)
        mode = self._mode_of(layer)
        if read_only:
            return self._shown((layer, *parents), mode)
        if mode is Mode.COPY:
            return (self._bind(self._copies.tree(layer), read_only=False),)
        lowers = tuple(str(self.tree(parent)) for parent in parents) or (str(self.home / _EMPTY),)
        return (probing.recipe(mode, lowers, str(self.tree(layer)), str(self._work(layer, mode)), self.settings),)

    def prepare(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> None:
        if self._copies.has(layer):
            return
        mode = self._mode_of(layer)
        with named("mkdir", self.home):
            if read_only and mode is Mode.COPY:
                self._copies.show((layer, *parents))
            elif mode is Mode.COPY:
                # Made in another mode, and never mounted in it: what there is of it are the parents' attributes.
                self._copies.make(layer, (layer, *parents), compared=False)
            elif not read_only and not self._work(layer, mode).is_dir():
                remove_all(self._copies.forget(layer))
                self._work(layer, mode).mkdir(mode=0o700, parents=True)

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        with named("open", self.tree(layer)):
            if self._copies.has(layer):
                return self._copies.changes(layer, parents)
            with self._views(layer, parents) as (upper, merged, lower, marks):
                return overlay_changes(upper, merged, lower, marks=marks)

    def slices(self, layer: Layer, parents: Sequence[Layer]) -> Sequence[Slice]:
        """A copy is a whole tree, and what fuse-overlayfs writes has marks of both kinds."""
        if self._copies.has(layer):
            return [Slice(self._copies.tree(layer))]
        found = [Slice(self.tree(one), (Dialect.AUFS,)) for one in (layer, *parents)]
        if layer.state is State.WRITABLE and self._work(layer, Mode.FUSE).is_dir():
            found[0] = Slice(self.tree(layer), (Dialect.AUFS, Dialect.OVERLAY))
        return found

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        with named("open", self.tree(layer)):
            return self._copies.usage(layer, parents) if self._copies.has(layer) else usage_of(self.tree(layer))

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        data = {"MergedDir": str(self.mountpoint(layer))}
        if self._copies.has(layer):
            return {**data, "SourceDir": str(self._copies.tree(layer))}
        if parents:
            data["LowerDir"] = ":".join(str(self.tree(parent)) for parent in parents)
        return dict(sorted({**data, "UpperDir": str(self.tree(layer))}.items()))

    def mountpoint(self, layer: Layer) -> Path:
        return self.home / _MNT / layer.key

    # ---- making

    def _place(self, layer: Layer, parents: Sequence[Layer], folder: Path) -> None:
        """Everything of a container, `diff` last: whatever is there without it is garbage."""
        if parents:
            files.copy_root_attributes(self.tree(parents[0]), folder)
        self._name(layer.key, parents)
        if self.mode is Mode.COPY:
            self._copies.make(layer, parents, compared=True)
        folder.rename(self.tree(layer))
        if self.mode is Mode.COPY:
            files.fsync_folder(self.home / _DIFF)

    def _keep(self, key: LayerKey, parents: Sequence[Layer]) -> None:
        """Put a whole, synced layer from staging into the home."""
        try:
            self._name(key, parents)
            files.rename_durably(self.staging / key, self.home / _DIFF / key)
        except BaseException:
            remove_all(self._remove_beside(key))
            raise

    def _name(self, key: LayerKey, parents: Sequence[Layer]) -> None:
        """What docker's tools want to see beside `diff`. Nothing here reads it, but for old homes."""
        write_private(self.home / _LAYERS / key, "".join(f"{parent.key}\n" for parent in parents))
        (self.home / _MNT / key).mkdir(mode=0o700, exist_ok=True)

    def _remove_beside(self, key: LayerKey) -> list[Path]:
        """Returns where it is now, in staging."""
        return [moved for kind in _BESIDE for moved in self._copies.move(self.home / kind / key, f"{key}.{kind}")]

    # ---- committing

    def _seal_written(self, layer: Layer, parents: Sequence[Layer]) -> None:
        """In place: at each moment the container shows the same."""
        with self._views(layer, parents) as (upper, merged, lower, marks):
            altered = make_exact(upper, merged, lower, marks=marks)
        work = self.home / _WORK / layer.key
        if altered or work.exists():
            files.syncfs(self.home)
        remove_all(self._copies.forget(layer))
        if work.exists():
            # From here on its marks are aufs's own. It has to be so after a power cut, too, once the row is written.
            moved = self._copies.move(work, f"{layer.key}.{_WORK}")
            try:
                files.fsync_folder(self.home / _WORK)
            finally:
                with suppress(KernelError):  # it goes with the staging folder at the latest
                    remove_all(moved)

    def _seal_copied(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        """Beside: what was altered is copied out of the tree, with blocks shared where that is possible."""
        sealed = LayerKey(f"{layer.key}s")
        while (self.home / _DIFF / sealed).exists():
            sealed = LayerKey(f"{sealed}s")  # of a commit that died before its row: garbage, and not ours to remove
        folder = self.staging / sealed
        files.remove_tree(folder)
        try:
            files.make_plain_folder(folder)
            changes = self._copies.changes(layer, parents)
            with opened(self._copies.tree(layer), FOLDER) as tree, opened(folder, FOLDER) as target:
                write_changes(changes, tree, target)
            files.syncfs(folder)
            self._keep(sealed, parents)
        except BaseException:
            files.remove_tree(folder)
            remove_all([*self._remove_beside(sealed), *self._copies.move(self.home / _DIFF / sealed, sealed)])
            raise
        return sealed

    # ---- mounting

    def _mode_of(self, layer: Layer) -> Mode:
        """The mode that a layer has to be read in, and may be written in."""
        for written in (Mode.FUSE, Mode.KERNEL):
            if layer.state is State.WRITABLE and self._work(layer, written).is_dir():
                break
        else:
            return self.mode
        if written is not self.mode and (reason := probing.refusal(written, self.home)) is not None:
            raise DriverNotSupported(
                f"the files of container {layer.key} were written with aufs.mode={written.value}, "
                f"which does not work here now: {reason[0]}",
                remedy="Make it work again, or remove the container.",
            )
        return written

    def _work(self, layer: Layer, mode: Mode) -> Path:
        return self.home / _WORK / layer.key / mode.value

    def _shown(self, stack: Sequence[Layer], mode: Mode) -> tuple[Mount, ...]:
        if mode is Mode.COPY:
            return (self._bind(self._copies.shown(stack), read_only=True),)
        return (probing.recipe(mode, tuple(str(self.tree(layer)) for layer in stack), None, None, self.settings),)

    @contextmanager
    def _look(self, stack: Sequence[Layer], mode: Mode) -> Iterator[int]:
        if mode is Mode.COPY:
            self._copies.show(stack)
        with detached(self._shown(stack, mode)) as tree:
            yield tree

    def _bind(self, tree: Path, *, read_only: bool) -> Mount:
        return Mount("bind", str(tree), probing.attributes(self.settings), read_only=read_only)

    @contextmanager
    def _views(self, layer: Layer, parents: Sequence[Layer]) -> Iterator[tuple[int, int, int | None, Marks]]:
        """Directory descriptors of the layer's own files, of the stack with it and of that without it; and its marks.

        Where the container is mounted, its mount is the stack: fuse-overlayfs keeps what is being written to itself.
        """
        mode = self._mode_of(layer)
        marks = Marks.FUSE if mode is Mode.FUSE else Marks.AUFS
        with ExitStack() as views:
            upper = views.enter_context(opened(self.tree(layer), FOLDER))
            place = self.mountpoint(layer)
            if mount_id(place) is not None:
                merged = _open_mounted(place)
                views.callback(os.close, merged)
            else:
                merged = views.enter_context(self._look((layer, *parents), mode))
            lower = views.enter_context(self._look(parents, mode)) if parents else None
            yield upper, merged, lower, marks


def ancestors(home: Path, layer: LayerKey) -> list[LayerKey]:
    """The parents of a layer as docker wrote them down in its `aufs` folder, the nearest first."""
    path = home / _LAYERS / layer
    with named("open", path):
        return [LayerKey(line) for line in read_own(path).decode().split()]


def _open_mounted(place: Path) -> int:
    try:
        return open_path(place, FOLDER)
    except KernelError as error:
        if error.errno != errno.ENOTCONN:
            raise
        raise KernelError(
            "open",
            errno.ENOTCONN,
            path=place,
            detail="the fuse-overlayfs process that serves it has ended",
            remedy="Unmount the container and mount it again: of its files only what was not written out yet is lost.",
        ) from None
