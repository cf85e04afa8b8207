"""Copying a whole tree: every file as it is, sharing blocks where the filesystem can.

The work is in copy.c. Here are its face, and what it tells of the copy: which inode came of which, and when it was last
changed, so that what was altered afterwards can be found without reading everything (`changes.compare_copied`).
"""

from __future__ import annotations

import builtins
import errno
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import field

from layerstore.errors import Damaged, KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.copying.epoch import epoch_of
from layerstore.kernel.files.descriptors import FOLDER, open_path, opened, read_own
from layerstore.kernel.files.failure import kernel_error, new_failure
from layerstore.values import frozen

__all__ = ["Copied", "copy_tree", "listed"]

_COARSE = 5  # CLOCK_REALTIME_COARSE, which file times are taken from
_PATIENCE = 100
_TICK = 0.001


@frozen
class Copied:
    """What a copy did. `reflinked`: files share blocks with their sources.

    `files`: names that are no folders; `bytes`: what the files among them hold.
    """

    reflinked: bool
    files: int
    bytes: int
    _list: builtins.bytes = field(repr=False)
    _newest: int = field(repr=False)

    @property
    def raw(self) -> builtins.bytes:
        """The list for `changes.compare_copied`. Take it before anybody may write to the copy.

        A file's time of change tells of a later write only if the clock has moved on since the copy: by the time this
        returns, it has, which takes a few ms at most. The list is empty where times tell nothing.
        """
        for _ in range(_PATIENCE):
            if time.clock_gettime_ns(_COARSE) > self._newest:
                return self._list
            time.sleep(_TICK)
        return b""  # the clock was set back

    def note(self, copy: Path, source: str) -> builtins.bytes:
        """`raw` as it may be kept in a file, for `listed`. Empty where the times of files tell nothing."""
        header = _header(copy, source)
        raw = self.raw if header is not None else b""
        return header + raw if header is not None and raw else b""


def listed(note: Path, copy: Path, source: str) -> bytes:
    """The `raw` that a file holds of `copy`, made of `source`. Empty, which is always right, if it cannot be believed.

    After a power cut a file may have its new bytes and its old times: what was noted in another epoch says nothing.
    """
    header = _header(copy, source)
    if header is None:
        return b""
    try:
        told = read_own(note)
    except (OSError, Damaged):
        return b""
    return told[len(header) :] if told.startswith(header) else b""


def _header(copy: Path, source: str) -> bytes | None:
    epoch = epoch_of(copy)
    return None if epoch is None else f"layerstore copied 2 {epoch} {source}\n".encode()


def copy_tree(source: Path | int, target: Path, *, threads: int = 2, share: bool = True) -> Copied:
    """Copy the directory `source`, with all that is in it, to `target`, which is made.

    Kept are content, holes, types, owners, modes, times, xattrs (but the SELinux label, which the host's policy gives)
    and which names are one file. No symlink is followed and no mount entered; what vanishes from `source` meanwhile is
    left out. `share`: files share blocks with their sources where the filesystem can. Nothing is synced. On an error
    the caller removes what there is of `target`.
    """
    copied = ffi.new("struct ls_copied *")
    failure = new_failure()
    with ExitStack() as after:
        if not isinstance(source, int):
            root = open_path(source, FOLDER)
            after.callback(os.close, root)
        else:
            root = source
        after.callback(lib.ls_copied_free, copied)
        if lib.ls_copy_tree(root, os.fsencode(target), threads, share, copied, failure):
            raise _refused(failure, target)
        raw = bytes(ffi.buffer(copied.list, copied.length)) if copied.length else b""
        return Copied(bool(copied.reflinked), copied.files, copied.bytes, raw, copied.newest)


def fill_tree(source: Path, target: Path, *, threads: int = 2, share: bool = True) -> None:
    """Put an upper directory of overlay below another one, `target`: afterwards that says what both said on each other.

    Nothing that `target` has is altered, but that a folder may become opaque. Nothing is synced. On an error the caller
    removes `target`. Raises `KernelError`.
    """
    failure = new_failure()
    with opened(source, FOLDER) as root:
        if lib.ls_fill_tree(root, os.fsencode(target), threads, share, failure):
            raise _refused(failure, target)


def _refused(failure: Any, target: Path) -> KernelError:
    detail = remedy = None
    if failure.code == errno.EBUSY:
        detail, remedy = "something is mounted there", "Unmount it first."
    elif failure.code in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
        remedy = "Copying what others own needs root."
    return kernel_error(failure, target, detail=detail, remedy=remedy)
