"""`ModelTree`: what a container's tree is after any edits, in memory.

It is the model of a stack of layers (`layerstore.testing.model`) that can also be edited as a program edits a mounted
tree, branched as a container branches from an image, and asked what changed. Every driver is compared with it.

Two things are taken from what is seen, since nobody can know them before: times that the clock sets (`learn`), and the
one point at which drivers have to differ: a file of the layers below that has several names. In an overlay, the first
write through one name separates it from the others (overlayfs.rst, "Non-standard behavior"); in a copy or a snapshot it
does not. `breaks_links` says which of the two is modelled.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from attrs import evolve

from layerstore.changes import Changes
from layerstore.testing import tars, trees
from layerstore.testing.model import Inode, Tree, split
from layerstore.testing.tars import SECOND, Entry, Kind

_CAPABILITY = b"security.capability"

_BY_THE_CLOCK = tars.EPOCH * SECOND + 123_456_789
"""What stands for a time that the clock has set: one that nobody else gives."""


class ModelTree(Tree):
    """A tree in memory: layers are applied to it, programs edit it, containers branch from it.

    Paths are bytes, relative to the root, `b""` for the root itself. An edit that a filesystem would refuse raises the
    same OSError.

    >>> image = ModelTree()
    >>> image.apply([tars.folder(b"etc"), tars.file(b"etc/motd", b"hello")])
    >>> box = image.branch()
    >>> box.append(b"etc/motd", b" world")
    >>> [str(change) for change in box.changes(image)]
    ['C /etc', 'C /etc/motd']
    >>> box.commit(image).read(b"etc/motd")
    b'hello world'
    """

    def __init__(self, *, breaks_links: bool = False) -> None:
        super().__init__()
        self.breaks_links = breaks_links

    # --- versions ----------------------------------------------------------------------------------------------------

    def branch(self) -> Self:
        """A container on this tree: the same files, none of which is its own yet."""
        other = self.snapshot()
        for _, inode in other.walk():
            inode.own = inode.touched = False
        other.root.mtime = None  # it changes with every name, so nothing promises that it is kept
        return other

    def snapshot(self) -> Self:
        """The tree as it is now, for later."""
        copies: dict[int, Inode] = {}

        def copied(inode: Inode) -> Inode:
            made = copies.get(id(inode))
            if made is None:
                made = copies[id(inode)] = evolve(inode, xattrs=dict(inode.xattrs), children={})
                made.children = {name: copied(child) for name, child in inode.children.items()}
            return made

        other = type(self)(breaks_links=self.breaks_links)
        other.root, other.layer = copied(self.root), self.layer
        return other

    def commit(self, parent: Tree | None) -> ModelTree:
        """The tree of an image that was committed of this container on `parent`: the changes, and nothing else."""
        made = ModelTree(breaks_links=self.breaks_links)
        if isinstance(parent, ModelTree):
            made = parent.branch()
        elif parent is not None:
            raise TypeError("the parent of a container is a ModelTree")
        made.apply(self.entries(parent))
        made.root.mtime = None
        return made

    # --- what changed ------------------------------------------------------------------------------------------------

    def changes(self, parent: Tree | None) -> Changes:
        """Exactly what a driver's `changes` has to give for a container with this tree on `parent`."""
        kinds = self._kinds(parent)
        return Changes(b"".join(kind + path + b"\0" for path, kind in sorted(kinds.items())), sealable=True)

    def entries(self, parent: Tree | None) -> list[Entry]:
        """The same as a layer."""
        found: list[Entry] = []
        new = dict(self.walk())
        first: dict[int, bytes] = {}
        for path, kind in sorted(self._kinds(parent).items()):
            if kind == b"D":
                found.append(tars.whiteout(path))
                continue
            inode = new[path]
            entry = Entry(
                path or b"./",
                inode.kind,
                data=inode.content,
                mode=inode.mode,
                uid=inode.uid,
                gid=inode.gid,
                mtime=_BY_THE_CLOCK if inode.mtime is None else inode.mtime,
                target=inode.target,
                device=inode.device,
                xattrs=dict(inode.xattrs),
            )
            if inode.kind is not Kind.FOLDER and first.setdefault(id(inode), path) != path:
                entry = evolve(entry, kind=Kind.HARDLINK, data=b"", target=first[id(inode)], xattrs={})
            found.append(entry)
        return found

    def _kinds(self, parent: Tree | None) -> dict[bytes, bytes]:
        old = dict((Tree() if parent is None else parent).walk())
        new = dict(self.walk())
        found: dict[bytes, bytes] = {}
        names: dict[int, list[bytes]] = {}
        for path, inode in new.items():
            if inode.kind is not Kind.FOLDER:
                names.setdefault(id(inode), []).append(path)
            before = old.get(path)
            if before is None:
                found[path] = b"A"
            elif not _same(inode, before, times=path != b""):
                found[path] = b"C"
        for path in old.keys() - new.keys():
            above = new.get(path.rpartition(b"/")[0])
            if above is not None and above.kind is Kind.FOLDER:
                found[path] = b"D"
        for group in names.values():
            if len(group) > 1 and any(path in found for path in group):
                for path in group:
                    found.setdefault(path, b"C")
        for path in list(found):
            while b"/" in path:
                path = path.rpartition(b"/")[0]
                found.setdefault(path, b"C")
        return found

    # --- times -------------------------------------------------------------------------------------------------------

    def learn(self, seen: trees.Tree) -> None:
        """Take the times that the clock has set from a listing of the real tree. From now on they have to stay."""
        for path, inode in self.walk():
            entry = seen.get(os.fsdecode(path))
            if inode.mtime is None and entry is not None:
                inode.mtime, inode.touched = entry.mtime_ns, False

    def forget_times(self) -> None:
        """Take all times from the next `learn`: for what does not keep them."""
        for _, inode in self.walk():
            inode.mtime = None

    # --- reading -----------------------------------------------------------------------------------------------------

    def read(self, path: bytes) -> bytes:
        """The content of a file."""
        return self._file(path).content

    def find(self, path: bytes) -> Inode | None:
        """What lies at a path, through no symbolic link."""
        here: Inode | None = self.root
        for name in split(path):
            here = here.children.get(name) if here is not None and here.kind is Kind.FOLDER else None
        return here

    # --- edits, as a program makes them ------------------------------------------------------------------------------

    def write(self, path: bytes, data: bytes) -> None:
        """Give a file this content; make it, if there is none, with mode 0644."""
        if self.find(path) is None:
            self._add(path, Inode(Kind.FILE, layer=self.layer, mode=0o644, content=data))
            return
        self._file(path)
        self._write(path, data)

    def append(self, path: bytes, data: bytes) -> None:
        """Write at the end of a file."""
        self._write(path, self._file(path).content + data)

    def truncate(self, path: bytes, size: int) -> None:
        """Cut a file, or lengthen it with zeros."""
        self._write(path, self._file(path).content[:size].ljust(size, b"\0"))

    def mkdir(self, path: bytes, mode: int) -> None:
        """Make a directory."""
        self._add(path, Inode(Kind.FOLDER, layer=self.layer, mode=mode))

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link at `path`."""
        self._add(path, Inode(Kind.SYMLINK, layer=self.layer, mode=0o777, target=target))

    def link(self, path: bytes, existing: bytes) -> None:
        """Give what lies at `existing`, no directory, one more name: `path`."""
        if self._there(existing).kind is Kind.FOLDER:
            raise _error(errno.EPERM, existing)
        with self._missing(path) as (folder, name):
            folder.children[name] = self._copied_up(existing)

    def rename(self, path: bytes, new: bytes) -> None:
        """Rename a file, or a directory that was made in this container (an overlay refuses others: EXDEV)."""
        inode = self._there(path)
        there = self.find(new)
        if inode.kind is Kind.FOLDER and not inode.own:
            raise _error(errno.EXDEV, path)
        if there is inode:
            return
        if there is not None:
            if inode.kind is Kind.FOLDER and there.kind is not Kind.FOLDER:
                raise _error(errno.ENOTDIR, new)
            if there.kind is Kind.FOLDER and inode.kind is not Kind.FOLDER:
                raise _error(errno.EISDIR, new)
            if there.children:
                raise _error(errno.ENOTEMPTY, new)
        if new.startswith(path + b"/"):
            raise _error(errno.EINVAL, new)
        inode = self._copied_up(path)
        old_folder, old_name = self._parent(path)
        new_folder, new_name = self._parent(new)
        del old_folder.children[old_name]
        new_folder.children[new_name] = inode
        _touch(old_folder, new_folder)

    def unlink(self, path: bytes) -> None:
        """Remove a name that is no directory's."""
        if self._there(path).kind is Kind.FOLDER:
            raise _error(errno.EISDIR, path)
        self._remove(path)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        if self._folder_at(path).children:
            raise _error(errno.ENOTEMPTY, path)
        self._remove(path)

    def rmtree(self, path: bytes) -> None:
        """Remove a directory with all that is in it, name by name, as `rm -r` does."""
        self._folder_at(path)
        self._remove(path)

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the mode of anything but a symbolic link."""
        self._copied_up(path).mode = mode

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """Set the owner, of a symbolic link its own."""
        inode = self._copied_up(path)
        inode.uid, inode.gid = uid, gid
        if inode.kind is not Kind.FOLDER:
            # The kernel takes away what a new owner must not inherit (fs/open.c, chown_common).
            inode.mode &= ~stat.S_ISUID
            if inode.mode & stat.S_IXGRP:
                inode.mode &= ~stat.S_ISGID
            inode.xattrs.pop(_CAPABILITY, None)

    def setxattr(self, path: bytes, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        self._copied_up(path).xattrs[name] = value

    def removexattr(self, path: bytes, name: bytes) -> None:
        """Remove an extended attribute."""
        if name not in self._there(path).xattrs:
            raise _error(errno.ENODATA, path)
        del self._copied_up(path).xattrs[name]

    def utimes(self, path: bytes, mtime: int) -> None:
        """Set the time of modification, in nanoseconds."""
        inode = self._copied_up(path)
        inode.mtime, inode.touched = mtime, False

    # --- private -----------------------------------------------------------------------------------------------------

    def _there(self, path: bytes) -> Inode:
        found = self.find(path)
        if found is None:
            raise _error(errno.ENOENT, path)
        return found

    def _file(self, path: bytes) -> Inode:
        found = self._there(path)
        if found.kind is not Kind.FILE:
            raise _error(errno.EISDIR if found.kind is Kind.FOLDER else errno.ELOOP, path)
        return found

    def _folder_at(self, path: bytes) -> Inode:
        found = self._there(path)
        if found.kind is not Kind.FOLDER:
            raise _error(errno.ENOTDIR, path)
        return found

    def _parent(self, path: bytes) -> tuple[Inode, bytes]:
        parts = split(path)
        if not parts:
            raise _error(errno.EBUSY, path)
        return self._folder_at(b"/".join(parts[:-1])), parts[-1]

    @contextmanager
    def _missing(self, path: bytes) -> Iterator[tuple[Inode, bytes]]:
        """The directory and the name of what is going to be made."""
        folder, name = self._parent(path)
        if name in folder.children:
            raise _error(errno.EEXIST, path)
        yield folder, name
        _touch(folder)

    def _add(self, path: bytes, inode: Inode) -> None:
        with self._missing(path) as (folder, name):
            inode.own = True
            _touch(inode)
            if folder.mode & stat.S_ISGID:  # inode(7), "set-group-ID"
                inode.gid = folder.gid
                if inode.kind is Kind.FOLDER:
                    inode.mode |= stat.S_ISGID
            folder.children[name] = inode

    def _remove(self, path: bytes) -> None:
        folder, name = self._parent(path)
        del folder.children[name]
        _touch(folder)

    def _write(self, path: bytes, content: bytes) -> None:
        inode = self._copied_up(path)
        inode.content = content
        _touch(inode)
        inode.xattrs.pop(_CAPABILITY, None)

    def _copied_up(self, path: bytes) -> Inode:
        """What lies at `path`, ready to be changed through this name."""
        inode = self._there(path)
        if inode.kind is Kind.FOLDER or inode.own:
            return inode
        if self.breaks_links and sum(other is inode for _, other in self.walk()) > 1:
            folder, name = self._parent(path)
            inode = folder.children[name] = evolve(inode, xattrs=dict(inode.xattrs))
        inode.own = True
        return inode


def _same(a: Inode, b: Inode, *, times: bool) -> bool:
    """Would `layerstore.changes` say so? Their other names do not count, and of a root not its time."""
    return _facts(a) == _facts(b) and (not times or (a.mtime == b.mtime and not a.touched))


def _facts(inode: Inode) -> tuple[object, ...]:
    return (
        inode.kind,
        0 if inode.kind is Kind.SYMLINK else inode.mode,
        inode.uid,
        inode.gid,
        inode.content,
        inode.target,
        inode.device if inode.kind in {Kind.CHAR, Kind.BLOCK} else None,
        inode.xattrs,
    )


def _touch(*inodes: Inode) -> None:
    for inode in inodes:
        inode.mtime, inode.touched = None, True


def _error(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), os.fsdecode(path))
