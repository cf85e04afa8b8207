"""The interface between layerstore and a storage driver.

A driver knows two things: where the bytes of a layer lie, and how a stack of layers becomes one tree. It knows nothing
of images, tags, digests, references, locks or tar. It keeps no record of parentage either: the core tells it the
parents each time, so no file of a driver can disagree with the database.

The life of a layer
-------------------

Every layer begins writable and ends committed, or is removed::

    create(K, parents, staged=True)    a layer to be filled from a tar: in the staging folder, seen by nobody
        the core unpacks into tree(K), in the driver's dialect, and syncs the filesystem
    seal(K, parents)                   now committed: in the home, read-only from here on

    create(K, parents)                 the writable layer of a container: whole in the home when `create` returns
        the core mounts mounts(K, parents), programs write, the core unmounts
    changes(K, parents)                what they changed
    seal(K, parents)                   `commit`: the same bytes are now a committed layer; nothing is copied

    remove(K)                          away into the staging folder in one rename; the core deletes it there

`parents` is always the whole stack below the layer, the nearest parent first and the bottom layer last, which is also
the order in which overlay wants its lower directories. A layer that hides everything below it (an opaque root) is the
last of the list that the core passes: no driver needs to know that rule.

Crash safety is shared. The driver makes each change of the home in one step (a rename, a snapshot); the core syncs
before and writes the database row after. What lies in the home without a row is garbage that the core removes with
`remove`; what the process was making lies in staging, which the next `open` empties.

Errors
------

A driver raises `KernelError` for what a system call refused, and lets it pass when it comes from `layerstore.kernel`.
`probe` alone raises `DriverNotSupported`, with the reason and what the user could do about it.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, NewType

from attrs import frozen

from layerstore.changes import Changes, Kind, compare_trees
from layerstore.errors import KernelError
from layerstore.kernel import files
from layerstore.kernel.mounts import Mount, detached

__all__ = [
    "Backing",
    "Capabilities",
    "CopyOnWrite",
    "Dialect",
    "LayerKey",
    "Mount",
    "StorageDriver",
    "Usage",
    "usage_of",
    "usage_of_changes",
]

LayerKey = NewType("LayerKey", str)
"""The name of one stored layer within a home: 32 hex digits, random, given by the core. Never a digest."""


class Dialect(Enum):
    """How a `tree()` marks what the layer removes from the layers below."""

    OVERLAY = "overlay"
    """0/0 character devices, and the xattr `trusted.overlay.opaque` (kernel: filesystems/overlayfs.rst)."""
    AUFS = "aufs"
    """Empty files `.wh.NAME` and `.wh..wh..opq`, as in a layer's tar (OCI image spec, layer.md, "Whiteouts")."""
    MERGED = "merged"
    """No marks: `tree()` holds the whole stack, and what is removed is not there."""


class CopyOnWrite(Enum):
    """What the first write to a file of a lower layer copies, on this backing filesystem."""

    BLOCK = "block"
    FILE = "file"
    NONE = "none"


@frozen
class Capabilities:
    """What the core may expect of a driver.

    `independent_layers`: a stored layer does not depend on its parents. The core then unpacks the layers of an image in
    parallel and keeps equal diffs once, whatever is below them.
    `max_depth`: how many layers one stack may have, the writable one not counted; None when there is no limit.
    """

    dialect: Dialect
    independent_layers: bool
    copy_on_write: CopyOnWrite
    quota: bool
    max_depth: int | None


@frozen
class Backing:
    """What `probe` found below the home. `notes` are lines for `info`: what works here, and what not and why."""

    filesystem: str
    copy_on_write: CopyOnWrite
    quota: bool
    notes: tuple[tuple[str, str], ...] = ()


@frozen
class Usage:
    """What one layer occupies by itself: bytes on disk, and inodes."""

    size: int
    inodes: int


