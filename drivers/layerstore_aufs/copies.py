"""Stacks without a mount that stacks: what the mode `copy` keeps.

A stack that is only read is a tree of hard links to its layers' files, `copies/<boot>/<top>.<digest>/tree`, made once
in a boot and never synced: what another boot left may be half on disk, and is thrown away. A container is a tree of its
own, `trees/<key>`, copied from that, synced before it is seen; what came of which file is noted in `copied/<key>`.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore.changes import Changes, compare_copied, compare_trees
from layerstore.changes.linked import link_stack
from layerstore.driver import Layer, State, Usage, usage_of, usage_of_changes
from layerstore.errors import CannotRepresent, KernelError
from layerstore.kernel import files
from layerstore.kernel.copying import copy_tree, listed
from layerstore.kernel.files.descriptors import FOLDER, opened, read_own, write_private
from layerstore.kernel.mounts import boot_id

TREES, LISTS, _CACHE = "trees", "copied", "copies"

_TREE, _STACK = "tree", "stack"
"""A tree of links, and beside it the layers that it shows."""


class Copies:
    """The copies of one home. `own` says where a layer's own files lie."""

    def __init__(self, home: Path, staging: Path, own: Callable[[Layer], Path]) -> None:
        self._home = home
        self._staging = staging
        self._own = own

    def tree(self, layer: Layer) -> Path:
        """Where the tree of a container lies, if it was made by copying."""
        return self._home / TREES / layer.key

    def has(self, layer: Layer) -> bool:
        """Is it a container that was made by copying?"""
        return layer.state is State.WRITABLE and self.tree(layer).is_dir()

    def shown(self, stack: Sequence[Layer]) -> Path:
        """Where the tree that a stack shows, its topmost layer first, lies once `show` has made it; to read only."""
        return self._home / _CACHE / boot_id() / _name_of(stack) / _TREE

    def show(self, stack: Sequence[Layer]) -> Path:
        """Make it, if there is none in this boot."""
        tree = self.shown(stack)
        folder = tree.parent
        if not folder.is_dir():
            fresh = self._staging / f"{folder.name}-{os.urandom(4).hex()}"
            fresh.mkdir(mode=0o700)
            try:
                write_private(fresh / _STACK, "".join(f"{layer.key}\n" for layer in stack))
                files.make_plain_folder(fresh / _TREE)
                link_stack([self._own(layer) for layer in stack], fresh / _TREE)
                for above in (folder.parent.parent, folder.parent):
                    above.mkdir(mode=0o700, exist_ok=True)
                _rename_unless_there(fresh, folder)
            finally:
                files.remove_tree(fresh)
        return tree

    def make(self, layer: Layer, stack: Sequence[Layer], *, compared: bool) -> None:
        """Make the tree of a container that shows `stack`; durable when this returns.

        `compared`: the stack is what the container is compared with later.
        """
        fresh, note = self._staging / f"{layer.key}.tree", self._staging / f"{layer.key}.copied"
        for kind in (TREES, LISTS):  # left by a death or a power cut
            remove_all(self.move(self._home / kind / layer.key, f"{layer.key}.{kind}"))
        try:
            copied = None
            if stack:
                copied = copy_tree(self.show(stack), fresh)
            else:
                files.make_plain_folder(fresh)
            files.syncfs(fresh)
            if compared:
                # Not synced: after a power cut it is not believed anyway.
                write_private(note, b"" if copied is None else copied.note(fresh, _name_of(stack)))
                note.rename(self._home / LISTS / layer.key)
            fresh.rename(self.tree(layer))
            files.fsync_folder(self._home / TREES)
        finally:
            files.remove_tree(fresh)
            note.unlink(missing_ok=True)

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        """What a container that was made by copying changes."""
        with self._views(layer, parents) as (new, old):
            if old is None:
                return compare_trees(new, None)
            return compare_copied(new, old, self._told(layer, parents))

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        """What these changes occupy. Without a list, what has its old size and time is not read, but unaltered."""
        with self._views(layer, parents) as (new, old):
            told = self._told(layer, parents) if parents else b""
            try:
                found = compare_trees(new, old) if old is None or not told else compare_copied(new, old, told)
            except CannotRepresent:
                return usage_of(self.tree(layer))
            return usage_of_changes(new, found)

    @contextmanager
    def _views(self, layer: Layer, parents: Sequence[Layer]) -> Iterator[tuple[int, int | None]]:
        """Directory descriptors of a container's tree, and of the stack that it began as."""
        with opened(self.tree(layer), FOLDER) as new:
            if not parents:
                yield new, None
                return
            with opened(self.show(parents), FOLDER) as old:
                yield new, old

    def _told(self, layer: Layer, parents: Sequence[Layer]) -> bytes:
        return listed(self._home / LISTS / layer.key, self.tree(layer), _name_of(parents))

    def forget(self, layer: Layer) -> list[Path]:
        """Move every tree of links that shows `layer` into staging, under names that begin with its key."""
        moved: list[Path] = []
        cache = self._home / _CACHE / boot_id()
        try:
            names = os.listdir(cache)
        except FileNotFoundError:
            return moved
        for name in names:
            try:
                shown = read_own(cache / name / _STACK).decode().split()
            except (FileNotFoundError, NotADirectoryError):
                continue  # somebody else does
            if layer.key in shown:
                moved += self.move(cache / name, f"{layer.key}.{name}")
        return moved

    def move(self, path: Path, name: str) -> list[Path]:
        """Move something out of the home into staging: where it is now, if it was there."""
        target = self._staging / f"{name}-{os.urandom(4).hex()}"
        return [target] if files.move_away(path, target) else []

    def sweep(self) -> None:
        """Throw away what other boots left. What cannot be, in a store that can only be read, is for the next to do."""
        with suppress(OSError, KernelError):
            for boot in os.listdir(self._home / _CACHE):
                if boot != boot_id():
                    remove_all(self.move(self._home / _CACHE / boot, f"boot-{boot}"))


def _name_of(stack: Sequence[Layer]) -> str:
    digest = hashlib.sha256("\n".join(layer.key for layer in stack).encode()).hexdigest()[:16]
    return f"{stack[0].key}.{digest}"


def remove_all(paths: Sequence[Path]) -> None:
    """Delete what was moved."""
    for path in paths:
        files.remove_tree(path)


def _rename_unless_there(source: Path, target: Path) -> None:
    """Another process may have been quicker, with the same."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
