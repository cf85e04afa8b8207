"""What differs between a tree and its parent.

`Changes` is the answer to `layerstore diff`: sorted, exact, and the same whatever driver found it. All ways to find
them are here, and are C: by an upper directory (upper.c) and by the generation of a btrfs snapshot (snapshot.c), both
in O(changes), and by comparing two trees (compare.c), of which one may have begun as a copy of the other (copied.c);
changes.c puts what they find in order. exact.c makes an upper directory say what its tar says, and branch.c does so
for marks that are not overlay's. written.c makes a layer of changes, where no upper directory is one. clamped.c
gives what has changed a time that does not tell when.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, Self, overload

from layerstore.errors import CannotRepresent, LayerstoreError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.failure import kernel_error, new_failure
from layerstore.values import frozen


class Kind(Enum):
    """docker's letters: added, changed, deleted."""

    ADDED = "A"
    CHANGED = "C"
    DELETED = "D"


@frozen
class Change:
    """One path that differs. `path` is absolute within the tree; bytes that are not UTF-8 are surrogate escapes."""

    kind: Kind
    path: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.path}"


class Changes(Sequence[Change]):
    """All changes, sorted by path, each path once, and with every change each directory above it.

    Kept as one string of bytes (`raw`), since there may be as many as an image has files. `sealable` says that the
    layer's own directory holds the data of all that changed, so that `seal` can make a committed layer of it. It is
    false for an overlay upper whose files are without their data (`metacopy`) or whose directories point elsewhere
    (`redirect_dir`).
    """

    def __init__(self, raw: bytes, *, sealable: bool) -> None:
        self.raw = raw
        self.sealable = sealable
        self._records: list[bytes] | None = None

    @classmethod
    def of(cls, changes: Iterable[Change]) -> Self:
        """From single changes, for drivers that find them in Python."""
        records = sorted((os.fsencode(change.path).lstrip(b"/"), change.kind.value.encode()) for change in changes)
        return cls(b"".join(kind + path + b"\0" for path, kind in records), sealable=True)

    def _split(self) -> list[bytes]:
        if self._records is None:
            self._records = self.raw.split(b"\0")[:-1]
        return self._records

    def __len__(self) -> int:
        return self.raw.count(b"\0") if self._records is None else len(self._records)

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> list[Change]: ...
    def __getitem__(self, index: int | slice) -> Change | list[Change]:
        if isinstance(index, slice):
            return [_change(record) for record in self._split()[index]]
        return _change(self._split()[index])

    def __iter__(self) -> Iterator[Change]:
        return map(_change, self._split())

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Changes) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<Changes: {len(self)}>"


class Marks(Enum):
    """Who wrote an upper directory, and so how it says what is removed and what hides all that is below."""

    OVERLAY = lib.LS_MARKS_OVERLAY
    AUFS = lib.LS_MARKS_AUFS
    FUSE = lib.LS_MARKS_FUSE
    """fuse-overlayfs as root: devices as overlay, files as aufs, and xattrs of its own."""


def overlay_changes(upper: int, merged: int, lower: int | None, *, marks: Marks = Marks.OVERLAY) -> Changes:
    """What an upper directory changes, in O(what it holds).

    All three are directory fds: `upper` the directory itself, `merged` the whole stack and `lower` the stack below it
    (None: there is none), both mounted, to be read. Raises `KernelError`; and `CannotRepresent`, as all that compare,
    for a path that is longer than any layer can have.
    """
    below = -1 if lower is None else lower
    return _run(lambda changes: lib.ls_changes_of_upper(changes, upper, merged, below, marks.value))


def stacked_changes(uppers: Sequence[int], merged: int, lower: int | None) -> Changes:
    """What upper directories of overlay change that lie on each other, the nearest first, in O(what they hold).

    Directory fds, as for `overlay_changes`: `lower` is the stack below the last of them. Not sealable, for none of them
    holds all. None may have been written with `metacopy` or `redirect_dir`. Raises `KernelError`, `CannotRepresent`.
    """
    below = -1 if lower is None else lower
    return _run(lambda changes: lib.ls_changes_of_uppers(changes, uppers, len(uppers), merged, below))