class StorageDriver(ABC):
    """What every driver implements. See the module's text for the order of calls.

    `home` is the folder that belongs to the driver, `staging` a folder of this process on the same filesystem that the
    core empties; both exist. `options` is an instance of the driver's own `options` class.
    """

    name: ClassVar[str]
    """As in `storage-driver` of daemon.json."""
    capabilities: ClassVar[Capabilities]
    options: ClassVar[type]
    """A frozen attrs class; each field is one storage-opt, `<driver>.<field>`: a converter from str and a default."""

    def __init__(self, home: Path, staging: Path, options: Any) -> None:
        self.home = home
        self.staging = staging
        self.settings = options

    @classmethod
    @abstractmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        """Can this driver work in `home` (which need not exist yet: then its nearest existing parent counts)?

        Leaves nothing behind. Raises `DriverNotSupported`.
        """

    @abstractmethod
    def create(
        self, layer: LayerKey, parents: Sequence[LayerKey], *, staged: bool = False, size: int | None = None
    ) -> None:
        """Make an empty writable layer on `parents`.

        `staged`: it is to be filled from a tar and sealed, and lies in `self.staging` until then; its root directory is
        plain. Otherwise it is a container's, whole in the home in one step, and its root directory looks as that of the
        nearest parent (mode, owner, times, xattrs). `size` limits it in bytes, where `capabilities.quota` is true.
        """

    @abstractmethod
    def tree(self, layer: LayerKey) -> Path:
        """The directory of the layer's own files, in the driver's dialect, staged or in the home; no mountpoint."""

    @abstractmethod
    def mounts(self, layer: LayerKey, parents: Sequence[LayerKey], *, read_only: bool) -> Sequence[Mount]:
        """The recipe that shows `layer` on `parents` as one tree. The core mounts it, and unmounts it.

        `read_only` works for each layer, writable or committed, and while a writable mount of it exists; the writable
        recipe is asked for only for layers that are not sealed.
        """

    @abstractmethod
    def seal(self, layer: LayerKey, parents: Sequence[LayerKey]) -> LayerKey:
        """Turn a writable layer into a committed one without copying a byte, durably in the home when this returns.

        The core has unmounted the layer and synced its filesystem. Returns the key of the committed layer: `layer`
        itself, or `layer` with a suffix when the driver had to make a new object (a snapshot); the core then removes
        the old one. Until the row is written the layer must still be usable as what it was.
        """

    @abstractmethod
    def remove(self, layer: LayerKey) -> None:
        """Move the layer into `self.staging`, in one step; the core deletes it there. No error if it is not there."""

    @abstractmethod
    def layers(self) -> Iterator[LayerKey]:
        """The keys of all that lies in the home. Used to find garbage, and nothing else."""

    # What a driver may leave to this class, and writes itself where it knows a cheaper way or more.

    def changes(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Changes:
        """What `layer` changes against `parents`, exactly: bytes, attributes and xattrs. The layer may be mounted.

        The default reads both trees, in full.
        """
        with ExitStack() as opened:
            new = opened.enter_context(detached(self.mounts(layer, parents, read_only=True)))
            old = None
            if parents:
                old = opened.enter_context(detached(self.mounts(parents[0], parents[1:], read_only=True)))
            found = compare_trees(new, old, content=True)
        # In another dialect, `tree()` holds marks that this comparison has not seen: what is committed is copied.
        return found if self.capabilities.dialect is Dialect.MERGED else Changes(found.raw, sealable=False)

    def usage(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Usage:
        """What the layer occupies by itself. The default walks `tree()`."""
        return usage_of(self.tree(layer))

    def graph_data(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Mapping[str, str]:
        """`GraphDriver.Data` of `inspect`, with docker's keys."""
        return {"MergedDir": str(self.mountpoint(layer))}

    def status(self) -> Sequence[tuple[str, str]]:
        """The driver's lines of `info`, in dockerd's words."""
        return ()

    def mountpoint(self, layer: LayerKey) -> Path:
        """Where the core attaches the layer when a path is asked for. Exists once the writable recipe is asked for."""
        return self.home / layer / "merged"

    def close(self) -> None:
        """Give back what the driver holds open. Most hold nothing."""


def usage_of(tree: Path) -> Usage:
    """What a directory and all in it occupy; a file of several names counts once.

    What goes away meanwhile, and what lies deeper than any path leads, is left out.
    """
    size = inodes = 0
    seen: set[tuple[int, int]] = set()
    folders = [os.fsencode(tree)]
    while folders:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno != errno.ENAMETOOLONG:
                        raise
                    continue
                if (facts.st_dev, facts.st_ino) not in seen:
                    seen.add((facts.st_dev, facts.st_ino))
                    size += facts.st_blocks * 512
                    inodes += 1
                if stat.S_ISDIR(facts.st_mode):
                    folders.append(entry.path)
    return Usage(size, inodes)


def usage_of_changes(tree: int, changes: Changes) -> Usage:
    """What of a tree, a directory fd, is in a list of changes; for a layer that is kept as a whole tree.

    As the layer would occupy by itself: its directories count, too, and blocks that files share count for each.
    """
    size = inodes = 0
    seen: set[tuple[int, int]] = set()
    with ExitStack() as last:
        folder, fd = "", tree
        for change in changes:
            if change.kind is Kind.DELETED:
                continue
            above, _, name = change.path.rpartition("/")
            try:
                if above != folder:
                    last.close()
                    folder, fd = above, tree
                    if above:
                        fd = files.open_beneath(tree, above, os.O_PATH | os.O_DIRECTORY)
                        last.callback(os.close, fd)
                facts = os.stat(name or ".", dir_fd=fd, follow_symlinks=False)
            except (FileNotFoundError, KernelError):  # gone meanwhile
                last.close()
                folder, fd = "", tree
                continue
            if (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                size += facts.st_blocks * 512
                inodes += 1
    return Usage(size, inodes)
