"""The `erofs` driver: a layer is its tar, as it came, and a stack of them is one index that the kernel mounts.

`home/<key>` has the layer's tar and a listing of it, which the core puts there. The listings of a stack are made into
an index at its first mount: erofs metadata whose data lie in the tars. It lies with the nearest layer of the stack and
goes with that, and it can be made again at any time. What a container writes is an upper directory of overlay on it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from layerstore.changes import Changes, make_exact, overlay_changes, stacked_changes
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
    look,
)
from layerstore.errors import DepthExceeded, DriverFailed, DriverNotSupported, named
from layerstore.indexes import LAZY, LISTING, TAR, LaidTree, Part, write_index
from layerstore.kernel import files
from layerstore.kernel.files import quota
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore_erofs import probing, proofs
from layerstore_erofs.settings import MAX_DEPTH, Settings

__all__ = ["Erofs", "Settings"]

_EMPTY, _LOW = ".empty", ".low"
"""In the home: the lower directory of a stack that has no other; and where an index is mounted for overlay to stand on,
which nobody sees."""

_KNOWN = ".known"
"""In the home, with `erofs.dedup`: where content lies that another layer may have, too."""

_INDEX, _ESCAPED = "index-", ".escaped"
"""In the folder of the nearest of the tars: their index, by the layers below; and the end of its name where it has
xattrs that overlay has to read."""

_LIMITED = "limited"
"""In a container's folder: it has a project quota."""


