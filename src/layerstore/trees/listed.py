"""Slices that are listings: what a layer's tar means, in memory, as the unpacker says it (`layerstore.tar`).

A handle is a `Node`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from attrs import Factory, evolve

from layerstore.errors import NotFound, named
from layerstore.kernel.files.descriptors import HANDLE, open_beneath_plainly, opened
from layerstore.tar import EntryKind, ListedEntry, Lying, listed_in
from layerstore.trees.entries import Entry
from layerstore.trees.readers import NOTHING, Facts, Found, Name
from layerstore.trees.tree import Tree
from layerstore.values import define

__all__ = ["Bytes", "ListReader", "Node", "leads_away", "write_shape"]

_TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
    EntryKind.FOLDER: stat.S_IFDIR,
    EntryKind.FIFO: stat.S_IFIFO,
}
_LONGEST = 4000
"""Of a path that the kernel is given; a longer one is walked in pieces."""


class Bytes(Protocol):
    """Opens a file of `size` bytes, whose data are a payload of the tar, or nothing but zeros."""

    def __call__(self, size: int, payload: int | None, lying: Lying | None) -> BufferedReader: ...


@define(eq=False)
class Node:
    """One file of a slice: it may have several names."""

    facts: Facts
    target: str = ""
    xattrs: Mapping[str, bytes] = Factory(dict)
    payload: int | None = None
    below: str | None = None
    """Of a hard link to a file that the layer has not: its path in the layers below."""
    implied: bool = False
    hollow: bool = False
    opaque: bool = False
    inside: dict[str, Node] = Factory(dict)
    gone: set[str] = Factory(set)


class ListReader:
    """The names of a layer, by its listing, which is read now; `opener` opens files."""

    def __init__(self, listing: Path, opener: Bytes, *, root_opaque: bool) -> None:
        self._opener = opener
        entries, self._payloads = listed_in(listing)
        nodes: dict[bytes, Node] = {}
        groups: dict[int, Node] = {}
        links: list[ListedEntry] = []
        for number, one in enumerate(entries):
            if one.entry.kind is EntryKind.HARD_LINK:
                links.append(one)
            elif one.entry.kind is EntryKind.REMOVAL:
                _put(nodes, one, None)
            else:
                made = _made(one, number)
                _put(nodes, one, groups.setdefault(one.group, made) if one.group else made)
        for one in links:
            _put(nodes, one, nodes[one.entry.target])
        self._root = nodes[b""]
        self._root.opaque = root_opaque

    def close(self) -> None:
        """See `SliceReader`."""

    def top(self) -> Node:
        """See `SliceReader`."""
        return self._root

    def root(self) -> Found:
        """See `SliceReader`."""
        return self._found(self._root)

    def find(self, folder: Node, name: str) -> Found | None:
        """See `SliceReader`. Whoever asks by `top` is not told that the root is opaque, but of each name in it."""
        hides = folder is self._root and folder.opaque
        node = folder.inside.get(name)
        if node is not None:
            found = self._found(node)
            return evolve(found, opaque=True, implied=False) if hides and not found.bare else found
        return NOTHING if hides or name in folder.gone else None

    def names(self, folder: Node) -> Iterator[Name]:
        """See `SliceReader`."""
        yield from map(Name, folder.inside)
        for name in folder.gone:
            if name not in folder.inside:
                yield Name(name, removed=True)

    def target(self, handle: Node) -> str:
        """See `SliceReader`."""
        return handle.target

    def xattrs(self, handle: Node) -> Mapping[str, bytes]:
        """See `SliceReader`."""
        return handle.xattrs

    def open(self, handle: Node) -> BufferedReader:
        """See `SliceReader`."""
        number = handle.payload
        return self._opener(handle.facts.size, number, None if number is None else self._payloads[number])

    @staticmethod
    def _found(node: Node) -> Found:
        if node.below is not None:  # all of it, attributes too, is what the layers below have there
            return Found(node.facts, node, implied=True, redirect=node.below, bare=True)
        return Found(node.facts, node, opaque=node.opaque, implied=node.implied, hollow=node.hollow)


def _made(one: ListedEntry, number: int) -> Node:
    entry = one.entry
    words = os.fsdecode(one.words)
    is_link = entry.kind is EntryKind.SYMLINK
    mode = _TYPES[entry.kind] | (0o777 if is_link else entry.mode & 0o7777)
    facts = Facts(mode, entry.uid, entry.gid, entry.size, entry.mtime_ns, entry.device, number)
    return Node(
        facts,
        words if is_link else "",
        {os.fsdecode(name): value for name, value in one.xattrs.items()},
        one.payload,
        f"/{words}" if words and entry.kind is EntryKind.FILE else None,
        entry.inherits,
        entry.hollow,
        entry.opaque or (entry.covers and entry.kind is EntryKind.FOLDER),
    )


def _put(nodes: dict[bytes, Node], one: ListedEntry, node: Node | None) -> None:
    """Give a name to what has it; None: to nothing."""
    path = one.entry.path
    if path and not (node is not None and path in nodes):
        parent, _, last = path.rpartition(b"/")
        folder, name = nodes[parent], os.fsdecode(last)
        if node is None:
            folder.gone.add(name)
        else:
            folder.inside[name] = node
    if node is not None:
        nodes[path] = node


def leads_away(implied: tuple[str, ...], below: Tree) -> bool:
    """Is what a tar takes for a folder, but does not list, a symbolic link in the layers below?"""
    return any(_is_led(path.rstrip("/"), below) for path in implied if path.rstrip("/"))


def _is_led(path: str, below: Tree) -> bool:
    way = ""
    for name in path.split("/"):
        way = f"{way}/{name}"
        try:
            entry = below.find(way, follow=False)
        except NotFound:
            return False
        if not entry.is_folder:
            return entry.is_symlink
    return False


def write_shape(tree: Tree, folder: Path) -> None:
    """Make the folders and symbolic links of a tree, and empty files for all else: what a tar of a layer on it needs.

    A hard link to a symbolic link below is a copy of this one: what only root can give it, others' copies have not.
    """
    folder.mkdir(0o700)
    with opened(folder, HANDLE) as root:
        for entry in tree.walk():
            if not entry.path:
                continue
            parent, _, name = entry.path.rpartition("/")
            place = _open(root, os.fsencode(parent))
            try:
                with named("mknod", f"/{entry.path}"):
                    _make(entry, name, place)
            finally:
                os.close(place)


def _make(entry: Entry, name: str, place: int) -> None:
    if entry.is_folder:
        os.mkdir(name, 0o700, dir_fd=place)
    elif not entry.is_symlink:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place))
    else:
        os.symlink(entry.target(), name, dir_fd=place)
        with suppress(OSError):
            os.chown(name, entry.uid, entry.gid, dir_fd=place, follow_symlinks=False)
            for key, value in entry.xattrs().items():
                os.setxattr(f"/proc/self/fd/{place}/{name}", key, value, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=place, follow_symlinks=False)


def _open(root: int, path: bytes) -> int:
    base, rest = os.dup(root), path
    while rest:
        cut = rest.rfind(b"/", 0, _LONGEST) if len(rest) > _LONGEST else len(rest)
        try:
            deeper = open_beneath_plainly(base, rest[:cut], HANDLE)
        finally:
            os.close(base)
        base, rest = deeper, rest[cut + 1 :]
    return base
