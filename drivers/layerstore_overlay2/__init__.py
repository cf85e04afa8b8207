"""The `overlay2` driver: a layer is a directory in overlay's own marks, a stack is one overlay mount.

`home/<key>/diff` is the layer; a container's has `work` and `merged` beside it. Nothing else is kept of a layer, but a
word in `marks` where it was written in a way that every later mount of it must know of. Whether this works on a host is
for `probing` to find out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from layerstore.changes import Changes, make_exact, overlay_changes, stacked_changes
from layerstore.driver import Backing, Capabilities, Dialect, Layer, LayerKey, Mount, StorageDriver, look
from layerstore.errors import Damaged, DepthExceeded, DriverNotSupported, named
from layerstore.kernel import files
from layerstore.kernel.files import quota
from layerstore.kernel.files.descriptors import FOLDER, open_path, read_own, write_private
from layerstore.kernel.files.descriptors import opened as open_folder
from layerstore.kernel.mounts import boot_id
from layerstore_overlay2 import probing
from layerstore_overlay2.settings import MAX_DEPTH, Settings

__all__ = ["Overlay2", "Settings"]

_EMPTY = ".empty"
"""In the home: the lower directory of a stack that has no other, for overlay takes two, or one and an upper."""

_MARKED = ".marked"
"""In the home: there is a layer with marks. As long as it is missing, no layer is looked at for them."""

_MARKS = "marks"
"""In a layer's folder: some of the words below, where there are any."""

_METACOPY, _REDIRECT, _LIMITED = "metacopy", "redirect_dir", "limited"

_VOLATILE = "volatile"
"""In a container's folder: the boot in which it was last mounted volatile."""

_DIRTY = "work/work/incompat/volatile"
"""In a container's folder: made by overlay at a volatile mount, and never removed by it."""

_LOOK = "look"
"""In a container's folder: a second work directory, see `mounts`."""


