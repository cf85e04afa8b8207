"""The engine, as the tests drive it: layers go onto a stack, one tar each, in one dialect.

What the core of the project does around `unpack` is done here in its plainest form: the merged tree of the parents is
at hand, a layer that cannot do without it is unpacked again with it, implied directories are adopted.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import define, evolve, field

from layerstore.digest import DiffID
from layerstore.driver import Dialect, Mount
from layerstore.kernel.mounts import detached
from layerstore.tar import Damage, Level, Unpacked, adopt_implied, export, implied_digest, unpack, verify
from layerstore.testing import strategies, trees
from layerstore.testing.model import Tree
from layerstore.testing.tars import Entry


def diff_id(tar: bytes) -> DiffID:
    return DiffID("sha256:" + hashlib.sha256(tar).hexdigest())


class Pieces(io.RawIOBase):
    """A stream that gives its bytes in pieces of a few sizes, as pipes and sockets do."""

    def __init__(self, data: bytes, size: int) -> None:
        self._rest = memoryview(data)
        self._size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer is a memoryview here
        count = min(len(buffer), self._size, len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


@define
class Layer:
    """One layer on disk. `with_parents`: the merged tree of its parents was at hand."""

    tar: bytes = field(repr=False)
    tree: Path
    skeleton: Path
    with_parents: bool
    unpacked: Unpacked = field(init=False)

    def discard(self) -> None:
        # By rm, since a tree may be deeper than PATH_MAX.
        subprocess.run(["rm", "-rf", self.tree, self.skeleton, f"{self.skeleton}.shadowed"], check=True)


def overlay(trees: list[Path], empty: Path) -> list[Mount]:
    """A read-only overlay of `trees`, topmost first. Overlay wants two, and the last may be empty."""
    lower = [("lowerdir+", str(tree)) for tree in [*trees, empty]]
    return [Mount("overlay", "overlay", tuple(lower), read_only=True)]


class Stack:
    """Layers unpacked one on the other in `folder`."""

    def __init__(self, folder: Path, dialect: Dialect) -> None:
        self.folder = folder
        self.dialect = dialect
        self.layers: list[Layer] = []
        self._parents: Stack | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "empty").mkdir()
        (folder / "empty").chmod(0o755)
        if dialect is Dialect.AUFS:
            # There is no aufs to mount: what the parents look like is seen in a merged twin.
            self._parents = Stack(folder / "twin", Dialect.MERGED)

    def push(self, tar: bytes, *, piece: int = 1 << 20) -> Layer:
        """Unpack `tar` on top. What is refused leaves nothing, but in a merged tree."""
        bottom = not self.layers
        with self.below() as below:
            if self.dialect is Dialect.MERGED:
                layer = self._unpack(tar, piece, below=None if bottom else below, bottom=bottom)
            else:
                layer = self._unpack(tar, piece)
                implied = layer.unpacked.implied
                if layer.unpacked.needs_parents or implied_digest(implied, None if bottom else below).symlinked:
                    layer.discard()
                    layer = self._unpack(tar, piece, below=None if bottom else below, bottom=bottom)
                adopt_implied(layer.tree, layer.unpacked.implied, None if bottom else below, self.dialect)
        self.layers.append(layer)
        if self._parents is not None:
            self._parents.push(tar)
        return layer

    def _unpack(self, tar: bytes, piece: int, *, below: int | None = None, bottom: bool = False) -> Layer:
        number = len(self.layers)
        tree = self.folder / ("tree" if self.dialect is Dialect.MERGED else f"tree{number}")
        tree.mkdir(exist_ok=self.dialect is Dialect.MERGED)
        layer = Layer(tar, tree, self.folder / f"skeleton{number}", with_parents=below is not None)
        try:
            layer.unpacked = unpack(
                Pieces(tar, piece),
                tree,
                dialect=self.dialect,
                skeleton=layer.skeleton,
                expected=diff_id(tar),
                below=below,
                bottom=bottom,
            )
        except BaseException:
            layer.discard()
            raise
        return layer

    def visible(self) -> list[Layer]:
        """Nearest first; nothing below a layer with an opaque root."""
        found = []
        for layer in reversed(self.layers):
            found.append(layer)
            if layer.unpacked.root_opaque:
                break
        return found

    @contextmanager
    def below(self) -> Iterator[int]:
        """The merged tree of all layers so far, as a directory descriptor."""
        with ExitStack() as undo:
            if self._parents is not None:
                yield undo.enter_context(self._parents.below())
            elif self.dialect is Dialect.MERGED or not self.layers:
                tree = self.folder / "tree" if self.layers and self.dialect is Dialect.MERGED else self.folder / "empty"
                fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
                undo.callback(os.close, fd)
                yield fd
            else:
                trees = [layer.tree for layer in self.visible()]
                yield undo.enter_context(detached(overlay(trees, self.folder / "empty")))

    def listing(self) -> dict[str, trees.Entry]:
        """The merged tree, as it is seen by who mounts it."""
        if self.dialect is Dialect.AUFS:
            return aufs_union([trees.listing(layer.tree) for layer in self.layers])
        with self.below() as tree:
            return trees.listing(f"/proc/self/fd/{tree}/")

    def exported(self, layer: Layer) -> bytes:
        """The tar that the engine makes of what it stored."""
        return exported(layer.skeleton, layer.tree, diff_id(layer.tar))

    def damage(self, layer: Layer, level: Level = Level.CONTENT) -> list[Damage]:
        """What the engine finds wrong with what it stored."""
        return list(verify(layer.skeleton, layer.tree, dialect=self.dialect, level=level))


def exported(skeleton: Path, tree: Path, expected: DiffID) -> bytes:
    collected = bytearray()
    export(skeleton, tree, collected.extend, expected=expected)
    return bytes(collected)


def aufs_union(layers: Sequence[trees.Tree]) -> dict[str, trees.Entry]:
    """What aufs shows of these directories, bottom to top: aufs(5), "Whiteout", with the opaque marker."""
    union: dict[str, tuple[int, trees.Entry]] = {}

    def hide(path: str, *, itself: bool) -> None:
        below = path + "/" if path else ""
        for name in [name for name in union if (name.startswith(below) and name) or (itself and name == path)]:
            del union[name]

    for number, layer in enumerate(layers):
        marks = {path: path.rpartition("/") for path in layer if path.rpartition("/")[2].startswith(".wh.")}
        for path, (parent, slash, name) in marks.items():
            assert layer[path].type == "file", f"{path} is a {layer[path].type}"
            assert layer[path].size == 0, f"{path} is not empty"
            if name == ".wh..wh..opq":
                hide(parent, itself=False)
            else:
                hidden = parent + slash + name.removeprefix(".wh.")
                assert hidden not in layer, f"{path} stands beside what it hides"
                hide(hidden, itself=True)
        for path, entry in layer.items():
            if path not in marks:
                if entry.type != "folder":
                    hide(path, itself=True)
                union[path] = (number, entry)
    return {
        path: evolve(entry, names=tuple(name for name in entry.names if union.get(name, (None,))[0] == number))
        for path, (number, entry) in union.items()
    }


def assert_stacks_as_the_model(stack: Stack, *layers: Sequence[Entry] | strategies.Layer) -> dict[str, trees.Entry]:
    """Unpack `layers`, compare the tree after each with the model, and each tar with what is exported."""
    model = Tree()
    seen = stack.listing()
    for given in layers:
        layer = given if isinstance(given, strategies.Layer) else strategies.Layer(tuple(given))
        model.apply(layer.entries)
        stored = stack.push(layer.tar)
        seen = stack.listing()
        found = trees.differences(model.listing(seen), seen)
        assert not found, "\n".join(found)
        assert stack.exported(stored) == layer.tar, "another tar was exported"
        damage = stack.damage(stored)
        assert not damage, damage
        assert (stored.unpacked.diff_id, stored.unpacked.size) == (diff_id(layer.tar), len(layer.tar))
    return seen
