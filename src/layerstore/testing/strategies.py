"""Random layers that are odd but valid, for Hypothesis: `stacks`, `layers`, `layer_tars`, `trees`, `edits`.

A stack is drawn entry by entry while the model applies it, so that what is drawn always has one right answer: a hard
link has something to point to, a whiteout is not asked to hide a link that the same layer has already gone through.
What the specifications leave open is left to examples in the tests. `edits`, of a tree, is from `edit_strategies`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from attrs import evolve
from hypothesis import strategies as st

from layerstore.testing import tars
from layerstore.testing.edit_strategies import edits
from layerstore.testing.editing import ModelTree
from layerstore.testing.model import Inode, Tree
from layerstore.testing.tars import EPOCH, SECOND, Entry, Kind, Sparse, Style
from layerstore.values import frozen

__all__ = ["NAMES", "Layer", "capability", "edits", "layer_tars", "layers", "posix_acl", "stacks", "trees"]

NAMES = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"\xff\xfe",
    "ü".encode(),
    b"new\nline",
    b" ",
    b"...",
    b".wha",
    b"wh.a",
    b"=",
    b"n" * 101,
    b"N" * 251,
]
"""Few names, so that layers meet; odd ones among them, so that somebody trips over them."""

MODES = [0o644, 0o755, 0o600, 0o700, 0, 0o4755, 0o2755, 0o6711, 0o1777, 0o7777]
OWNERS = [0, 1, 1000, 65534, 2**21 + 7, 2**31 + 1]
TIMES = [
    EPOCH * SECOND,
    EPOCH * SECOND + 1,
    EPOCH * SECOND + 999_999_999,
    0,
    -1,
    -SECOND,
    -1_500_000_000,
    -(2**31) * SECOND,
    (2**31) * SECOND + 5,
    (8**11) * SECOND + 123_456_789,
]
SIZES = [0, 1, 10, 511, 512, 513, 4096, 5000, 70_000]


def capability(permitted: int = 0x2400) -> bytes:
    """A `security.capability` of the version that every kernel writes (linux/capability.h, VFS_CAP_REVISION_2)."""
    return struct.pack("<IIIII", 0x02000001, permitted, 0, 0, 0)


def posix_acl(*, named_user: int = 1000) -> bytes:
    """A POSIX ACL with one named user, as the kernel reads it (linux/posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, 7, nobody), (0x02, 5, named_user), (0x04, 5, nobody), (0x10, 5, nobody), (0x20, 4, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANY_XATTRS = [
    (b"trusted.note", b"kept"),
    (b"trusted.overlay.opaque", b"y"),
    (b"trusted.overlay.overlay.opaque", b"y"),
    (b"trusted.overlay.redirect", b"/elsewhere"),
    (b"trusted.overlay.metacopy", b""),
]
USER_XATTRS = [
    (b"user.mime_type", b"text/plain"),
    (b"user.binary", bytes(range(256))),
    (b"user.line", b"a=b\nc\0d"),
    (b"user.empty", b""),
    (b"user.overlay.opaque", b"y"),
    (b"user.overlay.whiteout", b""),
]
"""Only files and directories may have these (xattr(7))."""
FILE_XATTRS = [(b"security.capability", capability())]
FOLDER_XATTRS = [(b"system.posix_acl_default", posix_acl())]


@frozen(repr=False)
class Layer:
    """What was drawn of one layer, and its bytes."""

    entries: tuple[Entry, ...]
    end: bytes = tars.END

    def __repr__(self) -> str:
        return "\n".join(["Layer:", *(f"  {entry}" for entry in self.entries), f"  {len(self.end)} bytes behind"])

    def _repr_pretty_(self, printer: Any, cycle: object) -> None:
        """The same for Hypothesis."""
        printer.text(repr(self))

    @property
    def tar(self) -> bytes:
        return tars.archive(*self.entries, end=self.end)


def _xattrs(draw: st.DrawFn, kind: Kind, *, acls: bool) -> dict[bytes, bytes]:
    if draw(st.integers(0, 3)) != 3:
        return {}
    pool = list(ANY_XATTRS)
    if kind in {Kind.FILE, Kind.FOLDER}:
        pool += USER_XATTRS
    if kind is Kind.FILE:
        pool += FILE_XATTRS
    if kind is Kind.FOLDER and acls:
        pool += FOLDER_XATTRS
    return dict(draw(st.lists(st.sampled_from(pool), max_size=3)))


def _data(draw: st.DrawFn) -> bytes:
    size = draw(st.sampled_from(SIZES))
    seed = draw(st.binary(min_size=1, max_size=3))
    return (seed * (size // len(seed) + 1))[:size]


def _pieces(draw: st.DrawFn) -> tuple[int, tuple[tuple[int, bytes], ...]]:
    """The size and the pieces of a sparse file."""
    pieces: list[tuple[int, bytes]] = []
    at = 0
    for hole, length in draw(
        st.lists(st.tuples(st.sampled_from([0, 512, 4096, 9000]), st.sampled_from([1, 512, 700, 4096])), max_size=30)
    ):
        at += hole
        pieces.append((at, bytes([1 + len(pieces) % 255]) * length))
        at += length
    return at + draw(st.sampled_from([0, 1, 512, 100_000])), tuple(pieces)


def _spelling(draw: st.DrawFn, path: bytes, kind: Kind) -> bytes:
    """One of the ways to write `path`."""
    path = draw(st.sampled_from([b"", b"", b"", b"./", b"/", b".//", b"././"])) + path
    if b"/" in path and draw(st.integers(0, 7)) == 7:
        path = path.replace(b"/", draw(st.sampled_from([b"//", b"/./"])))
    if kind is Kind.FOLDER and draw(st.booleans()):
        path += b"/"
    return path


def _style(draw: st.DrawFn, entry: Entry) -> Entry:
    """`entry` in one of the dialects that can say all of it."""
    if entry.xattrs or entry.sparse not in {None, Sparse.GNU} or entry.mtime % SECOND:
        return entry
    if entry.sparse is Sparse.GNU:
        return evolve(entry, style=Style.GNU)
    styles = [Style.PAX, Style.GNU]
    short = len(entry.name) <= 100 and len(entry.target) <= 100
    if short:
        styles += [Style.USTAR, Style.STAR]
        special = {Kind.CHAR, Kind.BLOCK, Kind.FIFO}
        if entry.kind not in special and (entry.kind is not Kind.FOLDER or entry.name.endswith(b"/")):
            styles.append(Style.V7)
    return evolve(entry, style=draw(st.sampled_from(styles)))


class _Drawing:
    """One layer being drawn on top of `tree`, which is changed with it."""

    def __init__(self, draw: st.DrawFn, tree: Tree, *, acls: bool) -> None:
        self.draw = draw
        self.tree = tree
        self.acls = acls
        self.entries: list[Entry] = []
        self.own: set[bytes] = set()
        """Canonical paths this layer has listed."""
        self.promised: list[bytes] = []
        """Targets of hard links that are still to come."""
        self.pending: set[bytes] = set()
        """The names of those links."""

    def run(self) -> list[Entry]:
        tree, draw = self.tree, self.draw
        tree.begin()
        steps: list[Callable[[], None]] = [
            self.something, self.something, self.something, self.below, self.below, self.through_link, self.whiteout,
            self.whiteout, self.hardlink, self.opaque, self.again, self.early_link,
        ]  # fmt: skip
        for _ in range(draw(st.integers(0, 9))):
            draw(st.sampled_from(steps))()
        for path in self.promised:
            if path not in self.own:
                self.put(self.described(path, Kind.FILE))
        tree.finish()
        return self.entries

    # --- what can be drawn -------------------------------------------------------------------------------------------

    def something(self) -> None:
        """An entry in a directory that is there, in any layer."""
        folders = [path for path, inode in self.tree.walk() if inode.kind is Kind.FOLDER and path.count(b"/") < 3]
        parent = self.draw(st.sampled_from(sorted(folders)))
        self.at(self.join(parent, self.name()))

    def below(self) -> None:
        """An entry whose parents are implied, or symbolic links."""
        self.at(b"/".join(self.name() for _ in range(self.draw(st.integers(2, 3)))))

    def through_link(self) -> None:
        """An entry below a symbolic link."""
        links = [path for path, inode in self.tree.walk() if inode.kind is Kind.SYMLINK and path.count(b"/") < 3]
        if links:
            self.at(self.join(self.draw(st.sampled_from(sorted(links))), self.name()))

    def again(self) -> None:
        """A path that this layer has already listed: the later entry counts."""
        if self.own:
            self.at(self.draw(st.sampled_from(sorted(self.own))))

    def root(self) -> None:
        self.put(evolve(self.described(b"", Kind.FOLDER), name=b"./"))

    def whiteout(self) -> None:
        """Something is hidden that is there: of a lower layer, or of this one (which is then not hidden)."""
        paths = sorted(path for path, _ in self.tree.walk() if path and not self.tied(path))
        if paths:
            self.put(self.spelt(tars.whiteout(self.draw(st.sampled_from(paths)))))

    def opaque(self) -> None:
        folders = sorted(
            path for path, inode in self.tree.walk() if inode.kind is Kind.FOLDER and not self.tied_below(path)
        )
        if folders:
            self.put(self.spelt(tars.opaque(self.draw(st.sampled_from(folders)))))

    def hardlink(self) -> None:
        """A link to what is there: listed before, or of a lower layer, and no link that waits itself."""
        no_file = {Kind.FOLDER, Kind.HARDLINK}
        files = [path for path, inode in self.tree.walk() if inode.kind not in no_file and not self.through(path)]
        if not files:
            return
        target = self.draw(st.sampled_from(sorted(files)))
        inode = self.tree.look_up(target.split(b"/"))
        assert inode is not None
        path = self.join(target.rpartition(b"/")[0], self.name())
        if path != target and self.free(path, Kind.HARDLINK):
            self.put(self.link(path, target, inode))

    def early_link(self) -> None:
        """A link to what this layer lists only later."""
        target, path = b"late%d" % len(self.entries), self.name()
        if self.free(path, Kind.HARDLINK) and self.tree.look_up([target]) is None:
            self.put(self.spelt(tars.hardlink(path, target)))
            self.own.add(path)
            self.promised.append(target)
            self.pending.add(path)

    # --- how ---------------------------------------------------------------------------------------------------------

    def at(self, path: bytes) -> None:
        kinds = [*[Kind.FILE, Kind.FOLDER] * 4, *[Kind.SYMLINK] * 2, Kind.FIFO, Kind.CHAR, Kind.BLOCK]
        kind = self.draw(st.sampled_from(kinds))
        if self.free(path, kind):
            self.put(self.described(path, kind))

    def free(self, path: bytes, kind: Kind) -> bool:
        """May this layer list `path` now, with one right answer?"""
        parts = path.split(b"/")
        if path in self.promised or (self.tied(path) and kind is not Kind.FOLDER) or path in self.tree.copied:
            return False
        if any(b"/".join(parts[:count]) in self.pending for count in range(1, len(parts))):
            return False
        # No parent may be a file of this layer, or a symbolic link that leads to anything but a directory.
        here: Inode | None = self.tree.root
        for count in range(1, len(parts)):
            here = self.tree.look_up(parts[:count])
            if here is None:
                return True
            if here.kind is Kind.SYMLINK:
                return self.leads_to_folder(parts[:count]) and count == len(parts) - 1
            if here.kind is not Kind.FOLDER:
                return here.layer != self.tree.layer
        last = self.tree.look_up(parts)
        # A symbolic link that was followed cannot become something else in the same layer.
        return not (last is not None and last.kind is Kind.SYMLINK and path in self.tree.followed)

    def leads_to_folder(self, parts: list[bytes]) -> bool:
        link = self.tree.look_up(parts)
        assert link is not None
        target = link.target.removeprefix(b"/").split(b"/")
        if not link.target.startswith(b"/"):
            target = parts[:-1] + target
        if b".." in target:
            return False
        found = self.tree.look_up(target)
        return found is not None and found.kind is Kind.FOLDER and not self.through(b"/".join(target))

    def through(self, path: bytes) -> bool:
        """Does `path` go through a symbolic link?"""
        parts = path.split(b"/")
        inodes = [self.tree.look_up(parts[:count]) for count in range(1, len(parts))]
        return any(inode is not None and inode.kind is Kind.SYMLINK for inode in inodes)

    def tied(self, path: bytes) -> bool:
        """Would another file at `path`, or none, change what an earlier entry of this layer meant?"""
        return self.tied_below(path) or any(path == name for name in self.tree.followed | self.tree.copied)

    def tied_below(self, path: bytes) -> bool:
        return any(name.startswith(path + b"/" if path else b"") for name in self.tree.followed | self.tree.copied)

    def name(self) -> bytes:
        return self.draw(st.sampled_from(NAMES))

    def join(self, parent: bytes, name: bytes) -> bytes:
        return parent + b"/" + name if parent else name

    def described(self, path: bytes, kind: Kind) -> Entry:
        draw = self.draw
        entry = Entry(
            path,
            kind,
            mode=0o777 if kind is Kind.SYMLINK else draw(st.sampled_from(MODES)),
            uid=draw(st.sampled_from(OWNERS)),
            gid=draw(st.sampled_from(OWNERS)),
            mtime=draw(st.sampled_from(TIMES)),
            xattrs=_xattrs(draw, kind, acls=self.acls),
        )
        if kind is Kind.FILE and draw(st.integers(0, 5)) == 5:
            form = draw(st.sampled_from(Sparse))
            if form is not Sparse.GNU or not (entry.xattrs or entry.mtime % SECOND):
                size, pieces = _pieces(draw)
                entry = evolve(entry, sparse=form, size=size, pieces=pieces)
        elif kind is Kind.FILE:
            entry = evolve(entry, data=_data(draw))
        elif kind is Kind.SYMLINK:
            entry = evolve(entry, target=self.symlink_target())
        elif kind in {Kind.CHAR, Kind.BLOCK}:
            entry = evolve(entry, device=draw(st.sampled_from([(1, 3), (0, 1), (5, 0), (511, 255), (8, 200_000)])))
        self.own.add(path)
        return self.spelt(entry)

    def symlink_target(self) -> bytes:
        folders = [path for path, inode in self.tree.walk() if inode.kind is Kind.FOLDER and path]
        odd = [b"nowhere", b"../..", b"/", b".", b"t" * 255, b"x/" * 120, b"\xff"]
        return self.draw(st.sampled_from([b"/" + path for path in sorted(folders)] * 3 + odd))

    def link(self, path: bytes, target: bytes, inode: Inode) -> Entry:
        """An entry that says of the file what is true of it, as any tar does."""
        self.own.add(path)
        entry = tars.hardlink(
            path,
            self.draw(st.sampled_from([b"", b"", b"./", b"/"])) + target,
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            mtime=EPOCH * SECOND if inode.mtime is None else inode.mtime,
        )
        return self.spelt(entry)

    def spelt(self, entry: Entry) -> Entry:
        return _style(self.draw, evolve(entry, name=_spelling(self.draw, entry.name, entry.kind)))

    def put(self, entry: Entry) -> None:
        self.tree.add(entry)
        self.entries.append(entry)


def _layer(draw: st.DrawFn, tree: Tree, *, acls: bool) -> Layer:
    """One layer on what `tree` is; it is put on it."""
    drawing = _Drawing(draw, tree, acls=acls)
    entries = drawing.run()
    if draw(st.booleans()):
        root = evolve(drawing.described(b"", Kind.FOLDER), name=draw(st.sampled_from([b"./", b".", b"/"])))
        root = evolve(root, style=Style.PAX)
        tree.add(root)
        entries.insert(draw(st.sampled_from([0, len(entries)])), root)
    ends = [tars.END, bytes(10240), bytes(512), tars.END + b"garbage", b"" if entries else tars.END]
    return Layer(tuple(entries), draw(st.sampled_from(ends)))


@st.composite
def stacks(draw: st.DrawFn, *, min_layers: int = 1, max_layers: int = 4, acls: bool = True) -> list[Layer]:
    """Layers, bottom to top, each drawn with those below it in mind: it hides, replaces and links what they have.

    `acls=False` draws no default ACLs, which new files inherit: for trees that are going to be edited.

    >>> @given(stacks(max_layers=3))
    ... def test_a_stack_is_what_the_model_says(stack):
    ...     model = ModelTree()
    ...     for layer in stack:
    ...         model.apply(layer.entries)
    ...     assert tree_of(layer.tar for layer in stack) == dict(model.walk()).keys()
    """
    tree = Tree()
    return [_layer(draw, tree, acls=acls) for _ in range(draw(st.integers(min_layers, max_layers)))]


def layers(*, acls: bool = True) -> st.SearchStrategy[Layer]:
    """One layer by itself, on nothing: its `entries`, and its `tar`.

    >>> @given(layers())
    ... def test_whatever_is_imported_is_saved_again(layer_store, layer):
    ...     image = layer_store.import_tar(io.BytesIO(layer.tar))
    ...     assert image.layers == (diff_id(layer.tar),)
    """
    return stacks(min_layers=1, max_layers=1, acls=acls).map(lambda drawn: drawn[0])


def layer_tars(*, acls: bool = True) -> st.SearchStrategy[bytes]:
    """The tar of one layer: odd, but valid.

    Entries in any order and twice, parents that are only implied, whiteouts mixed with what they hide, links before
    their targets, names that are long or no UTF-8, all four kinds of sparse files, times in nanoseconds and before
    1970, in each dialect of tar that can say it, with or without a proper end.

    >>> @given(layer_tars())
    ... def test_our_scanner_reads_every_layer(tar):
    ...     assert scan(tar) is not None
    """
    return layers(acls=acls).map(lambda layer: layer.tar)


@st.composite
def trees(draw: st.DrawFn, *, max_layers: int = 2, breaks_links: bool = False) -> ModelTree:
    """A tree to begin with, as a `ModelTree`: what a few layers on each other make.

    >>> @given(trees())
    ... def test_a_branch_has_no_changes(tree):
    ...     assert len(tree.branch().changes(tree)) == 0
    """
    tree = ModelTree(breaks_links=breaks_links)
    for layer in draw(stacks(max_layers=max_layers, acls=False)):
        tree.apply(layer.entries)
    return tree