class Overlay2(StorageDriver):
    """Layers as directories, stacks as overlay mounts."""

    name: ClassVar[str] = "overlay2"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.OVERLAY, MAX_DEPTH, borrows=True)
    options: ClassVar[type] = Settings
    layer_files: ClassVar[str] = "layerstore.layers.borrowing:Borrowing"
    settings: Settings

    def __init__(self, home: Path, staging: Path, options: Settings) -> None:
        super().__init__(home, staging, options)
        self._marks: dict[LayerKey, frozenset[str]] = {}
        self._any_marked = False
        self._unsynced: set[LayerKey] = set()
        with named("mkdir", home):
            (home / _EMPTY).mkdir(mode=0o755, parents=True, exist_ok=True)

    @classmethod
    def probe(cls, home: Path, options: Settings) -> Backing:
        return probing.probe(home, options)

    # ---- layers

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        if len(parents) > MAX_DEPTH:
            raise DepthExceeded(
                f"overlay cannot stack {len(parents)} layers: the limit is {MAX_DEPTH}",
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
                    self._mark(layer, parents, folder, self.settings.size if size is None else size)
                    self._make(folder, parents)
                    folder.rename(self.home / layer.key)
            except BaseException:
                if _LIMITED in self._marks.pop(layer.key, ()):
                    self._unlimit(folder)
                files.remove_tree(folder)
                raise

    def tree(self, layer: Layer) -> Path:
        return Path(self._tree(layer))

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        with named("rename", self.home / layer.key):
            if layer.is_staged:
                files.rename_durably(self.staging / layer.key, self.home / layer.key)
            else:
                self._end_volatile(layer)
                unsynced = (self.home / layer.key / _VOLATILE).exists()
                with self._views(layer, parents) as (upper, merged, lower):
                    altered = make_exact(upper, merged, lower)
                if altered or unsynced:
                    files.syncfs(self.home)
                for work in ("work", _LOOK):
                    self._clear(layer, work)
        return layer.key

    def remove(self, layer: Layer) -> None:
        if not layer.is_staged:
            with named("rename", self.home / layer.key):
                if _LIMITED in self._marks_of(layer):
                    self._unlimit(self.tree(layer))
                files.move_away(self.home / layer.key, self.staging / layer.key)
        self._marks.pop(layer.key, None)
        self._unsynced.discard(layer.key)

    def keys(self) -> Iterable[LayerKey]:
        with named("open", self.home):
            return [LayerKey(name) for name in os.listdir(self.home) if not name.startswith(".")]

    # ---- stacks

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        own, empty = self._tree(layer), f"{self.home}/{_EMPTY}"
        lowers = [self._tree(parent) for parent in parents]
        above: list[tuple[str, str | None]] = []
        if read_only and len(lowers) < MAX_DEPTH:
            lowers.insert(0, own)
            if len(lowers) == 1:
                lowers.append(empty)
        else:
            # At the greatest depth the container's own layer is one too many to be a lower, so it is the upper of a
            # read-only mount. Even that clears the work directory, which may be in use: it has one of its own.
            work = _LOOK if read_only else "work"
            above = [("upperdir", own), ("workdir", f"{self.home}/{layer.key}/{work}")]
            lowers = lowers or [empty]
            if not read_only and self._is_volatile(layer):
                above.append(("volatile", None))
        marks = self._marks_of_all((layer, *parents))
        borrowed = any(one.is_borrowed for one in (layer, *parents))
        options = (
            *(("lowerdir+", lower) for lower in lowers),
            *above,
            *probing.features(metacopy=_METACOPY in marks, redirect=_REDIRECT in marks, borrowed=borrowed),
            *self.settings.mountopt,
        )
        return (Mount("overlay", "overlay", options, read_only=read_only),)

    def prepare(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> None:
        """Overlay refuses a writable mount after a volatile one; if that was in this boot, all is well.

        Scratch and mountpoint say nothing that lasts, so where somebody has removed them, they are made anew.
        """
        if not read_only:
            for name in ("work", "merged"):
                with named("mkdir", f"{self.home}/{layer.key}/{name}"), suppress(FileExistsError):
                    os.mkdir(f"{self.home}/{layer.key}/{name}", 0o700)
            with named("open", f"{self.home}/{layer.key}/{_VOLATILE}"):
                self._end_volatile(layer)
                if self._is_volatile(layer):
                    write_private(self.home / layer.key / _VOLATILE, boot_id())

    def leave_unsynced(self, layer: Layer) -> None:
        if probing.knows_volatile():
            self._unsynced.add(layer.key)

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        with self._views(layer, parents) as (upper, merged, lower):
            return overlay_changes(upper, merged, lower)

    def changes_since(
        self, layer: Layer, parents: Sequence[Layer], between: Sequence[Layer], base: Sequence[Layer]
    ) -> Changes:
        if not between:
            return self.changes(layer, parents)
        if self._marks_of_all((layer, *between)) & {_METACOPY, _REDIRECT}:  # names may be of what lies elsewhere
            return super().changes_since(layer, parents, between, base)
        with ExitStack() as opened:
            merged = opened.enter_context(look(self, layer, parents))
            lower = opened.enter_context(look(self, base[0], base[1:])) if base else None
            uppers = [opened.enter_context(open_folder(self._tree(one), FOLDER)) for one in (layer, *between)]
            return stacked_changes(uppers, merged, lower)

    def segment(self, layer: Layer, parents: Sequence[Layer], key: LayerKey, *, in_use: bool) -> LayerKey | None:
        """An upper directory is a segment as it lies: whoever unmounted it has synced it, but for a volatile one.

        Not while somebody may write to it, nor where names in it may be of what lies in another.
        """
        if in_use or self._marks_of_all((layer, *parents)) & {_METACOPY, _REDIRECT}:
            return None
        with named("open", self.home / layer.key):
            if (self.home / layer.key / _VOLATILE).exists():
                self._end_volatile(layer)
                files.syncfs(self.home)
        return layer.key

    def merge(self, layers: Sequence[Layer], key: LayerKey) -> bool:
        from layerstore.kernel.copying import copy_tree, fill_tree

        if self._marks_of_all(layers) & {_METACOPY, _REDIRECT}:
            return False
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

    @contextmanager
    def _views(self, layer: Layer, parents: Sequence[Layer]) -> Iterator[tuple[int, int, int | None]]:
        """Directory descriptors of the layer's own files, of the stack with it, and of the stack without it."""
        with ExitStack() as opened:
            merged = opened.enter_context(look(self, layer, parents))
            lower = opened.enter_context(look(self, parents[0], parents[1:])) if parents else None
            upper = open_path(self._tree(layer), FOLDER)
            opened.callback(os.close, upper)
            yield upper, merged, lower

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        tree = self.tree(layer)
        folder = tree.parent
        data = {
            "MergedDir": str(folder / "merged"),
            "UpperDir": str(tree),
            "WorkDir": str(folder / "work"),
        }
        if parents:
            data["LowerDir"] = ":".join(map(self._tree, parents))
        return dict(sorted(data.items()))

    # ---- private

    def _make(self, folder: Path, parents: Sequence[Layer]) -> None:
        """Everything of a container's layer."""
        os.mkdir(f"{folder}/work", 0o700)
        os.mkdir(f"{folder}/merged", 0o700)
        if len(parents) == MAX_DEPTH:
            os.mkdir(f"{folder}/{_LOOK}", 0o700)
        if parents:
            os.mkdir(f"{folder}/diff")
            files.copy_root_attributes(self._tree(parents[0]), f"{folder}/diff")
        else:
            files.make_plain_folder(f"{folder}/diff")

    def _tree(self, layer: Layer) -> str:
        if layer.is_borrowed:
            return os.fspath(self.elsewhere(layer.key))
        return f"{self.staging if layer.is_staged else self.home}/{layer.key}/diff"

    def _clear(self, layer: Layer, work: str) -> None:
        """Remove what overlay left in a work directory. It makes it anew at the next mount."""
        folder = self.home / layer.key / work
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return
        for name in names:
            files.remove_tree(folder / name)

    # ---- marks

    def _mark(self, layer: Layer, parents: Sequence[Layer], folder: Path, size: int | None) -> None:
        """Note what later mounts of a new layer must know: an upper written so is never read without it.

        A mount takes over what its lower layers need, so the new upper will be written with that too.
        """
        marks = {word for word in self._marks_of_all(parents) if word != _LIMITED}
        if self.settings.metacopy:
            marks |= {_METACOPY, _REDIRECT}  # metacopy is refused without redirect_dir
        if self.settings.redirect_dir:
            marks.add(_REDIRECT)
        if size:  # 0 is no limit
            self._limit(folder, size)
            marks.add(_LIMITED)
        self._marks[layer.key] = frozenset(marks)
        if marks:
            (self.home / _MARKED).touch()
            write_private(folder / _MARKS, " ".join(sorted(marks)) + "\n")

    def _marks_of_all(self, layers: Sequence[Layer]) -> frozenset[str]:
        if not self._any_marked:
            self._any_marked = os.path.exists(self.home / _MARKED)
        if not self._any_marked:
            return frozenset()
        return frozenset().union(*(self._marks_of(layer) for layer in layers))

    def _marks_of(self, layer: Layer) -> frozenset[str]:
        known = self._marks.get(layer.key)
        if known is None:
            try:
                known = frozenset(read_own(self.home / layer.key / _MARKS).decode().split())
            except (FileNotFoundError, NotADirectoryError):  # what is no folder has none, and can be removed
                known = frozenset()
            self._marks[layer.key] = known
        return known

    # ---- quota

    def _limit(self, folder: Path, size: int) -> None:
        refusal = quota.refusal(folder)
        if refusal is not None:
            raise DriverNotSupported(f"the size of a container cannot be limited: {refusal[0]}", remedy=refusal[1])
        quota.limit_new(folder, size)

    def _unlimit(self, folder: Path) -> None:
        quota.lift(folder, self.home)

    # ---- volatile

    def _is_volatile(self, layer: Layer) -> bool:
        return self.settings.volatile or layer.key in self._unsynced

    def _end_volatile(self, layer: Layer) -> None:
        dirty = self.home / layer.key / _DIRTY
        if not dirty.exists():
            return
        if self._volatile_boot(layer) != boot_id():
            raise Damaged(
                "the machine went down after this container had been mounted volatile: what it wrote may be incomplete",
                remedy=f"Remove the container; or, to use it as it is, remove {dirty}.",
                layer=layer.key,
                path=dirty,
            )
        files.remove_tree(dirty)

    def _volatile_boot(self, layer: Layer) -> str | None:
        try:
            return read_own(self.home / layer.key / _VOLATILE).decode()
        except FileNotFoundError:
            return None
