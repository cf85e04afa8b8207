"""A tree that COPY and ADD read from, and what their sources mean in it.

A source is a path or a pattern as Go's filepath.Match has it. One that is a symbolic link means what it leads to in the
tree; links below it are copied as links. Nothing leads out of the tree, and what its rules leave out is not in it.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import threading
from collections.abc import Iterator, Sequence

from attrs import field

from layerstore import patterns
from layerstore.build.context.ignore import Ignore, rules_of
from layerstore.build.context.weight import Weight, apart, told
from layerstore.build.errors import BuildError, Place
from layerstore.gathering import Found, Listing, walk
from layerstore.values import frozen

__all__ = ["Chosen", "Tree"]

_WILD = re.compile(r"[*?\[\\]")
_MOST_LINKS = 40
_SHOWN = 5


@frozen
class Chosen:
    """One thing that a source means: its path in the tree that it is of, and for a folder all that is below it.

    `listing` is what was found there, `path` itself first. `keeps` is the part of the path that it has at the
    destination, too (`--parents`); None: its last name, or for a folder nothing. `above` are the folders that come
    along then, where they really are, one for each name of `keeps` but the last. `named` is the last name by which it
    was asked for, where that is a link to it.
    """

    path: bytes
    is_folder: bool
    listing: Listing = field(repr=False)
    left_out: frozenset[bytes] = field(default=frozenset(), repr=False)
    keeps: bytes | None = None
    named: bytes = b""
    above: tuple[bytes, ...] = ()

    @property
    def below(self) -> Iterator[tuple[bytes, bool]]:
        """What is below it: paths in the tree, and whether each is a folder; those above come first."""
        entries = self.listing.entries()
        next(entries)
        if not self.left_out:
            return entries
        return ((path, is_folder) for path, is_folder in entries if path not in self.left_out)


class Tree:
    """A tree by the directory descriptor of its root, which stays the caller's. Any thread may ask.

    `name` is what errors call it: `the build context`, `stage build`. `ignore` says what is no part of it.
    """

    def __init__(self, root: int, name: str, *, ignore: Ignore | None = None) -> None:
        self.root = root
        self.name = name
        self.ignore = ignore
        self._lock = threading.Lock()
        self._listings: dict[bytes, Listing] = {}

    def listing(self, path: bytes) -> Listing:
        """What is at a path and below it; empty if there is nothing, or all is left out. It is looked at once."""
        with self._lock:
            if path not in self._listings:
                self._listings[path] = self._walked(path)
            return self._listings[path]

    def altered(self, chosen: Sequence[Chosen]) -> list[bytes]:
        """The paths of what was chosen that are not what they were then, or not there, or new. It is looked at anew.

        A folder in which others come and go is the same, as long as it is there with its mode and owner.
        """
        found: set[bytes] = set()
        for one in chosen:
            now = self._walked(one.path)
            if not now.equals(one.listing):
                before, after = _facts(one.listing), _facts(now)
                found |= {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
                found -= one.left_out
        return sorted(found)

    def _walked(self, path: bytes) -> Listing:
        return walk(self.root, path, rules=None if self.ignore is None else self.ignore.rules)

    @property
    def weight(self) -> Weight:
        """How much was looked at so far, each file once."""
        with self._lock:
            found = apart(self._listings)
        return Weight(sum(listing.size for listing in found), sum(listing.files for listing in found))

    def told(self) -> str:
        """What there is to say if that is too much: what weighs the most, and how to leave it out."""
        with self._lock:
            listings = dict(self._listings)
        return told(listings, self.name, ".dockerignore" if self.ignore is None else self.ignore.name)

    def choose(
        self,
        sources: Sequence[str],
        *,
        parents: bool = False,
        exclude: Sequence[str] = (),
        place: Place | None = None,
    ) -> list[Chosen]:
        """What the sources of an instruction mean. `exclude` and `parents` are its flags.

        Raises `BuildError`, with `place`, for a source that means nothing. A pattern may, as in BuildKit: people write
        `COPY package.json yarn.lock* ./` for what need not be there.
        """
        found: list[Chosen] = []
        for source in sources:
            try:
                found += self._meant(source, parents=parents, exclude=tuple(exclude), place=place)
            except ValueError as error:
                remedy = "A backslash before a letter means the letter itself."
                raise BuildError(f"not a pattern: {error}", place=place, remedy=remedy) from None
        return found

    def _meant(self, source: str, *, parents: bool, exclude: tuple[str, ...], place: Place | None) -> list[Chosen]:
        """What one source means; nothing, for a pattern that nothing fits."""
        pivot, path = _parted(source, parents=parents)
        paths = [path]
        if _WILD.search(path):
            paths = list(self._matching(path, deep=parents))
        found: list[Chosen] = []
        for each in paths:
            real = _resolved(self.root, each)
            listing = None if real is None else self.listing(os.fsencode(real))
            if real is None or listing is None or listing.top is None:
                continue
            is_folder = listing.top.is_folder
            kept = each.removeprefix(pivot).lstrip("/") if pivot else each
            above = tuple(self._above(pivot, kept)) if parents else ()
            left_out = (
                _left_out(listing, real if is_folder else posixpath.dirname(real), exclude) if exclude else frozenset()
            )
            if os.fsencode(real) in left_out:
                continue
            named = os.fsencode(posixpath.basename(each))
            keeps = os.fsencode(kept) if parents else None
            found.append(Chosen(os.fsencode(real), is_folder, listing, left_out, keeps, named, above))
        if not found and paths and not (exclude and self._is_there(paths[0])):
            raise self._missing(source, path, place)
        return found

    def _above(self, pivot: str, kept: str) -> Iterator[bytes]:
        """The folders on the way from the pivot to a path that is kept."""
        names = kept.split("/")
        for count in range(1, len(names)):
            real = _resolved(self.root, posixpath.join(pivot, *names[:count]))
            assert real is not None  # what is below it is there
            yield os.fsencode(real)

    def _matching(self, pattern: str, *, deep: bool) -> Iterator[str]:
        """The paths that a pattern means, in the order of their names."""
        found = [""]
        for part in pattern.split("/"):
            if deep and part == "**":
                found = [inner for above in found for inner in self._folders_below(above)]
            elif _WILD.search(part):
                fits = patterns.expression(part).fullmatch
                below = [posixpath.join(above, name) for above in found for name in self._names(above) if fits(name)]
                found = [path for path in below if self._may_mean(path)]
            else:
                found = [posixpath.join(above, part) for above in found]
        return (path for path in found if self._is_there(path))

    def _folders_below(self, path: str) -> list[str]:
        real = _resolved(self.root, path)
        listing = () if real is None else self.listing(os.fsencode(real)).entries()
        return [os.fsdecode(inner) for inner, is_folder in listing if is_folder]

    def _names(self, path: str) -> list[str]:
        real = _resolved(self.root, path)
        if real is None:
            return []
        try:
            descriptor = os.open(real or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.root)
        except OSError:
            return []
        try:
            return sorted(os.listdir(descriptor), key=os.fsencode)
        finally:
            os.close(descriptor)

    def _may_mean(self, path: str) -> bool:
        return self.ignore is None or not self.ignore.leaves_out(path) or self.ignore.may_keep_below(path)

    def _is_there(self, path: str) -> bool:
        return _resolved(self.root, path) is not None

    # --- what is not there

    def _missing(self, source: str, path: str, place: Place | None) -> BuildError:
        shown = "/" + source.lstrip("/")
        ignore = self.ignore
        what = self._odd(path)
        if what is not None:
            return BuildError(f'"{shown}" is not in {self.name}: not found: it is {what}', place=place)
        if ignore is not None and self._is_there(path):
            return BuildError(
                f'"{shown}" is not in {self.name}: {ignore.name} leaves it out',
                place=place,
                remedy=f"Take it back in {ignore.name} with a line `!{path}`, after the one that leaves it out.",
            )
        near = self._near(path)
        listed = f"There is: {', '.join(near)}." if near else f"Nothing in {self.name} has a name like that."
        return BuildError(f'"{shown}" is not in {self.name}: not found', place=place, remedy=listed)

    def _odd(self, path: str) -> str | None:
        """What is there, if it is what no source can mean."""
        above, name = posixpath.split(path)
        real = _resolved(self.root, above)
        if real is None:
            return None
        try:
            mode = os.stat(posixpath.join(real, name) or ".", dir_fd=self.root, follow_symlinks=False).st_mode
        except OSError:
            return None
        if stat.S_ISSOCK(mode):
            return "a socket, which no image can have"
        if stat.S_ISLNK(mode) and not self._is_there(path):
            return "a symbolic link that leads nowhere in it"
        return None

    def _near(self, path: str) -> list[str]:
        """What is where the path stops being there, the names most like the one that is missing first."""
        import difflib

        above, name = posixpath.split(path)
        while above and not self._is_there(above):
            above, name = posixpath.split(above)
        names = [each for each in self._names(above) if self._may_mean(posixpath.join(above, each))]
        close = difflib.get_close_matches(name, names, _SHOWN, 0.5)
        return [posixpath.join(above, each) for each in (close or names[:_SHOWN])]


def _parted(source: str, *, parents: bool) -> tuple[str, str]:
    """The part that is not kept by `--parents` (before `/./`), and the whole path, clean and relative to the root."""
    before, pivot, _ = source.partition("/./") if parents else ("", "", "")
    return _clean(before) if pivot else "", _clean(source)


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path).lstrip("/")


def _resolved(root: int, path: str) -> str | None:
    """The path without symbolic links, none of which leads above the root; None if nothing is there."""
    done: list[str] = []
    todo = path.split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        here = "/".join((*done, part))
        try:
            mode = os.stat(here, dir_fd=root, follow_symlinks=False).st_mode
            if not stat.S_ISLNK(mode):
                done.append(part)
                continue
            target = os.readlink(here, dir_fd=root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        links += 1
        if links > _MOST_LINKS:
            return None
        if target.startswith("/"):
            done.clear()
        todo += target.split("/")[::-1]
    return "/".join(done)


def _facts(listing: Listing) -> dict[bytes, Found | tuple[object, ...]]:
    """What must be the same of each path for it to be what it was."""
    return {
        each.path: (each.device, each.inode, each.mode, each.uid, each.gid) if each.is_folder else each
        for each in listing
    }


def _left_out(listing: Listing, folder: str, excluded: tuple[str, ...]) -> frozenset[bytes]:
    """What `--exclude` leaves out: patterns as in .dockerignore, from the source's own folder on."""
    start = len(os.fsencode(folder)) + 1 if folder else 0
    rules = rules_of(list(excluded))
    paths = (path for path, _ in listing.entries())
    return frozenset(path for path in paths if path[start:] and rules.leaves_out(os.fsdecode(path[start:])))
