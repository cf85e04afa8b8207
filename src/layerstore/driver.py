"""The interface between layerstore and a storage driver.

A driver knows two things: where the bytes of a layer lie, and how a stack of layers becomes one tree. It knows nothing
of images, tags, digests, references, locks or tar. It keeps no record of parentage or state either: the core tells it
both each time, as `Layer` values, so no file of a driver can disagree with the database.

The life of a layer
-------------------

Every layer begins writable and ends committed, or is removed. `Layer.state` says where it is in its life::

    create(L, parents)      L is STAGED: to be filled from a tar, in the staging folder, seen by nobody
        the core unpacks into tree(L), in the driver's dialect, and syncs the filesystem
    seal(L, parents)        the key of a committed layer: in the home, read-only from here on

    create(L, parents)      L is WRITABLE: that of a container, whole in the home when `create` returns
        prepare(L, parents), and the core mounts mounts(L, parents); programs write; the core unmounts
    changes(L, parents)     what they changed
    seal(L, parents)        `commit`: the same bytes are now a committed layer; nothing is copied

    segment(L, parents)     a checkpoint: what is in it so far stays as a committed layer, and nothing is read

    remove(L)               away into the staging folder in one rename; the core deletes it there

`parents` is always the whole stack below the layer, the nearest parent first and the bottom layer last, which is also
the order in which overlay wants its lower directories. They are committed; those of a staged layer may be staged
themselves, and are sealed before it is. A layer that hides everything below it (an opaque root) is the last of the list
that the core passes: no driver needs to know that rule.

Crash safety is shared. The driver makes each change of the home in one step (a rename, a snapshot); the core syncs
before and writes the database row after. What lies in the home without a row is garbage that the core removes with
`remove`; what the process was making lies in staging, which the next `open` empties.

Errors
------

A method that fails leaves the home as it was, and a `create` that fails nothing in staging either. What it may raise:

==================  ====================================================================================================
DriverNotSupported  `probe`: it cannot work here, with the reason and what the user could do about it. `create`: a
                    `size` where this home cannot limit one; never is a limit ignored. Any: a container was written in
                    a way that does not work here any more.
DepthExceeded       `create`: more parents than it can stack.
ConfigError         `create`: a `size` that the driver's own options forbid.
InUse               `seal`, `remove`: something is mounted in the layer, or was made in it, that is in the way.
CannotRepresent     `changes`, `seal`: there is a file that no layer can hold.
Damaged             what is there is not what the driver left there.
KernelError         a system call was refused. What `layerstore.kernel` raises passes.
anything else       is wrapped by the core (`blamed`): an OSError becomes a `KernelError`; a program that ended with an
                    error, and whatever else, `DriverFailed`. Each says the driver, the layer and what was done.
==================  ====================================================================================================
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, NewType

from layerstore.changes import Changes, Kind, compare_trees
from layerstore.errors import FULL, Damaged, DriverFailed, KernelError, LayerstoreError, file_of, remedy_for
from layerstore.kernel import files
from layerstore.kernel.mounts import Mount, detached
from layerstore.values import frozen

__all__ = [
    "BORROWED",
    "Backing",
    "Capabilities",
    "CopyOnWrite",
    "Dialect",
    "Layer",
    "LayerKey",
    "Mount",
    "Slice",
    "State",
    "StorageDriver",
    "Usage",
    "blamed",
    "look",
    "usage_of",
    "usage_of_changes",
]

LayerKey = NewType("LayerKey", str)
"""The name of one stored layer within a home: 32 hex digits, random, given by the core. Never a digest."""

BORROWED: Final = "borrowed"
"""How the key of a layer ends whose files are in an attached store."""


class State(Enum):
    """Where a layer is in its life."""

    STAGED = "staged"
    """In the staging folder of this process, to be filled from a tar. Nobody else sees it."""
    WRITABLE = "writable"
    """A container's, in the home."""
    COMMITTED = "committed"
    """In the home, and never altered again."""


