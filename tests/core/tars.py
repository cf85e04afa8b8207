"""A driver whose layers are no folders: each is its tar, as it came, and nothing is unpacked until it is looked at.

What a driver of that kind has to bring is all here: the driver, and `TarFiles`, the way in which the core keeps layers
with it. A stack is looked at by unpacking it beside (as the kernel does with an index, where there is one), and its
recipe has two mounts, one on the other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from attrs import frozen

from layerstore import tar
from layerstore.digest import DiffID
from layerstore.driver import (
    Backing,
    Capabilities,
    CopyOnWrite,
    Dialect,
    Layer,
    LayerKey,
    Mount,
    State,
    StorageDriver,
    Usage,
)
from layerstore.errors import Damaged, DigestMismatch, named
from layerstore.kernel.files import fsync_folder, make_plain_folder, move_away, remove_tree, syncfs
from layerstore.kernel.mounts import mount_id, unmount
from layerstore.layers.diffs import Diff, Staged
from layerstore.layers.files import LayerFiles, Told
from layerstore.layers.relay import Write, relay
from layerstore.limits import UNLIMITED, Limits
from layerstore.tar import Damage, LayerEntry, Level, Readable

_TAR, _TREE = "layer.tar", "tree"
_VIEWS = ".views"
"""In the home: unpacked stacks, each a folder with the mountpoint `low` beside its tree."""


@frozen
class Settings:
    """It has no options."""


class Tars(StorageDriver):
    """Layers as tars."""

    name: ClassVar[str] = "tars"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.MERGED)  # of what containers write
    options: ClassVar[type] = Settings
    layer_files: ClassVar[str] = "core.tars:TarFiles"

    @classmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        return Backing("any", CopyOnWrite.NONE, quota=False)

    def folder(self, layer: Layer) -> Path:
        """Where all of a layer lies."""
        return (self.staging if layer.is_staged else self.home) / layer.key

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        made = self.staging / layer.key
        with named("mkdir", made):
            made.mkdir()
            if layer.state is State.WRITABLE:
                (made / "merged").mkdir()
                self._unpack(parents, made / _TREE)
                made.rename(self.home / layer.key)

    def tree(self, layer: Layer) -> Path:
        return self.folder(layer) / _TREE

    def prepare(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> None:
        view = self._view(layer, parents)
        if layer.state is not State.WRITABLE and not view.exists():
            fresh = self.staging / f"{layer.key}.view"
            with named("mkdir", fresh):
                fresh.mkdir()
                self._unpack((layer, *parents), fresh / _TREE)
                view.parent.mkdir(exist_ok=True)
                fresh.rename(view)
        with named("mkdir", view):
            (view / "low").mkdir(exist_ok=True)

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        view = self._view(layer, parents)
        low = str(view / "low")
        return (
            Mount("bind", str(view / _TREE), target=low),
            Mount("bind", low, read_only=read_only),
        )

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        assert layer.is_staged, "what a container wrote is packed, never sealed"
        with named("rename", self.home / layer.key):
            self.folder(layer).rename(self.home / layer.key)
        fsync_folder(self.home)
        return layer.key

    def remove(self, layer: Layer) -> None:
        views = self.home / _VIEWS
        for view in [*views.glob(f"{layer.key}*")] if views.is_dir() else []:
            remove_tree(view)
        move_away(self.folder(layer), self.staging / f"{layer.key}.gone")

    def keys(self) -> Iterable[LayerKey]:
        return [LayerKey(name) for name in os.listdir(self.home) if name != _VIEWS]

    def _view(self, layer: Layer, parents: Sequence[Layer]) -> Path:
        if layer.state is State.WRITABLE:
            return self.folder(layer)
        name = hashlib.sha256(" ".join(parent.key for parent in parents).encode()).hexdigest()[:8]
        return self.home / _VIEWS / f"{layer.key}.{name}"

    def _unpack(self, stack: Sequence[Layer], target: Path) -> None:
        """A stack, the nearest layer first, as one tree."""
        make_plain_folder(target)
        for number, layer in enumerate(reversed(stack)):
            fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
            skeleton = self.staging / f"{os.urandom(16).hex()}.skeleton"
            try:
                with open(self.folder(layer) / _TAR, "rb", buffering=0) as stream:
                    tar.unpack(stream, target, dialect=Dialect.MERGED, skeleton=skeleton, below=fd, bottom=not number)
            finally:
                os.close(fd)
                remove_tree(skeleton)
                remove_tree(tar.shadow_of(skeleton))


class TarFiles(LayerFiles):
    """A layer is the file `layer.tar` in the driver's folder: its DiffID is that file's digest."""

    driver: Tars

    def take_in(
        self,
        stream: Readable,
        *,
        parents: Sequence[Layer] | None = None,
        expected: DiffID | None = None,
        progress: Told | None = None,
        limits: Limits = UNLIMITED,
    ) -> Staged:
        layer = Layer(self.session.new_key(), State.STAGED)
        digest, size = hashlib.sha256(), 0
        buffer = memoryview(bytearray(1 << 20))
        try:
            self.driver.create(layer, parents or ())
            with open(self._tar(layer), "wb") as file:
                while count := stream.readinto(buffer):
                    digest.update(buffer[:count])
                    size += file.write(buffer[:count])
                    limits.check("max-layer-size", size, "the layer's tar")
                    if progress is not None:
                        progress(size)
            diff_id = DiffID(f"sha256:{digest.hexdigest()}")
            if expected is not None and diff_id != expected:
                raise DigestMismatch("layer", expected=expected, actual=diff_id, layer=expected)
        except BaseException:
            self.drop([layer], quietly=True)
            raise
        return Staged(Diff(layer.key, diff_id, size, entries=0), layer)

    def take_changes(
        self, container: Layer, parents: Sequence[Layer], *, in_use: bool, latest: int | None = None
    ) -> Staged | None:
        if not len(self.driver.changes(container, parents)):
            return None
        with relay(lambda write: self.write_changes(container, parents, write, latest=latest)) as stream:
            return self.take_in(stream)

    def rebuild(self, origin: Diff, parents: Sequence[Layer], *, staged: bool) -> Staged:
        raise AssertionError("a tar fits on all parents")

    def settle(self, staged: Staged, parents: Sequence[Layer]) -> Staged:
        return staged

    def fits(self, stored: Diff, parents: Sequence[Layer]) -> bool:
        return True

    def keep(self, placed: Sequence[tuple[Staged, Sequence[Layer]]]) -> list[Diff]:
        syncfs(self.driver.home)
        for staged, parents in placed:
            self.driver.seal(staged.layer, parents)
        return [staged.diff for staged, _ in placed]

    def give_out(self, stored: Diff, write: Write) -> None:
        digest = hashlib.sha256()
        try:
            with open(self._tar(Layer(stored.key)), "rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
                    write(memoryview(piece))
        except FileNotFoundError:
            raise Damaged(f"layer {stored.diff_id}: its tar is missing", layer=stored.diff_id) from None
        if f"sha256:{digest.hexdigest()}" != stored.diff_id:
            raise Damaged(f"layer {stored.diff_id}: its tar is not what it was", layer=stored.diff_id)

    def entries(self, stored: Diff) -> Iterator[LayerEntry]:
        """By its skeleton, as the tar has none of its own: it is unpacked beside for that."""
        place = self.session.folder / f"{self.session.new_key()}.listed"
        skeleton = place / "skeleton"
        try:
            make_plain_folder(place)
            make_plain_folder(place / _TREE)
            with open(self._tar(Layer(stored.key)), "rb", buffering=0) as stream:
                tar.unpack(stream, place / _TREE, dialect=Dialect.OVERLAY, skeleton=skeleton)
            return tar.entries(skeleton)
        finally:
            remove_tree(place)

    def damages(self, stored: Diff, level: Level, write: Write | None = None) -> Iterator[Damage]:
        path = self._tar(Layer(stored.key))
        if not path.exists():
            yield Damage("/", "the tar is missing")
        elif path.stat().st_size != stored.size:
            yield Damage("/", f"the tar has {path.stat().st_size} bytes, not {stored.size}")
        elif level is Level.CONTENT:
            try:
                self.give_out(stored, lambda _: None)
            except Damaged as error:
                yield Damage("/", error.message)

    def place_of(self, layer: Layer) -> Path:
        return self.driver.tree(layer) if layer.state is State.WRITABLE else self._tar(layer)

    def has(self, layer: Layer) -> bool:
        return self.place_of(layer).exists()

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        if layer.state is State.WRITABLE:
            return super().usage(layer, parents)
        return Usage(self._tar(layer).stat().st_blocks * 512, 1)

    def remove_beside(self, key: LayerKey) -> None:
        pass

    def keys_beside(self) -> Iterable[str]:
        return ()

    def hand_over(self, keys: Iterable[LayerKey], beside: Path) -> None:
        pass

    def _tar(self, layer: Layer) -> Path:
        return self.driver.folder(layer) / _TAR


def left_mounted(home: Path) -> list[Path]:
    """What of the recipes is still mounted."""
    found = [low for low in home.glob("**/low") if mount_id(low) is not None]
    for low in found:
        unmount(low, lazy=True)
    return found
