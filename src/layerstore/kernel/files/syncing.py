"""Putting on the disk what is only in memory yet: all of a filesystem, or what happened to the names in a folder."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Self

from layerstore.errors import KernelError, named
from layerstore.kernel._shim import lib
from layerstore.kernel.files.descriptors import FOLDER, open_path, opened
from layerstore.kernel.files.filesystems import type_of

__all__ = ["Writeback", "fsync_folder", "rename_durably", "syncfs"]


def syncfs(what: Path | int) -> None:
    """Write all that is dirty on the filesystem of a path or descriptor to the disk."""
    if isinstance(what, int):
        answer = lib.ls_sync_filesystem(what)
        if answer < 0:
            raise KernelError("syncfs", -answer)
        return
    with opened(what, os.O_RDONLY) as fd:
        answer = lib.ls_sync_filesystem(fd)
    if answer < 0:
        raise KernelError("syncfs", -answer, path=what)


def fsync_folder(path: Path) -> None:
    """Make what was renamed, made or removed in a folder survive a power cut."""
    with opened(path, FOLDER) as fd:
        try:
            os.fsync(fd)
        except OSError as error:
            raise KernelError("fsync", error.errno or errno.EIO, path=path) from None


def rename_durably(source: Path, target: Path) -> None:
    """Rename, so that it survives a power cut. If that cannot be had, the old name is back, and the error raised."""
    with named("rename", source):
        os.rename(source, target)
    try:
        fsync_folder(target.parent)
    except KernelError:
        with named("rename", target):
            os.rename(target, source)
        raise


class Writeback:
    """While it is entered, a thread keeps writing a filesystem's dirty data to the disk.

    The disk then works while files are still being made, and the sync at the end, which is not done here, is short.
    Only on ext4 and xfs: on btrfs each early sync costs a commit and makes the whole slower.
    """

    INTERVAL = 0.2

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        fd = open_path(self._path, FOLDER)
        if type_of(fd) not in ("ext4", "xfs"):
            os.close(fd)
            return self
        self._over.clear()
        self._thread = threading.Thread(target=self._run, args=(fd,), name="layerstore-writeback", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, fd: int) -> None:
        try:
            while not self._over.wait(self.INTERVAL):
                # A failure is for the final sync to report: the kernel tells each descriptor of it once.
                lib.ls_sync_filesystem(fd)
        finally:
            os.close(fd)