@frozen
class Layer:
    """One layer, as the core tells a driver of it. Of garbage in the home nobody knows what it was: it is COMMITTED."""

    key: LayerKey
    state: State = State.COMMITTED

    @property
    def is_staged(self) -> bool:
        """Does it lie in the staging folder?"""
        return self.state is State.STAGED

    @property
    def is_borrowed(self) -> bool:
        """Does it lie in an attached store, as a folder with overlay's marks? See `StorageDriver.elsewhere`."""
        return self.key.endswith(BORROWED)


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

    With the dialect MERGED a layer holds what its parents held: the core unpacks the layers of an image one after
    another, each on its parents. In each other dialect it unpacks several at once, and keeps equal diffs once, whatever
    is below them. Of a driver whose layers are no folders (`StorageDriver.layer_files`) it is the dialect of what
    containers write. `max_depth`: how many layers one stack may have, the writable one not counted; None when there is
    no limit. `snapshots`: `segment` shows one moment, whoever writes meanwhile. `borrows`: `tree` of
    a layer that lies in an attached store is `elsewhere` of its key, and it is stacked as its own are.
    """

    dialect: Dialect
    max_depth: int | None = None
    snapshots: bool = False
    borrows: bool = False


@frozen
class Backing:
    """What `probe` found below the home.

    `quota`: `create` can limit a container there. `notes` are the driver's lines of `layerstore info`, in dockerd's
    words where it has some: what works here, and what not and why.
    """

    filesystem: str
    copy_on_write: CopyOnWrite
    quota: bool
    notes: tuple[tuple[str, str], ...] = ()


@frozen
class Usage:
    """What one layer occupies by itself: bytes on disk, and inodes."""

    size: int
    inodes: int


@frozen
class Slice:
    """A part of a stack that can be read without a mount: see `StorageDriver.slices`.

    `path` is a folder, and `marks` are the dialects in which it says what it removes from the slices below: none for a
    whole tree. Or it is an index of `tars`, the nearest first (`layerstore.indexes`).
    """

    path: Path
    marks: tuple[Dialect, ...] = ()
    tars: tuple[Path, ...] = ()


def _nowhere(key: LayerKey) -> Path:
    raise Damaged(f"nothing says in which attached store layer {key} lies")


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
    layer_files: ClassVar[str] = "layerstore.layers.folders:Folders"
    """How the core keeps layers with this driver, as `module:Class`: as folders, unless the driver brings another way
    (a subclass of `layerstore.layers.files.LayerFiles`), for layers that are no folders."""

    def __init__(self, home: Path, staging: Path, options: Any) -> None:
        self.home = home
        self.staging = staging
        self.settings = options
        self.elsewhere: Callable[[LayerKey], Path] = _nowhere
        """Where the folder of a borrowed layer lies; the core says it. Raises `Damaged` if it is gone."""

    @classmethod
    @abstractmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        """Can this driver work in `home` (which need not exist yet: then its nearest existing parent counts)?

        Leaves nothing behind. Raises `DriverNotSupported`.
        """

    @abstractmethod
    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        """Make an empty layer on `parents`.

        A staged one is to be filled from a tar and sealed; its root directory is plain. The core may alter and replace
        files in it, so none may be shared with another layer by a hard link. A writable one is a container's, whole in
        the home in one step, and its root directory looks as that of the nearest parent (mode, owner, times, xattrs).
        It need not be synced, unless it holds copies. `size` limits, in bytes, what can be written to it; where
        that cannot be had, `DriverNotSupported`.
        """

    @abstractmethod
    def tree(self, layer: Layer) -> Path:
        """The directory of the layer's own files, in the driver's dialect, staged or in the home; no mountpoint."""

    @abstractmethod
    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        """The recipe that shows `layer` on `parents` as one tree: data, and nothing is made. See `prepare`.

        The core mounts it, and unmounts it. What a `Mount` says is told where it is defined, in
        `layerstore.kernel.mounts.recipe`. `read_only` works for each layer, and while a writable mount of it exists;
        the writable recipe is asked for only for layers that are WRITABLE.
        """

    @abstractmethod
    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        """Turn a staged or writable layer into a committed one without copying a byte, durably in the home on return.

        The core has unmounted the layer and synced its filesystem. Returns the key of the committed layer: that of
        `layer`, or the same with a suffix when the driver had to make a new object (a snapshot); the core then removes
        the old one. Until the row is written a writable layer must still be usable as what it was.

        In a dialect with marks a sealed tree holds what changed and no more, so that it means the same on any parents.
        An upper directory of overlay holds more: `layerstore.changes.make_exact` takes that away. What `seal` alters it
        syncs.
        """

    @abstractmethod
    def remove(self, layer: Layer) -> None:
        """Move the layer into `self.staging`, in one step; the core deletes it there. No error if it is not there."""

    @abstractmethod
    def keys(self) -> Iterable[LayerKey]:
        """The keys of all that lies in the home, committed or not. Used to find garbage, and nothing else."""

    # What a driver may leave to this class, and writes itself where it knows a cheaper way or more.

    def prepare(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> None:
        """Make what the recipe of the same arguments needs and a removal of the layer takes away. Before each mount."""

    def leave_unsynced(self, layer: Layer) -> None:
        """Be told that a container goes with the program that runs in it: what is written in it from here on needs
        not be on the disk when its mount ends. The default syncs all the same."""

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        """What `layer` changes against `parents`, exactly: bytes, attributes and xattrs. The layer may be mounted.

        The default reads both trees, in full. In a dialect with marks it says `sealable=False`: the core then copies
        what changed at each commit, and never seals a container. `layerstore.changes.overlay_changes` reads an upper
        directory of overlay instead.
        """
        with ExitStack() as opened:
            new = opened.enter_context(look(self, layer, parents))
            old = opened.enter_context(look(self, parents[0], parents[1:])) if parents else None
            found = compare_trees(new, old, content=True)
        # In another dialect, `tree()` holds marks that this comparison has not seen: what is committed is copied.
        return found if self.capabilities.dialect is Dialect.MERGED else Changes(found.raw, sealable=False)

    def changes_since(
        self, layer: Layer, parents: Sequence[Layer], between: Sequence[Layer], base: Sequence[Layer]
    ) -> Changes:
        """What `layer` on `parents` changes against the stack `base`, exactly, as `changes` does.

        `between` are the segments that the one has above the other, the nearest first; merged ones perhaps. The default
        reads both trees, in full.
        """
        with ExitStack() as opened:
            new = opened.enter_context(look(self, layer, parents))
            old = opened.enter_context(look(self, base[0], base[1:])) if base else None
            return Changes(compare_trees(new, old, content=True).raw, sealable=False)

    def segment(self, layer: Layer, parents: Sequence[Layer], key: LayerKey, *, in_use: bool) -> LayerKey | None:
        """Make a segment of what a container has written so far: a committed layer, durable in the home on return.

        It has to mean something on `parents` alone, and no file is read for it. Three answers: the key of `layer`,
        which is a segment as it lies, and the core gives the container a new one on top; until the row is written, it
        must still be usable as what it was. Or `key`, or the same with a suffix: a copy, and the container goes on with
        what it has. Or None, as the default: then the core makes a layer of what `changes` tells.

        `in_use`: it may be mounted, and programs may write to it. Else it is unmounted.
        """
        return None

    def merge(self, layers: Sequence[Layer], key: LayerKey) -> bool:
        """Make one layer `key` that says what `layers` say, which lie on each other, the nearest first.

        They are segments, and stay; the new one is durable in the home on return. False, as the default: that cannot
        be, or nothing is gained by it.
        """
        return False

    def slices(self, layer: Layer, parents: Sequence[Layer]) -> Sequence[Slice]:
        """What the tree of `layer` on `parents` is read from where nothing is mounted, the nearest first.

        The layer may be mounted, and programs may write to it. The default knows the dialects: a driver that keeps
        layers or containers in another way says so here.
        """
        dialect = self.capabilities.dialect
        if dialect is Dialect.MERGED:
            return [Slice(self.tree(layer))]
        return [Slice(self.tree(one), (dialect,)) for one in (layer, *parents)]

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        """What the layer occupies by itself: blocks on disk, each file once, its directories too.

        Of a layer that is kept as a whole tree, what it has otherwise than its parents. The default walks `tree()`.
        """
        return usage_of(self.tree(layer))

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        """`GraphDriver.Data` of `inspect`, with docker's keys: `MergedDir`, and what else docker's driver of that kind
        shows. A list of parents (`LowerDir`) has colons between them, the nearest first."""
        return {"MergedDir": str(self.mountpoint(layer))}

    def mountpoint(self, layer: Layer) -> Path:
        """Where the core attaches a writable layer when a path is asked for. Exists once `prepare` was called."""
        return self.home / layer.key / "merged"

    def close(self) -> None:
        """Give back what the driver holds open. Most hold nothing."""


@contextmanager
def look(driver: StorageDriver, layer: Layer, parents: Sequence[Layer]) -> Iterator[int]:
    """The tree of a layer on its parents, to be read: a directory descriptor, attached nowhere, gone afterwards."""
    driver.prepare(layer, parents, read_only=True)
    with detached(driver.mounts(layer, parents, read_only=True)) as tree:
        yield tree


_BLAME = "the storage driver "
"""What all begin with that is told of a driver."""


class blamed:
    """While inside, whatever a driver raises becomes an error of this library: see the table above.

    `deed` completes "could not …". What a system call refused is told so much more; any other `LayerstoreError` has
    words of its own, and passes. Each is told its layer. A class, for it is on the way of all that a driver does.
    """

    __slots__ = ("_deed", "_driver", "_key")

    def __init__(self, driver: str, deed: str, layer: Layer | None = None) -> None:
        self._driver = driver
        self._deed = deed
        self._key = None if layer is None else layer.key

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        key = self._key
        what = f"{_BLAME}{self._driver} could not {self._deed}" + ("" if key is None else f" layer {key}")
        if isinstance(error, LayerstoreError):
            error.layer = error.layer or key
            if isinstance(error, KernelError) and not error.message.startswith(_BLAME):
                error.message = f"{what}: {error.message}"
        elif isinstance(error, OSError):
            path = file_of(error)
            call = what if path is None else f"{what}:"
            raise KernelError(call, error.errno or errno.EIO, path=path, layer=key) from error
        else:
            raise _failure(what, self._driver, key, error) from error


def _failure(what: str, driver: str, key: LayerKey | None, error: Exception) -> DriverFailed:
    code: object = getattr(error, "returncode", None)
    if not isinstance(code, int):
        remedy = f"This is a defect of the driver {driver}: tell those who make it."
        return DriverFailed(f"{what}: {type(error).__name__}: {error}", remedy=remedy, layer=key)
    # A `CalledProcessError`. Importing `subprocess` to say so would cost each start more than all else here.
    words = getattr(error, "stderr", None) or getattr(error, "output", None) or ""
    text = (words.decode(errors="replace") if isinstance(words, bytes) else str(words)).strip()
    command: Any = getattr(error, "cmd", "")
    program = str(command[0]) if isinstance(command, list | tuple) and command else str(command)
    lines = text.splitlines() or ["it said nothing"]
    # A program that goes on after a failure says last what came of the first.
    number, said = next(
        ((full, line) for line in lines for full in FULL if os.strerror(full) in line), (None, lines[-1])
    )
    return DriverFailed(
        f"{what}: {program} ended with {code}: {said}",
        remedy=None if number is None else remedy_for(number),
        layer=key,
        errno=number,
    )


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
