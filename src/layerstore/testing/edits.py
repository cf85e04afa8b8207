"""Edits of a tree as values: one is made by `write(b"a", b"x")` and the like, and applied to a model or to a real tree.

`repr` of an edit is the call that makes it. `MountedTree` makes them for real, beneath one directory: it opens every
parent without following symbolic links, since those that edits make may lead anywhere on the host.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from layerstore.testing.tars import Entry, Kind
from layerstore.testing.without_root import marks, shown, skipping, stored
from layerstore.values import frozen

__all__ = [
    "Edit",
    "Editable",
    "MountedTree",
    "append",
    "apply_all",
    "chmod",
    "chown",
    "fill",
    "link",
    "mkdir",
    "removexattr",
    "rename",
    "rmdir",
    "rmtree",
    "setxattr",
    "symlink",
    "truncate",
    "unlink",
    "utimes",
    "write",
]


class Editable(Protocol):
    """What an edit can be applied to: `ModelTree` and `MountedTree`."""

    def write(self, path: bytes, data: bytes) -> None: ...
    def append(self, path: bytes, data: bytes) -> None: ...
    def truncate(self, path: bytes, size: int) -> None: ...
    def mkdir(self, path: bytes, mode: int) -> None: ...
    def symlink(self, path: bytes, target: bytes) -> None: ...
    def link(self, path: bytes, existing: bytes) -> None: ...
    def rename(self, path: bytes, new: bytes) -> None: ...
    def unlink(self, path: bytes) -> None: ...
    def rmdir(self, path: bytes) -> None: ...
    def rmtree(self, path: bytes) -> None: ...
    def chmod(self, path: bytes, mode: int) -> None: ...
    def chown(self, path: bytes, uid: int, gid: int) -> None: ...
    def setxattr(self, path: bytes, name: bytes, value: bytes) -> None: ...
    def removexattr(self, path: bytes, name: bytes) -> None: ...
    def utimes(self, path: bytes, mtime: int) -> None: ...


@frozen(repr=False)
class Edit:
    """One edit: the name of a method of `Editable`, and its arguments."""

    call: str
    path: bytes
    arguments: tuple[Any, ...] = ()

    def apply(self, tree: Editable) -> None:
        """Make it."""
        getattr(tree, self.call)(self.path, *self.arguments)

    def __repr__(self) -> str:
        shown = [oct(value) if self.call in {"chmod", "mkdir"} else _short(value) for value in self.arguments]
        return f"{self.call}({', '.join([repr(self.path), *shown])})"

    def _repr_pretty_(self, printer: Any, cycle: object) -> None:
        """The same for Hypothesis."""
        printer.text(repr(self))


def apply_all(edits: Iterable[Edit], tree: Editable) -> None:
    """Make all of them, in order."""
    for edit in edits:
        edit.apply(tree)


def _short(value: object) -> str:
    """Long data is nearly always one piece, repeated."""
    if isinstance(value, bytes) and len(value) > 60:
        piece = next((n for n in range(1, 9) if (value[:n] * (len(value) // n + 1))[: len(value)] == value), None)
        if piece is not None:
            rest = len(value) % piece
            return f"{value[:piece]!r} * {len(value) // piece}" + (f" + {value[-rest:]!r}" if rest else "")
    return repr(value)


def write(path: bytes, data: bytes = b"") -> Edit:
    return Edit("write", path, (data,))


def append(path: bytes, data: bytes) -> Edit:
    return Edit("append", path, (data,))


def truncate(path: bytes, size: int) -> Edit:
    return Edit("truncate", path, (size,))


def mkdir(path: bytes, mode: int = 0o755) -> Edit:
    return Edit("mkdir", path, (mode,))


def symlink(path: bytes, target: bytes) -> Edit:
    return Edit("symlink", path, (target,))


def link(path: bytes, existing: bytes) -> Edit:
    return Edit("link", path, (existing,))


def rename(path: bytes, new: bytes) -> Edit:
    return Edit("rename", path, (new,))


def unlink(path: bytes) -> Edit:
    return Edit("unlink", path)


def rmdir(path: bytes) -> Edit:
    return Edit("rmdir", path)


def rmtree(path: bytes) -> Edit:
    return Edit("rmtree", path)


def chmod(path: bytes, mode: int) -> Edit:
    return Edit("chmod", path, (mode,))


def chown(path: bytes, uid: int, gid: int) -> Edit:
    return Edit("chown", path, (uid, gid))


def setxattr(path: bytes, name: bytes, value: bytes) -> Edit:
    return Edit("setxattr", path, (name, value))


def removexattr(path: bytes, name: bytes) -> Edit:
    return Edit("removexattr", path, (name,))


def utimes(path: bytes, mtime: int) -> Edit:
    return Edit("utimes", path, (mtime,))


class MountedTree:
    """A real directory, edited by name and beneath itself. A context manager, for it keeps the directory open."""

    def __init__(self, root: Path | str) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _at(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The directory that holds `path`, as a descriptor, and the name in it."""
        *parents, name = [part for part in path.split(b"/") if part] or [b"."]
        fds = [os.dup(self._root)]
        try:
            for part in parents:
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                fds.append(os.open(part, flags, dir_fd=fds[-1]))
            yield fds[-1], name
        finally:
            for fd in fds:
                os.close(fd)

    @contextmanager
    def _opened(self, path: bytes, flags: int, mode: int = 0) -> Iterator[int]:
        with self._at(path) as (folder, name):
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=folder)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _handle(self, path: bytes) -> Iterator[str]:
        """A name for exactly what lies at `path`, for calls that know no "do not follow"."""
        with self._opened(path, os.O_PATH) as fd:
            yield f"/proc/self/fd/{fd}"

    def write(self, path: bytes, data: bytes) -> None:
        with _no_umask(), self._opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) as fd:
            _write_all(fd, data)

    def append(self, path: bytes, data: bytes) -> None:
        with self._opened(path, os.O_WRONLY | os.O_APPEND) as fd:
            _write_all(fd, data)

    def truncate(self, path: bytes, size: int) -> None:
        with self._opened(path, os.O_WRONLY) as fd:
            os.ftruncate(fd, size)

    def mkdir(self, path: bytes, mode: int) -> None:
        with _no_umask(), self._at(path) as (folder, name):
            os.mkdir(name, mode, dir_fd=folder)

    def symlink(self, path: bytes, target: bytes) -> None:
        with self._at(path) as (folder, name):
            os.symlink(target, name, dir_fd=folder)

    def link(self, path: bytes, existing: bytes) -> None:
        with self._at(path) as (folder, name), self._at(existing) as (old_folder, old_name):
            os.link(old_name, name, src_dir_fd=old_folder, dst_dir_fd=folder, follow_symlinks=False)

    def rename(self, path: bytes, new: bytes) -> None:
        with self._at(path) as (folder, name), self._at(new) as (new_folder, new_name):
            os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)

    def unlink(self, path: bytes) -> None:
        with self._at(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def rmdir(self, path: bytes) -> None:
        with self._at(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def rmtree(self, path: bytes) -> None:
        with self._at(path) as (folder, name):
            shutil.rmtree(os.fsdecode(name), dir_fd=folder)

    def chmod(self, path: bytes, mode: int) -> None:
        with self._handle(path) as name:
            os.chmod(name, mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        with self._at(path) as (folder, name), skipping("files of owners whom its namespace lacks"):
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)

    def setxattr(self, path: bytes, name: bytes, value: bytes) -> None:
        with self._handle(path) as handle, skipping("an xattr of a symlink or FIFO"):
            os.setxattr(handle, stored(name), value)

    def removexattr(self, path: bytes, name: bytes) -> None:
        with self._handle(path) as handle:
            os.removexattr(handle, stored(name))

    def utimes(self, path: bytes, mtime: int) -> None:
        with self._at(path) as (folder, name):
            os.utime(name, ns=(mtime, mtime), dir_fd=folder, follow_symlinks=False)

    def touch_unaltered(self, path: bytes) -> None:
        """Open a file for writing, and write nothing: a copy-up, and no change."""
        with self._opened(path, os.O_RDWR):
            pass

    def overwrite(self, path: bytes, at: int, data: bytes) -> None:
        """Write into a file, and give it back the time that it had."""
        with self._opened(path, os.O_WRONLY) as fd:
            facts = os.fstat(fd)
            os.pwrite(fd, data, at)
            os.utime(fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def remove(self, path: bytes) -> None:
        """Remove whatever lies there."""
        (self.rmtree if self.kind(path) == stat.S_IFDIR else self.unlink)(path)

    def kind(self, path: bytes) -> int | None:
        """What lies there, as `stat.S_IFMT` has it; None: nothing."""
        try:
            with self._opened(path, os.O_PATH) as fd:
                return stat.S_IFMT(os.fstat(fd).st_mode)
        except FileNotFoundError:
            return None

    def xattrs(self, path: bytes) -> list[bytes]:
        """The names of its extended attributes."""
        with self._handle(path) as handle:
            return [shown(os.fsencode(name)) for name in os.listxattr(handle)]

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory."""
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
            return sorted(map(os.fsencode, os.listdir(fd)))

    def mknod(self, path: bytes, mode: int, device: tuple[int, int] = (0, 0)) -> None:
        with _no_umask(), self._at(path) as (folder, name), skipping("devices"):
            os.mknod(name, mode, os.makedev(*device), dir_fd=folder)


def fill(tree: MountedTree, entry: Entry) -> None:
    """Make one entry of a layer for real, with all its attributes. Its directory exists, its name is free.

    A directory that exists gets the entry's attributes.
    """
    path = entry.name.strip(b"/")
    path = b"" if path == b"." else path
    if entry.kind is Kind.HARDLINK:
        tree.link(path, entry.target)
        return
    if entry.kind is Kind.FILE:
        tree.write(path, entry.content)
    elif entry.kind is Kind.SYMLINK:
        tree.symlink(path, entry.target)
    elif entry.kind is Kind.FOLDER:
        try:
            tree.mkdir(path, 0o755)
        except FileExistsError:
            for name in tree.xattrs(path):
                if name.startswith((b"user.", b"trusted.")) and not name.startswith(marks()):
                    tree.removexattr(path, name)
    else:
        kind = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}[entry.kind]
        tree.mknod(path, kind | 0o600, entry.device)
    tree.chown(path, entry.uid, entry.gid)  # first, for it clears setuid and capabilities
    if entry.kind is not Kind.SYMLINK:
        tree.chmod(path, entry.mode)
    for name, value in entry.xattrs.items():
        tree.setxattr(path, name, value)
    tree.utimes(path, entry.mtime)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


_umask = threading.Lock()


@contextmanager
def _no_umask() -> Iterator[None]:
    """A umask belongs to the whole process: one thread at a time, or one keeps what another has cleared."""
    with _umask:
        old = os.umask(0)
        try:
            yield
        finally:
            os.umask(old)
