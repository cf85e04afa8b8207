"""Indexes, as the tests drive them: each tar gets a listing, and the stack of them is mounted and looked at.

What the core of the project does around `take_listing` is done here in its plainest form: a layer whose listing needs
what the parents have is listed again with their tree at hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from layerstore.driver import Dialect, Mount
from layerstore.indexes import Part, Written, write_index
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.kernel.mounts import detached
from layerstore.tar import Unpacked, adopt_implied, implied_digest, take_listing, unpack
from layerstore.testing import strategies, trees
from layerstore.testing.model import Tree
from layerstore.testing.tars import Entry
from tar.engine import Pieces, diff_id

Layers = Sequence[Entry] | strategies.Layer


def erofs(index: Path, tars: Sequence[Path], target: Path | None = None) -> Mount:
    """The mount of an index; `tars` from the bottom to the top."""
    devices = tuple(("device", str(tar)) for tar in tars)
    return Mount("erofs", str(index), devices, read_only=True, target=None if target is None else str(target))


class Stack:
    """Layers kept as tars in `folder`, and the index of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        self._numbers = iter(range(1 << 20))
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("empty", "low"):
            (folder / name).mkdir()
            (folder / name).chmod(0o755)

    def push(self, tar: bytes, *, piece: int = 1 << 20) -> Unpacked:
        """Lay `tar` on top. What is refused leaves nothing."""
        number = len(self.parts)
        part = Part(self.folder / f"listing{number}", self.folder / f"tar{number}")
        part.tar.write_bytes(tar)

        def listed(*, below: int | None = None, bottom: bool = False) -> Unpacked:
            part.listing.unlink(missing_ok=True)
            return take_listing(Pieces(tar, piece), part.listing, expected=diff_id(tar), below=below, bottom=bottom)

        done = listed()
        if done.needs_parents or any(path.strip("/") for path in done.implied):
            with self.below() as below:
                parents = below if self.parts else None
                if done.needs_parents or implied_digest(done.implied, parents).symlinked:
                    done = listed(below=parents, bottom=not self.parts)
        self.parts.append(part)
        return done

    def write(self) -> tuple[Path, Written]:
        """The index of the stack as it is now, in a new file."""
        index = self.folder / f"index{next(self._numbers)}"
        return index, write_index(tuple(reversed(self.parts)), index)

    @contextmanager
    def mounted(self, *, through_overlay: bool | None = None) -> Iterator[int]:
        """The tree as it is seen: through overlay where the index says so. A directory descriptor."""
        index, written = self.write()
        tars = [part.tar for part in self.parts]
        mounts = [erofs(index, tars)]
        if written.escaped if through_overlay is None else through_overlay:
            low = self.folder / "low"
            lower = (("lowerdir+", str(low)), ("lowerdir+", str(self.folder / "empty")))
            mounts = [erofs(index, tars, low), Mount("overlay", "overlay", lower, read_only=True)]
        try:
            with detached(mounts) as root:
                yield root
        finally:
            index.unlink()

    @contextmanager
    def below(self) -> Iterator[int]:
        """The merged tree of all layers so far, as a directory descriptor."""
        with ExitStack() as undo:
            if self.parts:
                yield undo.enter_context(self.mounted())
            else:
                yield undo.enter_context(opened(self.folder / "empty", FOLDER))

    def listing(self, *, through_overlay: bool | None = None) -> dict[str, trees.Entry]:
        """The merged tree, as it is seen by who mounts it."""
        with self.mounted(through_overlay=through_overlay) as root:
            return trees.listing(f"/proc/self/fd/{root}/")


def unpacked(tars: Sequence[bytes], tree: Path) -> dict[str, trees.Entry]:
    """What the same tars are when each is unpacked onto the others."""
    tree.mkdir()
    tree.chmod(0o755)
    for number, tar in enumerate(tars):
        skeleton = tree.with_name(f"{tree.name}.skeleton{number}")
        with opened(tree, FOLDER) as below:
            done = unpack(
                Pieces(tar, 1 << 20),
                tree,
                dialect=Dialect.MERGED,
                skeleton=skeleton,
                below=below if number else None,
                bottom=not number,
            )
            adopt_implied(tree, done.implied, below if number else None, Dialect.MERGED)
    return trees.listing(tree)


def assert_stacks_as_the_model(stack: Stack, *layers: Layers) -> dict[str, trees.Entry]:
    """Lay `layers` on each other, and compare the tree after each with the model."""
    model = Tree()
    seen = stack.listing()
    for given in layers:
        layer = given if isinstance(given, strategies.Layer) else strategies.Layer(tuple(given))
        model.apply(layer.entries)
        stack.push(layer.tar)
        seen = stack.listing()
        found = trees.differences(model.listing(seen), seen)
        assert not found, "\n".join(found)
    return seen


def data_at(root: int, path: str) -> bytes:
    """All bytes of a file below a directory descriptor."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root)
    try:
        with os.fdopen(os.dup(file), "rb") as stream:
            return stream.read()
    finally:
        os.close(file)
