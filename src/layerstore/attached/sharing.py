"""What was taken over of an attached store shares its blocks with it, where the filesystem can (btrfs, xfs).

The kernel does it, for files that it finds equal; nothing of either store changes but where their bytes lie.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore.errors import KernelError
from layerstore.kernel.files import open_tree_root, share_data
from layerstore.kernel.files.descriptors import NO_DESCRIPTORS, open_beneath_plainly
from layerstore.tar import EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layerstore.tar import LayerEntry

__all__ = ["share"]

_LEAST = 4096
"""Bytes of a file for which it is worth it: less is often in no block of its own."""
_PLAIN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW


def share(theirs: Path, ours: Path, entries: Iterable[LayerEntry]) -> int:
    """Let the files of a layer in `ours` share blocks with those in `theirs`; how many bytes do.

    A file that cannot is left as it is: it is whole by itself.
    """
    shared = 0
    with ExitStack() as opened:
        roots = []
        for folder in (theirs, ours):
            roots.append(open_tree_root(folder))
            opened.callback(os.close, roots[-1])
        for path in _files(entries):
            try:
                done = _share_one(roots[0], roots[1], path)
            except KernelError as error:
                if error.errno in (*NO_DESCRIPTORS, errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    break
                continue  # over there it is another thing by now
            if done is None:
                break  # these two filesystems never can
            shared += done
    return shared


def _files(entries: Iterable[LayerEntry]) -> Iterator[bytes]:
    return (entry.path for entry in entries if entry.kind is EntryKind.FILE and entry.size >= _LEAST)


def _share_one(theirs: int, ours: int, path: bytes) -> int | None:
    source = open_beneath_plainly(theirs, path, _PLAIN)
    try:
        target = open_beneath_plainly(ours, path, _PLAIN)
        try:
            return share_data(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)
