"""The database of a data-root that cannot be written to: a copy, which ends with the process.

What only means something while a process lives (leases) is written into the copy, so nobody else has to know; whatever
would alter the store is refused. The copy is taken while others may write, if the same files are writable elsewhere.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from layerstore.database import kept
from layerstore.database.database import Database, Transaction
from layerstore.errors import ReadOnlyStore, named
from layerstore.kernel.files.descriptors import private, require_plain

_LOG_HEADER = 32


class ReadOnlyDatabase(Database):
    """A copy of one, in a folder that belongs to this process alone."""

    def __init__(self, path: Path, folder: Path) -> None:
        """Of the database `path`; the copy lies in `folder`. Raises `KernelError`, if it cannot be read."""
        self._origin = path
        copy = folder / path.name
        copy_to(path, copy)
        super().__init__(copy)

    def write(self, *, durable: bool = True) -> AbstractContextManager[Transaction]:
        """A transaction on the copy, if it means nothing after the end of this process anyway."""
        if durable:
            self.require_writable()
        return super().write(durable=durable)

    def require_writable(self) -> None:
        """Raise `ReadOnlyStore`."""
        raise refused(self._origin.parent)


def copy_to(path: Path, copy: Path) -> None:
    """Copy a database with its log, whoever writes to it meanwhile, this process too. Raises `KernelError`."""
    with named("open", path):
        while not _copied(path, copy):
            pass


def refused(data_root: Path) -> ReadOnlyStore:
    """The error for whatever would alter a store that cannot be written to."""
    return ReadOnlyStore(
        f"the store in {data_root} can only be read: its filesystem is mounted read-only",
        remedy="It can be listed, inspected, checked, saved and looked into. To alter it, mount it writable.",
        path=data_root,
    )


def _copied(path: Path, copy: Path) -> bool:
    """Copy the database and its log. False if somebody began the log anew meanwhile.

    An old log must not be taken with a newer database: what it has would replace what came later.
    """
    from shutil import copyfile

    log = path.with_name(f"{path.name}-wal")
    copied = copy.with_name(f"{copy.name}-wal")
    copied.unlink(missing_ok=True)
    before = _header(log)
    require_plain(path)
    with kept.reading(path) as fd, open(copy, "wb") as file:
        at = 0
        while data := os.pread(fd, 1 << 20, at):
            file.write(data)
            at += len(data)
    if before:
        copyfile(log, copied)
    os.chmod(copy, 0o600)
    return before == _header(log)


def _header(log: Path) -> bytes:
    try:
        with open(log, "rb", buffering=0, opener=private) as file:
            return file.read(_LOG_HEADER)
    except FileNotFoundError:
        return b""
