"""The tree of an image, or of its lower layers, as a directory descriptor: to be compared, and to be copied from.

It is mounted read-only and attached nowhere, so nobody else sees it; while it is open, nothing of it is removed. Where
no descriptor is needed, it is read without a mount (`layerstore.trees`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

from layerstore.changes import Changes, compare_trees
from layerstore.driver import Layer, look
from layerstore.errors import DriverFailed, KernelError
from layerstore.images import rows
from layerstore.kernel.files.filesystems import type_of
from layerstore.kernel.mounts import Mount, detached
from layerstore.layers import Layers, Storage
from layerstore.layers import rows as layer_rows

if TYPE_CHECKING:
    from layerstore.database import Database
    from layerstore.digest import ChainID
    from layerstore.images.image import Image
    from layerstore.session import Session
    from layerstore.trees import Tree

EMPTY = Mount("tmpfs", "layerstore", (("mode", "0755"), ("nr_inodes", "16")), read_only=True)
"""What an image without layers is."""

_PURPOSE = "it is being read"


class HasTree(Protocol):
    """An image or a container: what has a tree to compare."""

    def open_tree(self) -> AbstractContextManager[int]:
        """While inside: a directory descriptor of the tree."""
        ...


class Trees:
    """The trees of a store's images."""

    def __init__(self, database: Database, session: Session, storage: Storage, layers: Layers) -> None:
        self._database = database
        self._session = session
        self._storage = storage
        self._layers = layers

    @contextmanager
    def opened(self, image: Image, top: ChainID | None) -> Iterator[int]:
        """While inside: the tree of an image's layers up to `top`, and the image cannot be removed."""
        with self._leased(image, top) as stack, self._read(stack) as root:
            yield root

    @contextmanager
    def browsed(self, image: Image) -> Iterator[Tree]:
        """While inside: the same of all its layers, without a mount."""
        with self._leased(image, image.chain_id) as stack, browsed(self._storage, stack) as tree:
            yield tree

    @contextmanager
    def browsed_layers(self, top: ChainID | None) -> Iterator[Tree]:
        """While inside: the tree of a layer on those below it, without a mount."""
        with self._layers.held(top, _PURPOSE) as stack, browsed(self._storage, stack.layers) as tree:
            yield tree

    @contextmanager
    def _leased(self, image: Image, top: ChainID | None) -> Iterator[Sequence[Layer]]:
        with self._database.write(durable=False) as tx:
            rows.resolve(tx, image.id)
            stack = layer_rows.parents_on(tx, top)
            wanted = [("image", str(image.id)), *(("diff", str(layer.key)) for layer in stack)]
            leases = layer_rows.add_leases(tx, self._session.name, wanted, _PURPOSE)
        try:
            yield stack
        finally:
            self._layers.end_leases(leases)

    @contextmanager
    def of_layers(self, top: ChainID | None) -> Iterator[int]:
        """While inside: the tree of a layer on those below it, whether an image has it or not, and it is kept."""
        with self._layers.held(top, _PURPOSE) as stack, self._read(stack.layers) as root:
            yield root

    @contextmanager
    def _read(self, stack: Sequence[Layer]) -> Iterator[int]:
        with ExitStack() as after:
            try:
                tree = look(self._storage.driver, stack[0], stack[1:]) if stack else detached([EMPTY])
                root = after.enter_context(tree)
            except (KernelError, DriverFailed):
                self._storage.files.require(stack)
                raise
            yield settled(root)

    def changes_of(self, image: Image, base: Image | None) -> Changes:
        """What an image changes against the one that it was built on, or else what its topmost layer changes."""
        below = base.chain_id if base is not None else image.chain_ids[-2] if len(image.chain_ids) > 1 else None
        if image.chain_id is None:
            return Changes(b"", sealable=False)
        with ExitStack() as trees:
            new = trees.enter_context(self.opened(image, image.chain_id))
            old = None if below is None else trees.enter_context(self.opened(base or image, below))
            return compare_trees(new, old, content=True)


@contextmanager
def browsed(storage: Storage, stack: Sequence[Layer]) -> Iterator[Tree]:
    """While inside: what a stack shows, the nearest layer first, read without a mount. Its layers have to be kept."""
    from layerstore.trees import open_slices

    try:
        tree = open_slices(storage.driver.slices(stack[0], stack[1:]) if stack else ())
    except (KernelError, DriverFailed):
        storage.files.require(stack)
        raise
    with tree:
        yield tree


def settled(root: int) -> int:
    """The same directory descriptor, of a tree that shows what it has to who asks for a name, too.

    fuse-overlayfs 1.10 answers with names of a directory that was replaced, until it has listed the new one.
    """
    if type_of(root) == "fuse":
        for _ in os.fwalk(".", dir_fd=root):
            pass
    return root


def changes_between(new: HasTree, old: HasTree) -> Changes:
    """What one tree changes against another: to the last attribute and byte."""
    with old.open_tree() as below, new.open_tree() as above:
        return compare_trees(above, below, content=True)
