"""The `overlay2` driver: a layer is a directory in overlay's own marks, a stack is one overlay mount.

`home/<key>/diff` is the layer; a container's has `work` and `merged` beside it. Nothing else is kept of a layer, but a
word in `marks` where it was written in a way that every later mount of it must know of. Whether this works on a host is
for `probing` to find out.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from layerstore.changes import Changes, make_exact, overlay_changes
from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, LayerKey, Mount, StorageDriver
from layerstore.errors import Damaged, DepthExceeded, DriverNotSupported, KernelError
from layerstore.kernel import files
from layerstore.kernel.files import quota
from layerstore.kernel.mounts import boot_id, detached
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
    capabilities: ClassVar[Capabilities] = Capabilities(
        dialect=Dialect.OVERLAY,
        independent_layers=True,
        copy_on_write=CopyOnWrite.FILE,  # BLOCK where the filesystem can reflink: `Backing` says so
        quota=True,  # where the filesystem is mounted for it: `Backing` says so
        max_depth=MAX_DEPTH,
    )
    options: ClassVar[type] = Settings
    settings: Settings

    def __init__(self, home: Path, staging: Path, options: Settings) -> None:
        super().__init__(home, staging, options)
        self._marks: dict[LayerKey, frozenset[str]] = {}
        self._any_marked = False
        # Layers that this process has not sealed yet: they may already be the parents of others that are staged.
        self._staged: set[LayerKey] = set()
        with _named("mkdir", home):
            (home / _EMPTY).mkdir(mode=0o755, parents=True, exist_ok=True)

    @classmethod
    def probe(cls, home: Path, options: Settings) -> Backing:
        return probing.probe(home, options)

    # ---- layers

    def create(
        self, layer: LayerKey, parents: Sequence[LayerKey], *, staged: bool = False, size: int | None = None
    ) -> None:
        if len(parents) > MAX_DEPTH:
            raise DepthExceeded(
                f"overlay cannot stack {len(parents)} layers: the limit is {MAX_DEPTH}",
                remedy="Flatten the image: export a container of it, and import the result as one layer.",
                layer=layer,
            )
        folder = self.staging / layer
        with _named("mkdir", folder):
            folder.mkdir(mode=0o700)
            try:
                if staged:
                    files.make_plain_folder(f"{folder}/diff")
                    self._staged.add(layer)
                else:
                    self._mark(layer, parents, folder, size or self.settings.size)
                    self._make(folder, parents)
                    folder.rename(self.home / layer)
            except BaseException:
                files.remove_tree(folder)
                raise

    def tree(self, layer: LayerKey) -> Path:
        return self._folder(layer) / "diff"

    def seal(self, layer: LayerKey, parents: Sequence[LayerKey]) -> LayerKey:
        staged = self.staging / layer
        with _named("seal", self.home / layer):
            if staged.exists():
                staged.rename(self.home / layer)
                self._staged.discard(layer)
                files.fsync_folder(self.home)
            else:
                self._end_volatile(layer)
                with self._views(layer, parents) as (upper, merged, lower):
                    altered = make_exact(upper, merged, lower)
                if altered:
                    files.syncfs(self.home)
                for work in ("work", _LOOK):
                    self._clear(layer, work)
        return layer

    def remove(self, layer: LayerKey) -> None:
        with _named("rename", self.home / layer):
            if _LIMITED in self._marks_of(layer):
                self._unlimit(layer)
            try:
                (self.home / layer).rename(self.staging / layer)
            except FileNotFoundError:
                return
        self._marks.pop(layer, None)
        self._staged.discard(layer)

    def layers(self) -> Iterator[LayerKey]:
        with os.scandir(self.home) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield LayerKey(entry.name)

    # ---- stacks

    def mounts(self, layer: LayerKey, parents: Sequence[LayerKey], *, read_only: bool) -> Sequence[Mount]:
        home = os.fspath(self.home)
        own = os.fspath(self._folder(layer))
        lowers = [f"{self.staging if parent in self._staged else home}/{parent}/diff" for parent in parents]
        above: list[tuple[str, str | None]] = []
        if read_only and len(lowers) < MAX_DEPTH:
            lowers.insert(0, f"{own}/diff")
            if len(lowers) == 1:
                lowers.append(f"{home}/{_EMPTY}")
        else:
            # At the greatest depth the container's own layer is one too many to be a lower, so it is the upper of a
            # read-only mount. Even that clears the work directory, which may be in use: it has one of its own.
            above = [("upperdir", f"{own}/diff"), ("workdir", f"{own}/{_LOOK if read_only else 'work'}")]
            lowers = lowers or [f"{home}/{_EMPTY}"]
            if not read_only:
                self._begin(layer)
                if self.settings.volatile:
                    above.append(("volatile", None))
        marks = self._marks_of_all((layer, *parents))
        options = (
            *(("lowerdir+", lower) for lower in lowers),
            *above,
            *probing.features(metacopy=_METACOPY in marks, redirect=_REDIRECT in marks),
            *self.settings.mountopt,
        )
        return (Mount("overlay", "overlay", options, read_only=read_only),)

    def changes(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Changes:
        with self._views(layer, parents) as (upper, merged, lower):
            return overlay_changes(upper, merged, lower)

    @contextmanager
    def _views(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Iterator[tuple[int, int, int | None]]:
        """Directory descriptors of the layer's own files, of the stack with it, and of the stack without it."""
        with ExitStack() as opened:
            merged = opened.enter_context(detached(self.mounts(layer, parents, read_only=True)))
            lower = None
            if parents:
                lower = opened.enter_context(detached(self.mounts(parents[0], parents[1:], read_only=True)))
            upper = os.open(self.tree(layer), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, upper)
            yield upper, merged, lower

    def graph_data(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Mapping[str, str]:
        folder = self.home / layer
        data = {
            "MergedDir": str(folder / "merged"),
            "UpperDir": str(folder / "diff"),
            "WorkDir": str(folder / "work"),
        }
        if parents:
            data["LowerDir"] = ":".join(str(self.home / parent / "diff") for parent in parents)
        return dict(sorted(data.items()))

    def status(self) -> Sequence[tuple[str, str]]:
        return self.probe(self.home, self.settings).notes

    # ---- private

    def _make(self, folder: Path, parents: Sequence[LayerKey]) -> None:
        """Everything of a container's layer."""
        os.mkdir(f"{folder}/work", 0o700)
        os.mkdir(f"{folder}/merged", 0o700)
        if len(parents) == MAX_DEPTH:
            os.mkdir(f"{folder}/{_LOOK}", 0o700)
        if parents:
            os.mkdir(f"{folder}/diff")
            files.copy_root_attributes(f"{self.home}/{parents[0]}/diff", f"{folder}/diff")
        else:
            files.make_plain_folder(f"{folder}/diff")

    def _folder(self, layer: LayerKey) -> Path:
        folder = self.home / layer
        if folder.exists():
            return folder
        staged = self.staging / layer
        return staged if staged.exists() else folder

    def _clear(self, layer: LayerKey, work: str) -> None:
        """Remove what overlay left in a work directory. It makes it anew at the next mount."""
        try:
            names = os.listdir(self.home / layer / work)
        except FileNotFoundError:
            return
        for name in names:
            files.remove_tree(self.home / layer / work / name)

    # ---- marks

    def _mark(self, layer: LayerKey, parents: Sequence[LayerKey], folder: Path, size: int | None) -> None:
        """Note what later mounts of a new layer must know: an upper written so is never read without it.

        A mount takes over what its lower layers need, so the new upper will be written with that too.
        """
        marks = {word for word in self._marks_of_all(parents) if word != _LIMITED}
        if self.settings.metacopy:
            marks |= {_METACOPY, _REDIRECT}  # metacopy is refused without redirect_dir
        if self.settings.redirect_dir:
            marks.add(_REDIRECT)
        if size:
            self._limit(folder, size)
            marks.add(_LIMITED)
        if marks:
            (self.home / _MARKED).touch()
            (folder / _MARKS).write_text(" ".join(sorted(marks)) + "\n")
        self._marks[layer] = frozenset(marks)

    def _marks_of_all(self, layers: Sequence[LayerKey]) -> frozenset[str]:
        if not self._any_marked:
            self._any_marked = os.path.exists(self.home / _MARKED)
        if not self._any_marked:
            return frozenset()
        return frozenset().union(*(self._marks_of(layer) for layer in layers))

    def _marks_of(self, layer: LayerKey) -> frozenset[str]:
        known = self._marks.get(layer)
        if known is None:
            try:
                known = frozenset((self.home / layer / _MARKS).read_text().split())
            except FileNotFoundError:
                known = frozenset()
            self._marks[layer] = known
        return known

    # ---- quota

    def _limit(self, folder: Path, size: int) -> None:
        refusal = probing.quota_refusal(folder)
        if refusal is not None:
            raise DriverNotSupported(f"the size of a container cannot be limited: {refusal[0]}", remedy=refusal[1])
        project = _PROJECTS | int.from_bytes(os.urandom(4)) % _PROJECTS
        while quota.usage(folder, project) != (0, 0):
            project = _PROJECTS | (project + 1) % _PROJECTS
        quota.set_project(folder, project)
        quota.limit(folder, project, size)

    def _unlimit(self, layer: LayerKey) -> None:
        try:
            quota.limit(self.home, quota.project_of(self.home / layer / "diff"), 0)
        except KernelError:
            pass  # the filesystem is mounted without quotas now, or the layer is not there

    # ---- volatile

    def _begin(self, layer: LayerKey) -> None:
        """Before a writable mount. Overlay refuses one after a volatile one; if that was in this boot, all is well."""
        self._end_volatile(layer)
        if self.settings.volatile:
            (self.home / layer / _VOLATILE).write_text(boot_id())

    def _end_volatile(self, layer: LayerKey) -> None:
        dirty = self.home / layer / _DIRTY
        if not dirty.exists():
            return
        if self._volatile_boot(layer) != boot_id():
            raise Damaged(
                "the machine went down after this container had been mounted volatile: what it wrote may be incomplete",
                remedy=f"Remove the container; or, to use it as it is, remove {dirty}.",
                layer=layer,
                path=dirty,
            )
        files.remove_tree(dirty)

    def _volatile_boot(self, layer: LayerKey) -> str | None:
        try:
            return (self.home / layer / _VOLATILE).read_text()
        except FileNotFoundError:
            return None


_PROJECTS = 1 << 30
"""Projects from here on are ours: those of others on the same filesystem are small numbers."""


@contextmanager
def _named(call: str, path: Path) -> Iterator[None]:
    """An OSError of Python becomes the error that says which call it was."""
    try:
        yield
    except OSError as error:
        raise KernelError(call, error.errno or errno.EIO, path=error.filename or path) from error
