"""What a path means within a tree, and where a copy lands by docker's rules.

A path is resolved as if the tree's root were the root directory: `..` stops there, and an absolute symbolic link leads
to a place in the tree. What was found is a descriptor from then on, so that it does not matter who renames what.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

from layerstore.errors import CannotCopy, KernelError, NotFound
from layerstore.kernel.files import open_beneath
from layerstore.kernel.files.descriptors import opened
from layerstore.values import frozen

_LINKS: Final = 40
"""As many as the kernel follows."""

_MISSING: Final = (errno.ENOENT, errno.ENOTDIR)


@frozen
class Tree:
    """A tree to copy from or to: `root` is a directory descriptor, `where` what people say: `in container web`."""

    root: int
    where: str


@contextmanager
def host() -> Iterator[Tree]:
    """The host's own files; paths there have to be absolute."""
    with opened("/", os.O_PATH | os.O_DIRECTORY) as root:
        yield Tree(root, "on this machine")


@frozen
class Asked:
    """A path as somebody wrote it: what leads to it, and its last name.

    `name` is "" for a path that means the folder it leads to, as `/` and `a/..` do. `contents`: what is in the folder
    is meant, as by `a/.`. `folder_only`: the path can mean a folder only, as `a/`.
    """

    text: str
    folder: str
    name: str
    contents: bool
    folder_only: bool


def asked(text: str) -> Asked:
    """A path in its parts."""
    names = text.split("/")
    folder_only = names[-1] in ("", ".", "..")
    contents = names[-1] in (".", "..")
    while names and names[-1] in ("", "."):
        names.pop()
    if not names or names[-1] == "..":
        return Asked(text, "/".join(names) or ".", "", contents=True, folder_only=True)
    return Asked(text, "/".join(names[:-1]) or ".", names[-1], contents, folder_only)


@frozen
class Source:
    """What is to be copied. `handle` is a descriptor of the file itself (O_PATH)."""

    handle: int
    facts: os.stat_result
    name: str
    contents: bool

    @property
    def is_folder(self) -> bool:
        """Is it a folder?"""
        return stat.S_ISDIR(self.facts.st_mode)


@contextmanager
def source(tree: Tree, text: str, *, follow: bool) -> Iterator[Source]:
    """What `text` means in a tree; `follow`: what a symbolic link leads to, in the place of the link itself."""
    wanted = asked(text)
    flags = os.O_PATH | (0 if follow or wanted.folder_only else os.O_NOFOLLOW)
    try:
        handle = open_beneath(tree.root, f"{wanted.folder}/{wanted.name}", flags)
    except KernelError as error:
        if error.errno in _MISSING:
            remedy = "Look whether the path is right: it begins at the root of that tree."
            raise NotFound(f"could not find the file {text} {tree.where}", remedy=remedy, path=text) from None
        raise
    try:
        found = Source(handle, os.fstat(handle), wanted.name, wanted.contents)
        if wanted.folder_only and not found.is_folder:
            raise CannotCopy(f"{text} {tree.where} is not a directory", path=text)
        yield found
    finally:
        os.close(handle)


@frozen
class Spot:
    """Where something is, or can be: a name in a folder, which is a descriptor. `name` "": the folder itself."""

    folder: int
    name: str
    facts: os.stat_result | None
    text: str

    @property
    def is_folder(self) -> bool:
        """Is there a folder?"""
        return self.facts is not None and stat.S_ISDIR(self.facts.st_mode)


@contextmanager
def spot(tree: Tree, text: str) -> Iterator[Spot]:
    """The place that `text` means in a tree: symbolic links are followed, also one that leads to nothing yet."""
    wanted = asked(text)
    for _ in range(_LINKS):
        folder = _opened_parent(tree, wanted.folder, text)
        try:
            facts = _facts(folder, wanted.name)
            if facts is None or not stat.S_ISLNK(facts.st_mode):
                yield Spot(folder, wanted.name, facts, text)
                return
            target = os.readlink(wanted.name, dir_fd=folder)
        finally:
            os.close(folder)
        wanted = asked(target if target.startswith("/") else f"{wanted.folder}/{target}")
    raise KernelError("openat2", errno.ELOOP, path=text)


def _opened_parent(tree: Tree, path: str, text: str) -> int:
    try:
        return open_beneath(tree.root, path, os.O_PATH | os.O_DIRECTORY)
    except KernelError as error:
        if error.errno in _MISSING:
            raise CannotCopy(
                f"there is no directory {path} {tree.where} to copy {os.path.basename(text.rstrip('/')) or text} to",
                remedy="Make it first: only the last name of a path is made.",
                path=text,
            ) from None
        raise


def _facts(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False) if name else os.fstat(folder)
    except FileNotFoundError:
        return None


class Landing(Enum):
    """Where a copy lands: at the place itself, in the folder there, or its contents in the folder there."""

    AT = "at"
    INSIDE = "inside"
    MERGED = "merged"


def landing(*, folder: bool, contents: bool, there: Spot, folder_only: bool) -> Landing:
    """docker's rules for a source that is a folder or not, of which the contents are meant or not. Pure.

    Raises `CannotCopy`.
    """
    if there.is_folder:
        return Landing.MERGED if folder and contents else Landing.INSIDE
    if there.facts is not None and folder:
        raise CannotCopy(f"cannot copy a directory to {there.text}, which is a file", path=there.text)
    if there.facts is not None and folder_only:
        raise CannotCopy(f"{there.text} is not a directory", path=there.text)
    if folder_only and not folder:
        raise CannotCopy(
            f"the destination directory {there.text} does not exist", remedy="Make it first.", path=there.text
        )
    return Landing.AT