def make_exact(upper: int, merged: int, lower: int | None, *, marks: Marks = Marks.OVERLAY) -> bool:
    """Make an upper directory hold its changes and nothing else, so that it means the same on any parents.

    Files that were copied up and never altered go; opaque directories become whiteouts of each name. Marks of
    fuse-overlayfs become those of aufs. What the stack shows stays the same at every moment. Takes what
    `overlay_changes` takes; nothing may be mounted that writes to `upper`. Returns whether there was anything to do; it
    is not synced.
    """
    altered = False

    def find(changes: Any) -> int:
        nonlocal altered
        below = -1 if lower is None else lower
        failed: int = lib.ls_changes_of_upper(changes, upper, merged, below, marks.value)
        if not failed:
            failed = lib.ls_changes_make_exact(changes)
            altered = failed > 0
        return min(failed, 0)

    _run(find)
    return altered


def write_changes(changes: Changes, tree: int, target: int) -> None:
    """Make a layer in aufs's form of `changes`, in the empty directory `target`: copies of what `tree` has, and marks.

    Blocks are shared where the filesystem can. Sockets are left out, as they are in a tar. It is not synced. Raises
    `KernelError`: EBADMSG for a file that would be a mark there, ENAMETOOLONG for a mark whose name is too long.
    """
    failure = new_failure()
    if lib.ls_changes_write(ffi.from_buffer(changes.raw), len(changes.raw), tree, target, failure):
        raise kernel_error(failure)


def clamp_times(changes: Changes, tree: int, latest: int) -> bool:
    """Give what was changed after `latest` (ns since the epoch) this time of modification; and the root, too.

    `tree` is a directory fd of the changed tree, to be written. What is removed has no time. Returns whether there was
    anything to do. It is not synced. Raises `KernelError`.
    """
    failure = new_failure()
    seconds, nanoseconds = divmod(latest, 10**9)
    raw = changes.raw
    altered = lib.ls_changes_clamp(ffi.from_buffer(raw), len(raw), tree, seconds, nanoseconds, failure)
    if altered < 0:
        raise kernel_error(failure)
    return bool(altered)


def compare_trees(new: int, old: int | None, *, content: bool = False) -> Changes:
    """What differs between two trees, given as directory fds (None: against nothing).

    `content` also reads files whose attributes, size and time are all equal. Raises `KernelError`.
    """
    return _run(lambda changes: lib.ls_changes_of_trees(changes, new, -1 if old is None else old, content))


def snapshot_changes(new: int, old: int, since: int) -> Changes:
    """What a btrfs snapshot changes: what `compare_trees` finds with `content`, in O(changes).

    Root directories of subvolumes, as fds: `new` was made as a snapshot of `old` in the transaction `since`, and `old`
    has not changed after it, nor was there another subvolume in it. `new` is not sealable while there is one in it.
    Raises `KernelError`.
    """
    return _run(lambda changes: lib.ls_changes_of_snapshot(changes, new, old, since))


def compare_copied(new: int, old: int, raw: bytes) -> Changes:
    """What differs between the tree `old` and `new`, which began as a copy of it; both directory fds.

    The answer is that of `compare_trees(new, old, content=True)`, always. `raw` is `kernel.copying.Copied.raw` of that
    copy: what was not altered since is told by its time of change, and neither it nor its original is read. The less
    the list fits, the more is read. Raises `KernelError`.
    """
    data = ffi.from_buffer("uint8_t[]", raw)
    return _run(lambda changes: lib.ls_changes_of_copy(changes, new, old, data, len(raw)))


def _change(record: bytes) -> Change:
    return Change(Kind(chr(record[0])), "/" + os.fsdecode(record[1:]))


def _failed(failure: Any) -> LayerstoreError:
    if failure.kind != lib.LS_FAIL_TOO_LONG:
        return kernel_error(failure)
    path = b"/" + ffi.string(failure.path)
    return CannotRepresent(
        f"{os.fsdecode(path[:60])}…: a path of more than 4,095 bytes cannot be kept in a layer",
        remedy="Rename or remove one of the folders on the way to it, in the container.",
        path=path,
    )


def _run(find: Callable[[Any], int]) -> Changes:
    changes = lib.ls_changes_new()
    if changes == ffi.NULL:
        raise MemoryError
    try:
        if find(changes):
            raise _failed(lib.ls_changes_failure(changes))
        data = ffi.new("uint8_t **")
        length = lib.ls_changes_list(changes, data)
        raw = bytes(ffi.buffer(data[0], length)) if length else b""
        return Changes(raw, sealable=bool(lib.ls_changes_can_be_exact(changes)))
    finally:
        lib.ls_changes_free(changes)
