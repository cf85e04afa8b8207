"""Slices that are folders: with overlay's marks, with aufs's, or whole trees without any.

A handle is a path within the folder; none leads through a symbolic link, whoever alters the folder meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from layerstore.driver import Dialect
from layerstore.errors import KernelError, named
from layerstore.kernel.files.descriptors import HANDLE, file_of, open_beneath_plainly, open_path
from layerstore.kernel.files.shown import Shown, redirect_of, shown, xattrs_of
from layerstore.trees.readers import NOTHING, Facts, Found, Name

__all__ = ["FolderReader"]

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_LONGEST = 4000
"""Of a path that the kernel is given; a longer one is walked in pieces."""

_REMOVES, _OWN, _OPAQUE = ".wh.", ".wh..wh.", ".wh..wh..opq"
"""aufs's marks (OCI image spec, layer.md, "Whiteouts"): a removal, aufs's own files, an opaque folder."""

_FUSE = "user.fuseoverlayfs."
"""fuse-overlayfs's own xattrs. What it has written has marks of both kinds."""


class FolderReader:
    """A folder of a driver. `marks` are the dialects in which it says what it removes."""

    def __init__(self, path: Path, marks: tuple[Dialect, ...]) -> None:
        self._path = path
        self._overlay = Dialect.OVERLAY in marks
        self._aufs = Dialect.AUFS in marks
        self._fd = open_path(path, HANDLE | os.O_NOFOLLOW)

    def close(self) -> None:
        """See `SliceReader`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def top(self) -> str:
        """See `SliceReader`."""
        return ""

    def root(self) -> Found:
        """See `SliceReader`. That overlay has it opaque means nothing: a stack ends below a layer whose root is."""
        with self._opened("", os.O_PATH) as fd:
            return Found(self._facts(self._shown(fd, "")), "")

    def find(self, folder: str, name: str) -> Found | None:
        """See `SliceReader`."""
        path = f"{folder}/{name}" if folder else name
        if self._aufs and name.startswith(_REMOVES):
            return None
        try:
            with self._opened(path, os.O_PATH | os.O_NOFOLLOW) as fd:
                return self._found(fd, path)
        except KernelError as error:
            if error.errno not in _ABSENT:
                raise
        removed = self._aufs and self._has(folder, f"{_REMOVES}{name}")
        return NOTHING if removed else None

    def names(self, folder: str) -> Iterator[Name]:
        """See `SliceReader`. A folder that has gone since it was found, as a container that runs may do, has none."""
        try:
            found = self._listed(folder)
        except KernelError as error:
            if error.errno not in _ABSENT:
                raise
            return
        for name, is_mark in found:
            if self._aufs and name.startswith(_REMOVES):
                if not name.startswith(_OWN):
                    yield Name(name.removeprefix(_REMOVES), removed=True)
            elif not is_mark:
                yield Name(name)
            elif (one := self.find(folder, name)) is not None:
                yield Name(name, removed=one.facts is None)

    def target(self, handle: str) -> str:
        """See `SliceReader`."""
        with self._opened(handle, os.O_PATH | os.O_NOFOLLOW) as fd, named("readlink", self._place(handle)):
            return os.fsdecode(os.readlink(b"", dir_fd=fd))

    def xattrs(self, handle: str) -> Mapping[str, bytes]:
        """See `SliceReader`."""
        with self._opened(handle, os.O_PATH | os.O_NOFOLLOW) as fd:
            found = xattrs_of(fd, overlay=self._overlay, path=self._place(handle))
        if self._overlay and self._aufs:
            return {name: value for name, value in found.items() if not name.startswith(_FUSE)}
        return found

    def open(self, handle: str) -> BufferedReader:
        """See `SliceReader`. A file and nothing else is opened: no pipe waits, no device does anything."""
        place = self._place(handle)
        with self._opened(handle, os.O_PATH | os.O_NOFOLLOW) as fd:
            with named("fstat", place):
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise KernelError("open", errno.ESTALE, path=place, detail="it is a file no more")
            opened = open_path(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NOCTTY)
        return BufferedReader(file_of(opened))

    # --- inside ---

    def _listed(self, folder: str) -> list[tuple[str, bool]]:
        """The names as they lie there, and of which of them it has to be seen whether they are marks."""
        with self._opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
            looks = self._overlay and self._shown(fd, folder).whiteouts
            with named("readdir", self._place(folder)), os.scandir(fd) as listed:
                return [(entry.name, self._may_be_mark(entry, files=looks)) for entry in listed]

    def _found(self, fd: int, path: str) -> Found:
        said = self._shown(fd, path)
        if said.whiteout:
            return NOTHING
        facts = self._facts(said)
        folder = stat.S_ISDIR(said.mode)
        redirect = None
        if self._overlay and (folder or said.metacopy):
            raw = redirect_of(fd, path=self._place(path))
            redirect = None if raw is None else os.fsdecode(raw)
        opaque = said.opaque or (folder and self._aufs and self._has(path, _OPAQUE))
        return Found(facts, path, opaque=opaque, redirect=redirect, bare=said.metacopy)

    def _shown(self, fd: int, path: str) -> Shown:
        return shown(fd, overlay=self._overlay, path=self._place(path))

    def _facts(self, said: Shown) -> Facts:
        return Facts(said.mode, said.uid, said.gid, said.size, said.mtime_ns, said.device, said.inode)

    def _place(self, path: str) -> str:
        """The whole path, for errors."""
        return f"{self._path}/{path}"

    def _may_be_mark(self, entry: os.DirEntry[str], *, files: bool) -> bool:
        """May this be one of overlay's whiteouts? Most names tell it by their type. `files`: these may be, too."""
        if not self._overlay or entry.is_dir(follow_symlinks=False) or entry.is_symlink():
            return False
        return files or not entry.is_file(follow_symlinks=False)

    def _has(self, folder: str, name: str) -> bool:
        path = f"{folder}/{name}" if folder else name
        try:
            with self._opened(path, os.O_PATH | os.O_NOFOLLOW):
                return True
        except KernelError as error:
            if error.errno in (*_ABSENT, errno.ENAMETOOLONG):
                return False
            raise

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        fd = self._open(path, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        rest, base = os.fsencode(path) or b".", self._fd
        while True:
            cut = rest.rfind(b"/", 0, _LONGEST) if len(rest) > _LONGEST else -1
            try:
                if cut < 0:
                    return open_beneath_plainly(base, rest, flags)
                deeper = open_beneath_plainly(base, rest[:cut], HANDLE)
            finally:
                if base != self._fd:
                    os.close(base)
            rest, base = rest[cut + 1 :], deeper
