"""The `aufs` driver: a layer is a directory with aufs's marks, which are those of its tar; laid out as dockerd did.

`home/diff/<key>` is the layer; `layers/<key>` has its parents' keys and `mnt/<key>` is the mountpoint. How a stack
becomes a tree is the driver's mode: the kernel's aufs, else fuse-overlayfs, else a copy (see `copies`). A committed
layer is the same in each. A container is used in the way it was written, whatever the mode is now: `trees/<key>` is
there for one that was copied, `work/<key>/<mode>` for one that was mounted, whose `diff` may hold that mode's marks.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from layerstore.changes import Changes, Marks, make_exact, overlay_changes, write_changes
from layerstore.driver import (
    Backing,
    Capabilities,
    CopyOnWrite,
    Dialect,
    LayerKey,
    Mount,
    StorageDriver,
    Usage,
    usage_of,
)
from layerstore.errors import CannotRepresent, DepthExceeded, DriverNotSupported, KernelError
from layerstore.kernel import files
from layerstore.kernel.files.descriptors import FOLDER, open_path
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
    capabilities: ClassVar[Capabilities] = Capabilities(
        dialect=Dialect.AUFS,
        independent_layers=True,
        copy_on_write=CopyOnWrite.FILE,  # `Backing` has what is true of mode and filesystem
        quota=False,
        max_depth=None,  # but for the kernel's aufs, see `create`
    )
    options: ClassVar[type] = Settings
    settings: Settings

    def __init__(self, home: Path, staging: Path, options: Settings) -> None:
        super().__init__(home, staging, options)
        self._copies = Copies(home, staging, self.tree)
        with _named("mkdir", home):
            for folder in (_DIFF, *_BESIDE, _EMPTY):
                (home / folder).mkdir(mode=0o755 if folder == _EMPTY else 0o700, parents=True, exist_ok=True)

    @classmethod
    def probe(cls, home: Path, options: Settings) -> Backing:
        return probing.find(home, options).backing

    @cached_property
    def mode(self) -> Mode:
        """How stacks become trees, while this is open."""
        return probing.find(self.home, self.settings).mode

    # ---- layers

    def create(
        self, layer: LayerKey, parents: Sequence[LayerKey], *, staged: bool = False, size: int | None = None
    ) -> None:
        if size is not None:
            raise DriverNotSupported(
                "aufs cannot limit the size of a container",
                remedy="Leave the size out, or use overlay2 or btrfs.",
            )
        if self.mode is Mode.KERNEL and len(parents) >= MAX_BRANCHES:
            raise DepthExceeded(
                f"aufs cannot stack {len(parents)} layers and a container: the limit is {MAX_BRANCHES}",
                remedy="Use aufs.mode=fuse or copy; or flatten the image: export a container of it, and import that.",
                layer=layer,
            )
        folder = self.staging / layer
        with _named("mkdir", folder):
            try:
                files.make_plain_folder(folder)
                if not staged:
                    self._place(layer, parents, folder)
            except BaseException:
                files.remove_tree(folder)
                if not staged:
                    remove_all([*self._remove_beside(layer), *self._copies.move(self.home / _DIFF / layer, layer)])
                raise

    def tree(self, layer: LayerKey) -> Path:
        folder = self.home / _DIFF / layer
        if folder.exists():
            return folder
        staged = self.staging / layer
        return staged if staged.exists() else folder

    def seal(self, layer: LayerKey, parents: Sequence[LayerKey]) -> LayerKey:
        with _named("seal", self.home / _DIFF / layer):
            if (self.staging / layer).exists():
                self._keep(layer, parents)
                return layer
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
                    layer=layer,
                    path=error.path,
                ) from error
        return layer

    def remove(self, layer: LayerKey) -> None:
        with _named("rename", self.home / _DIFF / layer):
            self._copies.forget(layer)  # no name in the home leads to these: a death must leave one that does
            self._remove_beside(layer)
            self._copies.move(self.home / _DIFF / layer, layer)

    def layers(self) -> Iterator[LayerKey]:
        # Nothing else that may lie here is garbage: not docker's own layers, which have longer names.
        found = {name for folder in (_DIFF, *_BESIDE) for name in os.listdir(self.home / folder)}
        return (LayerKey(name) for name in sorted(found) if _KEY.fullmatch(name))

    # ---- stacks

    def mounts(self, layer: LayerKey, parents: Sequence[LayerKey], *, read_only: bool) -> Sequence[Mount]:
        with _named("mkdir", self.home):
            if not self._copies.has(layer):
                mode = self._mode_of(layer)
                if read_only:
                    return self._look((layer, *parents), mode)
                if mode is not Mode.COPY:
                    return self._writable(layer, parents, mode)
                # Made in another mode, and never mounted in it: what there is of it are the parents' attributes.
                self._copies.make(layer, (layer, *parents), compared=False)
            return (self._bind(self._copies.tree(layer), read_only=read_only),)

    def changes(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Changes:
        if self._copies.has(layer):
            return self._copies.changes(layer, parents)
        with self._views(layer, parents) as (upper, merged, lower, marks):
            return overlay_changes(upper, merged, lower, marks=marks)

    def usage(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Usage:
        return self._copies.usage(layer, parents) if self._copies.has(layer) else usage_of(self.tree(layer))

    def graph_data(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Mapping[str, str]:
        data = {"MergedDir": str(self.mountpoint(layer))}
        if self._copies.has(layer):
            return {**data, "SourceDir": str(self._copies.tree(layer))}
        if parents:
            data["LowerDir"] = ":".join(str(self.home / _DIFF / parent) for parent in parents)
        return dict(sorted({**data, "UpperDir": str(self.home / _DIFF / layer)}.items()))

    def status(self) -> Sequence[tuple[str, str]]:
        found = probing.find(self.home, self.settings).backing.notes
        return (("Root Dir", str(self.home)), *found, ("Dirs", str(len(os.listdir(self.home / _DIFF)))))

    def mountpoint(self, layer: LayerKey) -> Path:
        return self.home / _MNT / layer

    # ---- making

    def _place(self, layer: LayerKey, parents: Sequence[LayerKey], folder: Path) -> None:
        """Everything of a container, `diff` last: whatever is there without it is garbage."""
        if parents:
            files.copy_root_attributes(self.tree(parents[0]), folder)
        self._name(layer, parents)
        if self.mode is Mode.COPY:
            self._copies.make(layer, parents, compared=True)
        folder.rename(self.home / _DIFF / layer)
        if self.mode is Mode.COPY:
            files.fsync_folder(self.home / _DIFF)

    def _keep(self, layer: LayerKey, parents: Sequence[LayerKey]) -> None:
        """Put a whole, synced layer from staging into the home."""
        self._name(layer, parents)
        (self.staging / layer).rename(self.home / _DIFF / layer)
        files.fsync_folder(self.home / _DIFF)

    def _name(self, layer: LayerKey, parents: Sequence[LayerKey]) -> None:
        """What docker's tools want to see beside `diff`. Nothing here reads it, but for old homes."""
        (self.home / _LAYERS / layer).write_text("".join(f"{parent}\n" for parent in parents))
        (self.home / _MNT / layer).mkdir(mode=0o700, exist_ok=True)

    def _remove_beside(self, layer: LayerKey) -> list[Path]:
        """Returns where it is now, in staging."""
        return [moved for kind in _BESIDE for moved in self._copies.move(self.home / kind / layer, f"{layer}.{kind}")]

    # ---- committing

    def _seal_written(self, layer: LayerKey, parents: Sequence[LayerKey]) -> None:
        """In place: at each moment the container shows the same."""
        with self._views(layer, parents) as (upper, merged, lower, marks):
            altered = make_exact(upper, merged, lower, marks=marks)
        work = self.home / _WORK / layer
        if altered or work.exists():
            files.syncfs(self.home)
        remove_all(self._copies.forget(layer))
        if work.exists():
            # From here on its marks are aufs's own. It has to be so after a power cut, too, once the row is written.
            moved = self._copies.move(work, f"{layer}.{_WORK}")
            try:
                files.fsync_folder(self.home / _WORK)
            finally:
                with suppress(KernelError):  # it goes with the staging folder at the latest
                    remove_all(moved)

    def _seal_copied(self, layer: LayerKey, parents: Sequence[LayerKey]) -> LayerKey:
        """Beside: what was altered is copied out of the tree, with blocks shared where that is possible."""
        sealed = LayerKey(f"{layer}s")
        while (self.home / _DIFF / sealed).exists():
            sealed = LayerKey(f"{sealed}s")  # of a commit that died before its row: garbage, and not ours to remove
        folder = self.staging / sealed
        files.remove_tree(folder)
        try:
            files.make_plain_folder(folder)
            changes = self._copies.changes(layer, parents)
            with ExitStack() as opened:
                fds = []
                for path in (self._copies.tree(layer), folder):
                    fds.append(open_path(path, FOLDER))
                    opened.callback(os.close, fds[-1])
                write_changes(changes, fds[0], fds[1])
            files.syncfs(folder)
            self._keep(sealed, parents)
        except BaseException:
            files.remove_tree(folder)
            remove_all([*self._remove_beside(sealed), *self._copies.move(self.home / _DIFF / sealed, sealed)])
            raise
        return sealed

    # ---- mounting

    def _mode_of(self, layer: LayerKey) -> Mode:
        """The mode that a layer has to be read in, and may be written in."""
        for written in (Mode.FUSE, Mode.KERNEL):
            if (self.home / _WORK / layer / written.value).is_dir():
                break
        else:
            return self.mode
        if written is not self.mode and (reason := probing.refusal(written, self.home)) is not None:
            raise DriverNotSupported(
                f"the files of container {layer} were written with aufs.mode={written.value}, "
                f"which does not work here now: {reason[0]}",
                remedy=f"Make it work again, and open the store with aufs.mode={written.value} or auto; "
                "or remove the container.",
            )
        return written

    def _look(self, stack: Sequence[LayerKey], mode: Mode) -> tuple[Mount, ...]:
        if mode is Mode.COPY:
            return (self._bind(self._copies.look(stack), read_only=True),)
        layers = tuple(str(self.tree(layer)) for layer in stack)
        return (probing.recipe(mode, layers, None, None, self.settings),)

    def _writable(self, layer: LayerKey, parents: Sequence[LayerKey], mode: Mode) -> tuple[Mount, ...]:
        work = self.home / _WORK / layer / mode.value
        if not work.is_dir():
            remove_all(self._copies.forget(layer))
            work.mkdir(mode=0o700, parents=True)
        lowers = tuple(str(self.home / _DIFF / parent) for parent in parents) or (str(self.home / _EMPTY),)
        upper = str(self.home / _DIFF / layer)
        return (probing.recipe(mode, lowers, upper, str(work), self.settings),)

    def _bind(self, tree: Path, *, read_only: bool) -> Mount:
        return Mount("bind", str(tree), probing.attributes(self.settings), read_only=read_only)

    @contextmanager
    def _views(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Iterator[tuple[int, int, int | None, Marks]]:
        """Directory descriptors of the layer's own files, of the stack with it and of that without it; and its marks.

        Where the container is mounted, its mount is the stack: fuse-overlayfs keeps what is being written to itself.
        """
        mode = self._mode_of(layer)
        marks = Marks.FUSE if mode is Mode.FUSE else Marks.AUFS
        with ExitStack() as opened:
            upper = open_path(self.tree(layer), FOLDER)
            opened.callback(os.close, upper)
            place = self.mountpoint(layer)
            if mount_id(place) is not None:
                merged = _open_mounted(place)
                opened.callback(os.close, merged)
            else:
                merged = opened.enter_context(detached(self._look((layer, *parents), mode)))
            lower = opened.enter_context(detached(self._look(parents, mode))) if parents else None
            yield upper, merged, lower, marks


def ancestors(home: Path, layer: LayerKey) -> list[LayerKey]:
    """The parents of a layer as docker wrote them down in its `aufs` folder, the nearest first."""
    path = home / _LAYERS / layer
    with _named("open", path):
        return [LayerKey(line) for line in path.read_text().split()]


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


@contextmanager
def _named(call: str, path: Path) -> Iterator[None]:
    """An OSError of Python becomes the error that says which call it was."""
    try:
        yield
    except OSError as error:
        raise KernelError(call, error.errno or errno.EIO, path=error.filename or path) from error
