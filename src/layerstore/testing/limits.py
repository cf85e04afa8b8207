"""`Limits`: what a program that a driver uses is known to do otherwise than a filesystem does.

A driver may leave the making of trees to another program, and that has faults of its own, which the driver cannot mend.
Here they are named one by one, so that random lives (`machine_for`) go around exactly these and still find the driver's
own. The default leaves nothing out. A limit is given for a reason, which its user writes beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, field

from layerstore.testing import edits as make
from layerstore.testing.editing import ModelTree
from layerstore.testing.edits import Edit
from layerstore.testing.model import Inode
from layerstore.testing.tars import Entry, Kind
from layerstore.values import frozen

__all__ = ["NO_LIMITS", "Limits"]


@frozen(kw_only=True)
class Limits:
    """What random layers and edits leave out, and what is not compared.

    >>> Limits(mode_bits=0o1777).mode(0o4755) == 0o755
    True
    """

    mode_bits: int = 0o7777
    """The bits that a mode may have: `0o1777` where setuid and setgid get lost."""
    hidden_xattrs: tuple[bytes, ...] = ()
    """How names of xattrs begin that are kept from users."""
    devices: bool = True
    """False where devices are no use at all: in layers, FIFOs take their places."""
    copied_up: frozenset[Kind] = field(default=frozenset(Kind), converter=frozenset)
    """The kinds of files of an image that a container may alter. All can be removed from it."""
    links_copied_up: bool = True
    """False where altering a file of the image through one of several names confuses them. It can still lose names."""
    keeps_folder_times: bool = True
    """False where altering a file gives the folders above it other times, perhaps seen only after the next mount."""
    keeps_written_times: bool = True
    """False where the time of a file that was written changes once more when it is mounted anew: then it is set, after
    each write."""
    sees_at_once: bool = True
    """False where a directory that is made where one was removed is right only after the container was mounted anew:
    then it is, after each such edit."""

    def mode(self, mode: int) -> int:
        """What remains of it."""
        return mode & self.mode_bits

    def shows(self, xattr: bytes) -> bool:
        """May an xattr have this name?"""
        return not xattr.startswith(self.hidden_xattrs)

    def entries(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """The entries of a layer, without what is to be left out."""
        return tuple(
            evolve(
                entry if self.devices or entry.kind not in _DEVICES else evolve(entry, kind=Kind.FIFO, device=(0, 0)),
                mode=self.mode(entry.mode),
                xattrs={name: value for name, value in entry.xattrs.items() if self.shows(name)},
            )
            for entry in entries
        )

    def may_alter(self, inode: Inode, names: int) -> bool:
        """May a container alter what it found, which has so many names: its content, its owner, its names?"""
        return inode.own or (inode.kind in self.copied_up and (names == 1 or self.links_copied_up))

    def completed(self, edit: Edit, number: int) -> tuple[Edit, ...]:
        """`edit` and what has to follow it; `number` makes the times that are set differ."""
        if self.keeps_written_times or edit.call not in {"write", "append", "truncate"}:
            return (edit,)
        return edit, make.utimes(edit.path, 10**18 + number)

    def loosened(self, edit: Edit, tree: ModelTree) -> list[Inode]:
        """The directories of whose time nothing is promised after `edit`: all above what it names."""
        found: list[Inode] = []
        for path in () if self.keeps_folder_times else _paths(edit):
            while path:
                path = path.rpartition(b"/")[0]
                folder = tree.find(path)
                if folder is not None and folder.kind is Kind.FOLDER:
                    found.append(folder)
        return found

    def needs_remount(self, edit: Edit, tree: ModelTree, below: ModelTree | None) -> bool:
        """Has the container to be mounted anew after `edit` is made to `tree`, which it was not yet?"""
        if self.sees_at_once or below is None:
            return False
        for path in _paths(edit):
            inode, was = tree.find(path), below.find(path)
            if (inode is None or edit.call == "rename") and was is not None and was.kind is Kind.FOLDER:
                return True
        return False


NO_LIMITS = Limits()
_DEVICES = frozenset({Kind.CHAR, Kind.BLOCK})


def _paths(edit: Edit) -> list[bytes]:
    """All paths of the tree that it names."""
    second = edit.arguments[:1] if edit.call in {"link", "rename"} else ()
    return [edit.path, *second]
