"""What is copied, one by one: the files of a tree, folders before what is in them.

A tree may change while it is read, by whoever has a container mounted: a file is opened once, without a name, and what
is gone by then is left out. Nothing but files and folders is ever opened, so no device does anything.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import BinaryIO

from attrs import field

from layerstore.errors import KernelError
from layerstore.kernel.files.folders import PRIVATE_XATTRS
from layerstore.values import frozen


@frozen
class Entry:
    """One file, folder or other thing. `path` are the names that lead to it; none for what the copy is of.

    `mode` has the type, too. `same_as` is the path of an earlier entry that is the same file. `open` gives the bytes of
    a file, to be closed by who asks.
    """

    path: tuple[str, ...]
    mode: int
    uid: int
    gid: int
    atime: int
    """When it was last read, in nanoseconds."""
    mtime: int
    size: int = 0
    device: int = 0
    target: str = ""
    same_as: tuple[str, ...] | None = None
    xattrs: Mapping[str, bytes] = field(factory=dict)
    open: Callable[[], BinaryIO] | None = field(default=None, repr=False, eq=False)

    @property
    def title(self) -> str:
        """The path, for people."""
        return "/".join(self.path) or "."


def refused(call: str, error: OSError, path: Sequence[str]) -> KernelError:
    """What a system call refused, in a tree where `path` leads to it."""
    return KernelError(call, error.errno or errno.EIO, path="/".join(path) or ".")


def of_tree(handle: int, *, xattrs: bool) -> Generator[Entry]:
    """What a descriptor (O_PATH) is of, and all that is in it. An entry can be opened until the next is asked for."""
    links: dict[tuple[int, int], tuple[str, ...]] = {}
    yield _entry(handle, (), links, xattrs=xattrs)
    if not stat.S_ISDIR(os.fstat(handle).st_mode):
        return
    folders: list[tuple[Iterator[str], int, tuple[str, ...]]] = [(_listed(handle, ()), os.dup(handle), ())]
    try:
        while folders:
            names, folder, above = folders[-1]
            name = next(names, None)
            if name is None:
                os.close(folders.pop()[1])
                continue
            path = (*above, name)
            try:
                inner = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise refused("open", error, path) from None
            try:
                entry = _entry(inner, path, links, xattrs=xattrs)
                yield entry
                if stat.S_ISDIR(entry.mode):
                    folders.append((_listed(inner, path), os.dup(inner), path))
            finally:
                os.close(inner)
    finally:
        for _, folder, _ in folders:
            os.close(folder)


def _listed(handle: int, path: Sequence[str]) -> Iterator[str]:
    """The names in a folder, sorted."""
    try:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
        try:
            return iter(sorted(os.listdir(folder)))
        finally:
            os.close(folder)
    except OSError as error:
        raise refused("readdir", error, path) from None


def _entry(handle: int, path: tuple[str, ...], links: dict[tuple[int, int], tuple[str, ...]], *, xattrs: bool) -> Entry:
    try:
        return _looked_at(handle, path, links, xattrs=xattrs)
    except OSError as error:
        raise refused("stat", error, path) from None


def _looked_at(
    handle: int, path: tuple[str, ...], links: dict[tuple[int, int], tuple[str, ...]], *, xattrs: bool
) -> Entry:
    facts = os.fstat(handle)
    mode = facts.st_mode
    same_as = None
    if not stat.S_ISDIR(mode) and facts.st_nlink > 1:
        same_as = links.setdefault((facts.st_dev, facts.st_ino), path)
    # A descriptor that names a file and no more is read through /proc.
    place = f"/proc/self/fd/{handle}"
    return Entry(
        path=path,
        mode=mode,
        uid=facts.st_uid,
        gid=facts.st_gid,
        atime=facts.st_atime_ns,
        mtime=facts.st_mtime_ns,
        size=facts.st_size if stat.S_ISREG(mode) else 0,
        device=facts.st_rdev,
        target=os.readlink("", dir_fd=handle) if stat.S_ISLNK(mode) else "",
        same_as=None if same_as == path else same_as,
        xattrs=_xattrs(place, path) if xattrs else {},
        open=(lambda: open(place, "rb", buffering=0)) if stat.S_ISREG(mode) else None,
    )


def _xattrs(place: str, path: Sequence[str]) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(place, name) for name in os.listxattr(place) if not name.startswith(PRIVATE_XATTRS)}
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODATA):  # none here, or gone meanwhile
            return {}
        raise refused("getxattr", error, path) from None
