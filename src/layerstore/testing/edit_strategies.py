"""Random edits of a tree, for Hypothesis: `edits`.

Each is drawn for the tree that the ones before it leave, so all of them can be made. Names are few, so that edits meet;
what different filesystems do differently (the size of a directory, the order of names) is not asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from hypothesis import strategies as st

from layerstore.testing import edits as make
from layerstore.testing.editing import ModelTree
from layerstore.testing.edits import Edit
from layerstore.testing.limits import NO_LIMITS, Limits
from layerstore.testing.model import Inode
from layerstore.testing.tars import SECOND, Kind

NAMES = [b"a", b"b", b"c", b"d", b"\xff\xfe", b"new\nline", b".wha", b"n" * 200]
MODES = [0o644, 0o755, 0o600, 0o700, 0, 0o4755, 0o2755, 0o6711, 0o1777]
FOLDER_MODES = [0o755, 0o700, 0o1777]
OWNERS = [0, 1, 1000, 65534, 2**21 + 7, 2**31 + 1]
TIMES = [0, 1, 10**18, 10**18 + 1, 10**18 + 999_999_999, -1, -1_500_000_000, 2**31 * SECOND + 5]
SIZES = [0, 1, 10, 4096, 5000, 70_000]
XATTRS = [b"user.a", b"user.b", b"trusted.a", b"trusted.overlay.opaque"]
LINK_XATTRS = [b"trusted.a", b"trusted.overlay.opaque"]
"""A symbolic link has no `user` attributes (xattr(7))."""

MAKING = ("write", "mkdir", "symlink", "link")
CHANGING = ("write", "append", "truncate")
REMOVING = ("rename", "unlink", "rmdir", "rmtree")
DESCRIBING = ("chmod", "chown", "setxattr", "removexattr", "utimes")
CALLS = tuple(dict.fromkeys(MAKING + CHANGING + REMOVING + DESCRIBING))

_MOST = 40
"""In a tree of so many files nothing is made any more."""


class _Tree:
    """What there is to choose from."""

    def __init__(self, draw: st.DrawFn, tree: ModelTree, limits: Limits) -> None:
        self.draw = draw
        self.limits = limits
        self.all = dict(sorted(tree.walk()))
        names = Counter(map(id, self.all.values()))
        self.alterable = {path: inode for path, inode in self.all.items() if limits.may_alter(inode, names[id(inode)])}
        self.folders = [path for path, inode in self.all.items() if inode.kind is Kind.FOLDER]
        self.files = [path for path, inode in self.alterable.items() if inode.kind is Kind.FILE]
        self.others = [path for path, inode in self.alterable.items() if inode.kind is not Kind.FOLDER]

    def one(self, paths: Sequence[bytes]) -> bytes:
        return self.draw(st.sampled_from(paths))

    def number(self, of: Sequence[int]) -> int:
        return self.draw(st.sampled_from(of))

    def new(self) -> bytes | None:
        """A path that is free."""
        if len(self.all) > _MOST:
            return None
        folder = self.one([path for path in self.folders if path.count(b"/") < 2])
        taken = self.all[folder].children
        free = [name for name in NAMES if name not in taken]
        return None if not free else _join(folder, self.one(free))

    def data(self) -> bytes:
        size = self.number(SIZES)
        seed = self.draw(st.sampled_from([b"x", b"y", b"\0", b"12"]))
        return (seed * (size // len(seed) + 1))[:size]

    # --- one method for each call ---

    def write(self) -> Edit | None:
        path = self.new() if not self.files or self.draw(st.booleans()) else self.one(self.files)
        return None if path is None else make.write(path, self.data())

    def append(self) -> Edit | None:
        return make.append(self.one(self.files), self.data() or b"x") if self.files else None

    def truncate(self) -> Edit | None:
        return make.truncate(self.one(self.files), self.number(SIZES)) if self.files else None

    def mkdir(self) -> Edit | None:
        path = self.new()
        return None if path is None else make.mkdir(path, self.number(FOLDER_MODES))

    def symlink(self) -> Edit | None:
        path = self.new()
        targets = [b"/", b"..", b"nowhere", b"t" * 255, *(b"/" + path for path in self.all if path)]
        return None if path is None else make.symlink(path, self.one(targets))

    def link(self) -> Edit | None:
        path = self.new() if self.others else None
        return None if path is None else make.link(path, self.one(self.others))

    def rename(self) -> Edit | None:
        own = [path for path in self.folders if self.all[path].own]
        if not self.others and not own:
            return None
        path = self.one(sorted([*self.others, *own]))
        inode = self.all[path]
        new = self.new()
        places = [other for other in self.all if other and self._takes(other, path, inode)]
        if places and (new is None or self.draw(st.booleans())):
            new = self.one(places)
        return None if new is None or new == path or new.startswith(path + b"/") else make.rename(path, new)

    def _takes(self, other: bytes, path: bytes, inode: Inode) -> bool:
        """May `path` be renamed over `other`?"""
        there = self.all[other]
        if there is inode or other.startswith(path + b"/") or path.startswith(other + b"/"):
            return False
        if inode.kind is Kind.FOLDER:
            return there.kind is Kind.FOLDER and not there.children
        return there.kind is not Kind.FOLDER

    def unlink(self) -> Edit | None:
        removable = [path for path, inode in self.all.items() if inode.kind is not Kind.FOLDER]
        return make.unlink(self.one(removable)) if removable else None

    def rmdir(self) -> Edit | None:
        empty = [path for path in self.folders if path and not self.all[path].children]
        return make.rmdir(self.one(empty)) if empty else None

    def rmtree(self) -> Edit | None:
        folders = [path for path in self.folders if path]
        return make.rmtree(self.one(folders)) if folders else None

    def chmod(self) -> Edit | None:
        path = self.one([path for path, inode in self.alterable.items() if inode.kind is not Kind.SYMLINK])
        return make.chmod(path, self.limits.mode(self.number(MODES)))

    def chown(self) -> Edit | None:
        return make.chown(self.one(list(self.alterable)), self.number(OWNERS), self.number(OWNERS))

    def setxattr(self) -> Edit | None:
        path = self.one(list(self.alterable))
        names = XATTRS if self.all[path].kind in {Kind.FILE, Kind.FOLDER} else LINK_XATTRS
        names = [name for name in names if self.limits.shows(name)]
        return make.setxattr(path, self.one(names), self.draw(st.sampled_from([b"", b"y", b"\0\xff"])))

    def removexattr(self) -> Edit | None:
        having = [path for path, inode in self.alterable.items() if inode.xattrs]
        if not having:
            return None
        path = self.one(having)
        return make.removexattr(path, self.one(sorted(self.all[path].xattrs)))

    def utimes(self) -> Edit | None:
        return make.utimes(self.one(list(self.alterable)), self.number(TIMES))


def one_edit(draw: st.DrawFn, tree: ModelTree, calls: Collection[str] = CALLS, limits: Limits = NO_LIMITS) -> Edit:
    """One edit that can be made to `tree`, one of `calls` if any of them can be; the tree is not changed."""
    chooser = _Tree(draw, tree, limits)
    drawn: Callable[[], Edit | None] = getattr(chooser, draw(st.sampled_from(list(calls))))
    return drawn() or make.chmod(b"", draw(st.sampled_from(FOLDER_MODES)))


@st.composite
def edits(
    draw: st.DrawFn, tree: ModelTree, *, calls: Collection[str] = CALLS, min_size: int = 0, max_size: int = 20
) -> list[Edit]:
    """Edits that a program could make to `tree` one after another; `calls` chooses kinds. The tree is not changed.

    >>> @given(trees().flatmap(lambda tree: st.tuples(st.just(tree), edits(tree))))
    ... def test_a_commit_loses_nothing(case):
    ...     tree, steps = case
    ...     box = tree.branch()
    ...     for edit in steps:
    ...         edit.apply(box)
    ...     assert box.commit(tree).changes(tree) == box.changes(tree)
    """
    work = tree.branch()
    drawn = []
    for _ in range(draw(st.integers(min_size, max_size))):
        edit = one_edit(draw, work, calls)
        edit.apply(work)
        drawn.append(edit)
    return drawn


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