class Erofs(StorageDriver):
    """Layers as tars. Above them lies as folders what containers have written, and whatever was filled as a tree."""

    name: ClassVar[str] = "erofs"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.OVERLAY, MAX_DEPTH)
    options: ClassVar[type] = Settings
    layer_files: ClassVar[str] = "layerstore.layers.tars:Tars"
    settings: Settings

    def __init__(self, home: Path, staging: Path, options: Settings) -> None:
        super().__init__(home, staging, options)
        self._tars: set[LayerKey] = set()
        self._whole: set[LayerKey] = set()
        self._watch: Callable[[Sequence[Path]], None] | None = None
        for name in (_EMPTY, _LOW):
            with named("mkdir", home / name):
                (home / name).mkdir(mode=0o755, parents=True, exist_ok=True)

    @classmethod
    def probe(cls, home: Path, options: Settings) -> Backing:
        return probing.probe(home, options)

    # ---- layers

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        if len(parents) > MAX_DEPTH:
            raise DepthExceeded(
                f"a stack of {len(parents)} layers is too deep: the limit is {MAX_DEPTH}",
                remedy="Flatten the image: export a container of it, and import the result as one layer.",
                layer=layer.key,
            )
        folder = self.staging / layer.key
        with named("mkdir", folder):
            folder.mkdir(mode=0o700)
            try:
                if layer.is_staged:
                    files.make_plain_folder(f"{folder}/diff")
                else:
                    self._limit(folder, self.settings.size if size is None else size)
                    self._make(folder, parents)
                    folder.rename(self.home / layer.key)
            except BaseException:
                self._unlimit(folder)
                files.remove_tree(folder)
                raise

    def _make(self, folder: Path, parents: Sequence[Layer]) -> None:
        os.mkdir(f"{folder}/work", 0o700)
        os.mkdir(f"{folder}/merged", 0o700)
        if not parents:
            files.make_plain_folder(f"{folder}/diff")
            return
        os.mkdir(f"{folder}/diff")
        # What stands on others looks as the nearest does: nothing has to be mounted to know that.
        folders, tars = self._parted(parents)
        if folders:
            files.copy_root_attributes(f"{self._folder(folders[0])}/diff", f"{folder}/diff")
        else:
            files.give_root_attributes(self._root_of(tars), f"{folder}/diff")

    def tree(self, layer: Layer) -> Path:
        return Path(self._folder(layer)) / "diff"

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        with named("rename", self.home / layer.key):
            if layer.is_staged:
                files.rename_durably(self.staging / layer.key, self.home / layer.key)
            else:
                with self._views(layer, parents) as views:
                    if make_exact(*views):
                        files.syncfs(self.home)
                self._clear(layer)
        return layer.key

    def remove(self, layer: Layer) -> None:
        if not layer.is_staged:
            with named("rename", self.home / layer.key):
                self._unlimit(self.home / layer.key)
                files.move_away(self.home / layer.key, self.staging / layer.key)
        self._tars.discard(layer.key)
        self._whole.discard(layer.key)

    def keys(self) -> Iterable[LayerKey]:
        with named("open", self.home):
            return [LayerKey(name) for name in os.listdir(self.home) if not name.startswith(".")]

    # ---- stacks

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        folders, tars = self._parted((layer, *parents))
        index = self._index(tars)
        if read_only and not folders and not index.endswith(_ESCAPED):
            return (self._mount(index, tars, None),)
        low = f"{self.home}/{_LOW}"
        lowers = [f"{self._folder(one)}/diff" for one in folders[0 if read_only else 1 :]]
        if tars:
            lowers.append(low)
        if len(lowers) < 2:  # overlay takes two, or one and an upper
            lowers.append(f"{self.home}/{_EMPTY}")
        own = self._folder(layer)
        options = (
            *(("lowerdir+", lower) for lower in lowers),
            *(() if read_only else (("upperdir", f"{own}/diff"), ("workdir", f"{own}/work"))),
            ("index", "off"),
            ("metacopy", "off"),
            ("redirect_dir", "nofollow"),
        )
        top = Mount("overlay", "overlay", options, read_only=read_only)
        return (self._mount(index, tars, low), top) if tars else (top,)

    def prepare(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> None:
        """The index is made where it is not there; scratch and mountpoint, which say nothing that lasts, too."""
        _, tars = self._parted((layer, *parents))
        self._have_watched(tars)
        if tars and not _is_there(self._index(tars)):
            self._write_index(tars)
        if not read_only:
            for name in ("work", "merged"):
                with named("mkdir", f"{self.home}/{layer.key}/{name}"), suppress(FileExistsError):
                    os.mkdir(f"{self.home}/{layer.key}/{name}", 0o700)

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        with self._views(layer, parents) as views:
            return overlay_changes(*views)

    def changes_since(
        self, layer: Layer, parents: Sequence[Layer], between: Sequence[Layer], base: Sequence[Layer]
    ) -> Changes:
        if not between:
            return self.changes(layer, parents)
        with ExitStack() as undo:
            merged = undo.enter_context(look(self, layer, parents))
            lower = undo.enter_context(look(self, base[0], base[1:])) if base else None
            uppers = [undo.enter_context(opened(self.tree(one), FOLDER)) for one in (layer, *between)]
            return stacked_changes(uppers, merged, lower)

    def segment(self, layer: Layer, parents: Sequence[Layer], key: LayerKey, *, in_use: bool) -> LayerKey | None:
        """An upper directory is a segment as it lies: whoever unmounted it has synced it. Not while it is written."""
        return None if in_use else layer.key

    def merge(self, layers: Sequence[Layer], key: LayerKey) -> bool:
        from layerstore.kernel.copying import copy_tree, fill_tree

        made = self.staging / key
        nearest, *below = (self.tree(layer) for layer in layers)
        try:
            with named("mkdir", made):
                made.mkdir(mode=0o700)
            copy_tree(nearest, made / "diff")
            for tree in below:
                fill_tree(tree, made / "diff")
            files.syncfs(self.home)
            files.rename_durably(made, self.home / key)
        except BaseException:
            files.remove_tree(made)
            raise
        return True

    def slices(self, layer: Layer, parents: Sequence[Layer]) -> Sequence[Slice]:
        folders, tars = self._parted((layer, *parents))
        found = [Slice(self.tree(one), (Dialect.OVERLAY,)) for one in folders]
        if tars:
            self.prepare(tars[0], tars[1:], read_only=True)
            found.append(Slice(Path(self._index(tars)), tars=tuple(Path(self._folder(one)) / TAR for one in tars)))
        return found

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        if not self._is_tar(layer):
            return super().usage(layer, parents)
        with named("lstat", self._folder(layer)):
            parts = [os.lstat(f"{self._folder(layer)}/{name}") for name in (TAR, LISTING)]
        return Usage(sum(part.st_blocks * 512 for part in parts), len(parts))

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        folder = self._folder(layer)
        data = {"MergedDir": f"{folder}/merged", "UpperDir": f"{folder}/diff", "WorkDir": f"{folder}/work"}
        if parents:
            data["LowerDir"] = ":".join(
                f"{self._folder(one)}/{TAR if self._is_tar(one) else 'diff'}" for one in parents
            )
        return dict(sorted(data.items()))

    # ---- tars that are not all there

    def watch_by(self, watch: Callable[[Sequence[Path]], None]) -> None:
        """Have `watch` see to it, before they are read, that folders of layers are watched whose tars have holes."""
        self._watch = watch

    def _have_watched(self, tars: Sequence[Layer]) -> None:
        lazy = []
        for one in tars:
            if one.key in self._whole:
                continue
            if _is_there(f"{self._folder(one)}/{LAZY}"):
                lazy.append(Path(self._folder(one)))
            elif not one.is_staged:
                self._whole.add(one.key)
        if not lazy:
            return
        if self._watch is None:
            raise DriverFailed(f"not all of layer {lazy[0].name} is there, and nobody fetches it", layer=lazy[0].name)
        self._watch(lazy)

    # ---- the index of tars

    def _parted(self, stack: Sequence[Layer]) -> tuple[Sequence[Layer], Sequence[Layer]]:
        """The folders of a stack, and the tars below them."""
        count = next((number for number, one in enumerate(stack) if self._is_tar(one)), len(stack))
        return stack[:count], stack[count:]

    def _is_tar(self, layer: Layer) -> bool:
        if layer.state is State.WRITABLE:
            return False
        if layer.key not in self._tars and _is_there(f"{self._folder(layer)}/{TAR}"):
            self._tars.add(layer.key)
        return layer.key in self._tars

    def _index(self, tars: Sequence[Layer]) -> str:
        if not tars:
            return ""
        nearest, *below = tars
        name = hashlib.sha256(" ".join(one.key for one in below).encode()).hexdigest()[:16]
        index = f"{self._folder(nearest)}/{_INDEX}{name}"
        return f"{index}{_ESCAPED}" if _is_there(f"{index}{_ESCAPED}") else index

    def take_stack(self, tars: Sequence[Layer], stack: LaidTree) -> None:
        """See `layerstore.layers.beyond`: what the core has laid on each other is not read once more."""
        if not _is_there(self._index(tars)):
            self._write_index(tars, stack)

    def wrong_indexes(self, layer: Layer, write: Callable[[memoryview], object]) -> Sequence[Path]:
        """See `layerstore.layers.beyond`: those that are not as they were made."""
        found: list[str] = []
        with named("open", self._folder(layer)), suppress(FileNotFoundError):
            found = sorted(name for name in os.listdir(self._folder(layer)) if name.startswith(_INDEX))
        paths = [Path(self._folder(layer)) / name for name in found]
        return [path for path in paths if proofs.is_wrong(path, write)]

    def notes_content(self) -> Path | None:
        """See `layerstore.layers.beyond`: with `erofs.dedup`, content that two tars have is kept once."""
        return self.home / _KNOWN if self.settings.dedup else None

    def _write_index(self, tars: Sequence[Layer], stack: LaidTree | None = None) -> None:
        """Whole and on the disk before it has its name, or before its layer has: nobody looks at it again."""
        self._have_watched(tars)  # chunks of sparse files are copied out of them
        index, made = self._index(tars), self.staging / f"{tars[0].key}.{os.urandom(8).hex()}"
        parts = [Part(Path(self._folder(one)) / LISTING, Path(self._folder(one)) / TAR) for one in tars]
        try:
            written = write_index(parts, made) if stack is None else stack.write(made)
            proofs.prove(made)
            if not tars[0].is_staged:
                with named("fsync", made), opened(made, os.O_RDONLY) as file:
                    os.fsync(file)
            if written.escaped:
                index += _ESCAPED
            with named("rename", index):
                os.rename(made, index)
        except BaseException:
            with suppress(OSError):
                made.unlink(missing_ok=True)
            raise

    def _root_of(self, tars: Sequence[Layer]) -> files.Attributes:
        """How the root of tars looks, by their index."""
        from layerstore.indexes.reading import Index

        self.prepare(tars[0], tars[1:], read_only=True)
        index = Index(Path(self._index(tars)), [Path(self._folder(one)) / TAR for one in tars])
        try:
            root = index.inode(index.root)
            xattrs = index.stored_xattrs(root)
        finally:
            index.close()
        return files.Attributes(root.mode, root.uid, root.gid, (root.mtime_ns, root.mtime_ns), xattrs)

    def _mount(self, index: str, tars: Sequence[Layer], target: str | None) -> Mount:
        devices = tuple(("device", f"{self._folder(one)}/{TAR}") for one in reversed(tars))
        return Mount("erofs", index, devices, read_only=True, target=target)

    # ---- private

    @contextmanager
    def _views(self, layer: Layer, parents: Sequence[Layer]) -> Iterator[tuple[int, int, int | None]]:
        """Directory descriptors of the layer's own files, of the stack with it, and of the stack without it."""
        with ExitStack() as undo:
            merged = undo.enter_context(look(self, layer, parents))
            lower = undo.enter_context(look(self, parents[0], parents[1:])) if parents else None
            yield undo.enter_context(opened(self.tree(layer), FOLDER)), merged, lower

    def _folder(self, layer: Layer) -> str:
        return f"{self.staging if layer.is_staged else self.home}/{layer.key}"

    def _clear(self, layer: Layer) -> None:
        """Remove what overlay left in the work directory. It makes it anew at the next mount."""
        work = self.home / layer.key / "work"
        with suppress(FileNotFoundError):
            for name in os.listdir(work):
                files.remove_tree(work / name)

    def _limit(self, folder: Path, size: int | None) -> None:
        if not size:  # 0 is no limit
            return
        refusal = quota.refusal(folder)
        if refusal is not None:
            raise DriverNotSupported(f"the size of a container cannot be limited: {refusal[0]}", remedy=refusal[1])
        (folder / _LIMITED).touch()
        quota.limit_new(folder, size)

    def _unlimit(self, folder: Path) -> None:
        if _is_there(folder / _LIMITED):
            quota.lift(folder, self.home)


def _is_there(path: str | Path) -> bool:
    """Is there a file of this name? What cannot be found out is an error: it would be taken for another stack."""
    with named("lstat", path):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True
