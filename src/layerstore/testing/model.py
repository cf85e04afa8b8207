"""What a stack of layers means: a tree in memory, changed entry by entry.

This is the reference that the engine and every driver are compared with. It knows no tar (it takes `Entry` values), no
overlay and no filesystem, and is slow and plain on purpose. The rules are those of the OCI image spec, layer.md, and of
this project where the spec is silent:

- a whiteout hides names of the layers below and never one of its own layer, whichever comes first;
- a directory that is only implied by the names in it keeps what the layers below say about it;
- of two entries of one name the later counts; a directory on a directory keeps the children;
- a parent that is a symbolic link is followed, within the tree;
- a hard link to a file of a layer below is a copy of it;
- a character device 0/0 is nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator

from attrs import evolve, field

from layerstore.testing import trees
from layerstore.testing.tars import Entry, Kind
from layerstore.values import define

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS_OWN = {b".wh..wh.plnk", b".wh..wh.aufs", b".wh..wh.orph"}
MAX_SYMLINKS = 40


class Refused(Exception):
    """The model has no answer to this: the engine has to refuse it."""


@define(eq=False)
class Inode:
    """A file of any kind. `layer` is the layer that listed it. `mtime` None: nobody said, so anything is right."""

    kind: Kind
    layer: int
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int | None = None
    xattrs: dict[bytes, bytes] = field(factory=dict)
    content: bytes = b""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    children: dict[bytes, Inode] = field(factory=dict)
    opaque_in: int = 0
    """The last layer that made this directory opaque."""
    own: bool = False
    """It lies in the container's own layer: made there, or copied up. For `layerstore.testing.editing`."""
    touched: bool = False
    """An edit has let the clock set its time, which is not known yet."""

    def forget(self) -> None:
        """Be as a directory that nobody described."""
        self.mode, self.uid, self.gid, self.mtime, self.xattrs = 0o755, 0, 0, None, {}

    def describe(self, entry: Entry) -> None:
        self.mode, self.uid, self.gid, self.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
        self.xattrs = dict(entry.xattrs)


def split(name: bytes) -> list[bytes]:
    """The components of a name as it stands in a tar: absolute, `./` and `//` make no difference."""
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise Refused(name)
    return parts


