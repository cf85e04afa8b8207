"""Exact listings of directory trees, and what differs between two of them.

"Equal" means: the same paths, and for each the same type, mode, owner, size, content, link target, xattrs, time of
modification to the nanosecond, device number, and the same other names of the same file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, fields_dict

from layerstore.testing.without_root import shown
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore import Tree as Browsed

Tree = Mapping[str, "Entry"]
"""By path, relative to the root and without a leading slash; the root itself is ``""``. Bytes that are no UTF-8 are
surrogate escapes."""

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
# The kernel's own: xfs shows its ACLs under two names; SELinux labels belong to the host.
_OWN_XATTRS = ("trusted.SGI_ACL_", "security.selinux")


@frozen
class Entry:
    """Everything of one file that has to survive."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int
    """Of files and symlinks; 0 for the others, whose size is an accident of the filesystem."""
    sha256: str
    target: str
    xattrs: tuple[tuple[str, bytes], ...]
    mtime_ns: int
    rdev: tuple[int, int]
    names: tuple[str, ...]
    """All names that the file has in the tree, sorted. Folders have one."""


FACTS = tuple(fields_dict(Entry))


def listing(root: str | os.PathLike[str], *, content: bool = True) -> dict[str, Entry]:
    """Everything below `root`, and `root` itself. Mounts below it are part of it. `content=False` reads no file."""
    base = os.path.join(root, ".")  # of a symlink, as /proc/self/fd/N is one, what it leads to
    entries: dict[str, Entry] = {}
    names: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    digests: dict[tuple[int, int], str] = {}
    inodes: dict[str, tuple[int, int]] = {}
    pending = [""]
    while pending:
        path = pending.pop()
        full = os.path.join(base, path) if path else base
        facts = os.lstat(full)
        kind = stat.S_IFMT(facts.st_mode)
        inode = (facts.st_dev, facts.st_ino)
        digest = ""
        if kind == stat.S_IFREG and content:
            digest = digests.get(inode) or _sha256(full)
            digests[inode] = digest
        if kind == stat.S_IFDIR:
            pending += [f"{path}/{name}" if path else name for name in os.listdir(full)]
        else:
            names[inode].append(path)
            inodes[path] = inode
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        entries[path] = Entry(
            type=_TYPES[kind],
            mode=stat.S_IMODE(facts.st_mode),
            uid=facts.st_uid,
            gid=facts.st_gid,
            size=facts.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0,
            sha256=digest,
            target=os.readlink(full) if kind == stat.S_IFLNK else "",
            xattrs=_xattrs(full),
            mtime_ns=facts.st_mtime_ns,
            rdev=(os.major(facts.st_rdev), os.minor(facts.st_rdev)) if is_device else (0, 0),
            names=(path,),
        )
    for path, inode in inodes.items():
        if len(names[inode]) > 1:
            entries[path] = evolve(entries[path], names=tuple(sorted(names[inode])))
    return dict(sorted(entries.items()))


def browsed(tree: Browsed) -> dict[str, Entry]:
    """Everything in a tree that is read without a mount (`Store.browse`), as `listing` has what is mounted."""
    entries: dict[str, Entry] = {}
    names: defaultdict[Hashable, list[str]] = defaultdict(list)
    for one in tree.walk():
        digest = ""
        if one.is_file:
            with one.open() as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not one.is_folder:
            names[one.identity].append(one.path)
        entries[one.path] = Entry(
            type=_TYPES[stat.S_IFMT(one.mode)],
            mode=stat.S_IMODE(one.mode),
            uid=one.uid,
            gid=one.gid,
            size=one.size,
            sha256=digest,
            target=one.target(),
            xattrs=tuple(sorted(one.xattrs().items())),
            mtime_ns=one.mtime_ns,
            rdev=one.device,
            names=(one.path,),
        )
    for same in names.values():
        for path in same if len(same) > 1 else ():
            entries[path] = evolve(entries[path], names=tuple(sorted(same)))
    return dict(sorted(entries.items()))


def differences(expected: Tree, actual: Tree, *, ignoring: Collection[str] = ()) -> list[str]:
    """One line for each path and fact that differs. `ignoring`: names of facts, as `mtime_ns`."""
    assert set(ignoring) <= set(FACTS), f"no such facts: {set(ignoring) - set(FACTS)}"
    lines = []
    for path in sorted(expected.keys() | actual.keys()):
        shown = "/" + path
        if path not in actual:
            lines.append(f"{shown}: missing")
        elif path not in expected:
            lines.append(f"{shown}: unexpected {actual[path].type}")
        else:
            for fact in FACTS:
                wanted, got = getattr(expected[path], fact), getattr(actual[path], fact)
                if wanted != got and fact not in ignoring:
                    if fact == "mode":
                        wanted, got = oct(wanted), oct(got)
                    lines.append(f"{shown}: {fact} is {got!r}, not {wanted!r}")
    return lines


def assert_same(expected: Tree, actual: Tree, *, ignoring: Collection[str] = ()) -> None:
    """Fail with the first differences, if there are any."""
    lines = differences(expected, actual, ignoring=ignoring)
    shown = "\n".join(lines[:20])
    assert not lines, f"the trees differ in {len(lines)} places:\n{shown}"


def disk_usage(folder: Path) -> int:
    """Bytes on disk of all below `folder`, as du counts: each inode once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files, "."]:
            facts = os.lstat(os.path.join(parent, name))
            if (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                total += facts.st_blocks * 512
    return total


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        # Not every filesystem has xattrs, and /proc and the like are no business of these tests.
        return ()
    wanted = sorted((os.fsdecode(shown(os.fsencode(name))), name) for name in names if not name.startswith(_OWN_XATTRS))
    return tuple((name, os.getxattr(path, kept, follow_symlinks=False)) for name, kept in wanted)