class Tree:
    """A stack of layers, merged."""

    def __init__(self) -> None:
        self.layer = 0
        self.root = Inode(Kind.FOLDER, layer=0)
        self.followed: set[bytes] = set()
        """Paths of the symbolic links that this layer went through."""
        self.copied: set[bytes] = set()
        """Paths of the lower files that hard links of this layer were copied from."""
        self._stored: dict[bytes, Inode] = {}

    def apply(self, entries: Iterable[Entry]) -> None:
        """Put one layer on top."""
        self.begin()
        for entry in entries:
            self.add(entry)
        self.finish()

    def begin(self) -> None:
        self.layer += 1
        self.followed, self.copied = set(), set()
        self._stored = {}

    def add(self, entry: Entry) -> None:
        """Put one entry of the topmost layer into the tree."""
        parts = split(entry.name)
        if not parts:
            if entry.kind is not Kind.FOLDER:
                raise Refused(entry.name)
            self.root.describe(entry)
            self.root.layer = self.layer
        elif parts[0] in AUFS_OWN:
            if entry.kind is Kind.FILE:
                self._stored[b"/".join(parts)] = self._new(entry)
        elif parts[-1].startswith(WHITEOUT):
            self._hide(parts)
        elif entry.kind is not Kind.CHAR or entry.device != (0, 0):
            self._place(parts, entry)

    def finish(self) -> None:
        """The end of the layer: hard links to entries that came later are made now."""
        waiting = self._waiting()
        while waiting:
            for parent, name in waiting:
                inode = self._link_target(parent.children[name].target)
                if inode is not None:
                    parent.children[name] = inode
            left = self._waiting()
            if len(left) == len(waiting):
                raise Refused(left[0][1])
            waiting = left

    def _waiting(self) -> list[tuple[Inode, bytes]]:
        """The hard links whose targets are still to come, each in its directory."""
        return [
            (folder, name)
            for _, folder in self.walk()
            for name, child in folder.children.items()
            if child.kind is Kind.HARDLINK
        ]

    # --- one entry ---------------------------------------------------------------------------------------------------

    def _new(self, entry: Entry) -> Inode:
        inode = Inode(entry.kind, self.layer, content=entry.content, target=entry.target, device=entry.device)
        inode.describe(entry)
        return inode

    def _place(self, parts: list[bytes], entry: Entry) -> None:
        parent = self._folder(parts[:-1])
        inode: Inode | None = None
        if entry.kind is Kind.HARDLINK:
            inode = self._link_target(entry.target, instead_of=parent.children.get(parts[-1]))
        if inode is None:
            inode = self._new(entry)  # of a hard link: a place that is kept until its target comes
        old = parent.children.get(parts[-1])
        if old is not None and old.kind is Kind.FOLDER and inode.kind is Kind.FOLDER:
            old.describe(entry)
            old.layer = self.layer
        else:
            parent.children[parts[-1]] = inode

    def _link_target(self, target: bytes, *, instead_of: Inode | None = None) -> Inode | None:
        """What a hard link means, or None: that is still to come. `instead_of`: what the link replaces, in which it
        cannot have its target."""
        parts = split(target)
        stored = self._stored.get(b"/".join(parts))
        if stored is not None:
            return stored
        folders = self._trail(parts[:-1], make=False, note=False) if parts else [self.root]
        found = (folders[-1].children.get(parts[-1]) if parts else self.root) if folders else None
        if instead_of in folders:
            raise Refused(target)
        if found is None or found.kind is Kind.HARDLINK:
            return None
        if found.kind is Kind.FOLDER:
            raise Refused(target)
        if found.layer == self.layer:
            return found
        self.copied.add(b"/".join(parts))
        return evolve(found, layer=self.layer, xattrs=dict(found.xattrs))

    def _hide(self, parts: list[bytes]) -> None:
        is_opaque = parts[-1] == OPAQUE
        # Like any entry, an opaque mark implies the directory it lies in; a whiteout of what is not there does nothing.
        parent = self._walk(parts[:-1], make=is_opaque, mark=True)
        if parent is None:
            return
        if is_opaque:
            parent.opaque_in = self.layer
            self._strip(parent)
            return
        name = parts[-1].removeprefix(WHITEOUT)
        if name in {b"", b".", b".."}:
            raise Refused(b"/".join(parts))
        child = parent.children.get(name)
        if child is None or (child.layer == self.layer and child.kind is not Kind.FOLDER):
            return
        if child.layer != self.layer and not (child.kind is Kind.FOLDER and self._holds_own(child)):
            del parent.children[name]
            return
        self._strip(child)
        if child.layer != self.layer:
            child.forget()

    def _strip(self, folder: Inode) -> None:
        """Remove from `folder` what lower layers have in it."""
        for name, child in list(folder.children.items()):
            own = child.layer == self.layer
            if child.kind is not Kind.FOLDER:
                if not own:
                    del folder.children[name]
            elif own or self._holds_own(child):
                self._strip(child)
                if not own:
                    child.forget()
            else:
                del folder.children[name]

    def _holds_own(self, folder: Inode) -> bool:
        """Is there, at any depth, something that this layer has listed, or an opaque mark of it?"""
        return folder.opaque_in == self.layer or any(
            child.layer == self.layer or (child.kind is Kind.FOLDER and self._holds_own(child))
            for child in folder.children.values()
        )

    # --- paths -------------------------------------------------------------------------------------------------------

    def look_up(self, parts: list[bytes]) -> Inode | None:
        """What lies at a path, or None. A symbolic link at its end is not followed."""
        if not parts:
            return self.root
        parent = self._walk(parts[:-1], make=False, note=False)
        return None if parent is None else parent.children.get(parts[-1])

    def _folder(self, parts: list[bytes]) -> Inode:
        folder = self._walk(parts, make=True)
        if folder is None:
            raise Refused(b"/".join(parts))
        return folder

    def _walk(self, parts: list[bytes], *, make: bool, note: bool = True, mark: bool = False) -> Inode | None:
        """The directory at `parts`: the last of its trail."""
        trail = self._trail(parts, make=make, note=note, mark=mark)
        return trail[-1] if trail else None

    def _trail(self, parts: list[bytes], *, make: bool, note: bool = True, mark: bool = False) -> list[Inode]:
        """The directories from the root to `parts`, through symbolic links, of which a note is taken.

        Empty when that is no directory; with `make`, one is made.

        `mark`: it is for a mark, and a mark below a file of this very layer is dropped, not refused.
        """
        trail: list[tuple[bytes, Inode]] = [(b"", self.root)]
        left = list(reversed(parts))
        links = 0
        while left:
            name = left.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                trail = trail[:-1] or trail
                continue
            here = trail[-1][1]
            child = here.children.get(name)
            if child is not None and child.kind is Kind.SYMLINK:
                links += 1
                if links > MAX_SYMLINKS:
                    if make:
                        raise Refused(b"/".join(parts))
                    return []
                if note:
                    self.followed.add(b"/".join([*(part for part, _ in trail[1:]), name]))
                if child.target.startswith(b"/"):
                    trail = trail[:1]
                left += reversed(child.target.split(b"/"))
                continue
            if child is None or child.kind is not Kind.FOLDER:
                own = child is not None and child.layer == self.layer
                if not make or (own and mark):
                    return []
                if own:
                    raise Refused(b"/".join(parts))
                # Not listed by anybody, so the layer counter stays below that of a listed directory.
                child = here.children[name] = Inode(Kind.FOLDER, layer=-1)
            trail.append((name, child))
        return [folder for _, folder in trail]

    # --- looking at it -----------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[tuple[bytes, Inode]]:
        """All paths, `b""` for the root, and what lies there."""
        todo = [(b"", self.root)]
        while todo:
            path, inode = todo.pop()
            yield path, inode
            todo += [(path + b"/" + name if path else name, child) for name, child in inode.children.items()]

    def listing(self, seen: trees.Tree) -> dict[str, trees.Entry]:
        """What a reader of the tree has to see. Times that nobody gave are taken from what was `seen`."""
        names: dict[int, list[str]] = {}
        for path, inode in self.walk():
            names.setdefault(id(inode), []).append(os.fsdecode(path))
        return {
            path: _entry(inode, seen.get(path), tuple(sorted(names[id(inode)])))
            for path, inode in ((os.fsdecode(path), inode) for path, inode in self.walk())
        }


_TYPES = {
    Kind.FILE: "file",
    Kind.FOLDER: "folder",
    Kind.SYMLINK: "symlink",
    Kind.CHAR: "character device",
    Kind.BLOCK: "block device",
    Kind.FIFO: "fifo",
}


def _entry(inode: Inode, seen: trees.Entry | None, names: tuple[str, ...]) -> trees.Entry:
    mtime = inode.mtime
    if mtime is None:
        mtime = seen.mtime_ns if seen else 0
    return trees.Entry(
        type=_TYPES[inode.kind],
        mode=0o777 if inode.kind is Kind.SYMLINK else inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        size=len(inode.content) + len(inode.target),
        sha256=hashlib.sha256(inode.content).hexdigest() if inode.kind is Kind.FILE else "",
        target=os.fsdecode(inode.target),
        xattrs=tuple(sorted((os.fsdecode(name), value) for name, value in inode.xattrs.items())),
        mtime_ns=mtime,
        rdev=inode.device if inode.kind in {Kind.CHAR, Kind.BLOCK} else (0, 0),
        names=names,
    )
