"""The slices of a stack, laid on each other where they are asked: one tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from types import TracebackType
from typing import Self

from attrs import evolve

from layerstore.errors import KernelError, NotFound
from layerstore.trees.entries import Entry, Part
from layerstore.trees.readers import Facts, Found, SliceReader
from layerstore.wording import in_words

__all__ = ["Tree"]

_LINKS = 40
"""As many as the kernel follows."""

_NAME_MAX = 255

_EMPTY = Facts(stat.S_IFDIR | 0o755, 0, 0, 0, 0)
"""The root of what has no layers."""

_IN_ROOT = "It begins at the root of that tree: see what is there with `layerstore ls`."


@in_words("a tree")
class Tree:
    """A tree to be read, of an image, container or checkpoint: `Store.browse`. A context manager; threads may share it.

    Paths are strings as `os.fsdecode` makes them, with or without a slash before them; `..` stops at the root, and a
    symbolic link leads to a place in the tree. What is asked raises `NotFound`; `KernelError` with the kernel's number
    for a path through what is no folder (ENOTDIR) or for links without an end (ELOOP); and `Damaged`.
    """

    def __init__(self, slices: Sequence[SliceReader]) -> None:
        self._slices = tuple(slices)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is open. Files that were opened stay open."""
        for one in self._slices:
            one.close()

    # --- paths ---

    @property
    def root(self) -> Entry:
        """The root directory."""
        facts, source, is_implied = _EMPTY, None, True
        parts: list[Part] = []
        is_closed = False
        for number, one in enumerate(self._slices):
            found = one.root()
            part = (number, one, found.handle)
            if not is_closed:
                parts.append(part)
            if is_implied and found.facts is not None:
                facts, source, is_implied = found.facts, part, found.implied
            is_closed |= found.opaque
            if is_closed and not is_implied:
                break
        return Entry("", facts, tuple(parts), source, self)

    def find(self, path: str, *, follow: bool = True) -> Entry:
        """What is at a path. `follow`: of a symbolic link at its end, what it leads to; those before are followed."""
        top = tuple((number, one, one.top()) for number, one in enumerate(self._slices))
        way = [Entry("", _EMPTY, top, None, self)]
        names = _names(path)
        links = 0
        while names:
            name = names.pop()
            if name in (".", ".."):
                if not way[-1].is_folder:
                    raise KernelError("open", errno.ENOTDIR, path=_shown(path))
                if name == ".." and len(way) > 1:
                    way.pop()
                continue
            entry = self._child_or_error(way[-1], name, path)
            if not entry.is_symlink or not (names or follow):
                way.append(entry)
                continue
            links += 1
            if links > _LINKS:
                raise KernelError("open", errno.ELOOP, path=_shown(path))
            target = entry.target()
            if target.startswith("/"):
                way = way[:1]
            names += _names(target)
        return way[-1] if len(way) > 1 else self.root

    def children(self, folder: Entry) -> Iterator[Entry]:
        """What is in a folder, sorted by name."""
        if not folder.is_folder:
            raise KernelError("readdir", errno.ENOTDIR, path=_shown(folder.path))
        first: dict[str, int] = {}
        gone: set[str] = set()
        for number, (_, one, handle) in enumerate(folder._parts):
            listed = [name for name in one.names(handle) if name.text not in gone]
            for name in listed:
                if not name.removed:
                    first.setdefault(name.text, number)
            gone.update(name.text for name in listed if name.removed)
        for text in sorted(first):
            # Those above have no such name; whoever alters a container meanwhile may have taken it away by now.
            entry = self._child(folder, text, folder._parts[first[text] :])
            if entry is not None:
                yield entry

    def walk(self, path: str = "/") -> Iterator[Entry]:
        """What is at a path, and all that is in it, folders before their contents; no link is followed within."""
        waiting = [self.find(path)]
        while waiting:
            entry = waiting.pop()
            yield entry
            if entry.is_folder:
                waiting += reversed(list(self.children(entry)))

    def open(self, path: str) -> BufferedReader:
        """The bytes of the file at a path: `Entry.open`."""
        return self.find(path).open()

    def read(self, path: str) -> bytes:
        """All bytes of the file at a path."""
        return self.find(path).read()

    # --- what an entry asks ---

    def target(self, entry: Entry) -> str:
        """`Entry.target`."""
        if not entry.is_symlink:
            return ""
        _, one, handle = entry._parts[0]
        return one.target(handle)

    def xattrs(self, entry: Entry) -> Mapping[str, bytes]:
        """`Entry.xattrs`."""
        if entry._said is None:
            return {}
        _, one, handle = entry._said
        return one.xattrs(handle)

    def open_entry(self, entry: Entry) -> BufferedReader:
        """`Entry.open`."""
        if not entry.is_file:
            number = errno.EISDIR if entry.is_folder else errno.EINVAL
            detail = None if entry.is_folder else "it is no file that has bytes"
            raise KernelError("open", number, path=_shown(entry.path), detail=detail, remedy="Name a file.")
        _, one, handle = entry._parts[-1]  # of one whose attributes alone are above, the last has the bytes
        return one.open(handle)

    # --- overlay's rules ---

    def _child_or_error(self, folder: Entry, name: str, path: str) -> Entry:
        if not folder.is_folder:
            raise KernelError("open", errno.ENOTDIR, path=_shown(path))
        found = None
        if "\0" not in name and len(os.fsencode(name)) <= _NAME_MAX:
            found = self._child(folder, name, folder._parts)
        if found is None:
            raise NotFound(f"there is no {_shown(path)}", remedy=_IN_ROOT, path=path)
        return found

    def _child(self, folder: Entry, name: str, parts: Sequence[Part]) -> Entry | None:
        """What is under a name in a folder, of which `parts` are those to look in."""
        path = f"{folder.path}/{name}" if folder.path else name
        facts: Facts | None = None
        source: Part | None = None
        found: list[Part] = []
        is_bare = is_implied = False
        is_hollow, is_closed = True, False
        waiting = list(parts)
        while waiting:
            number, one, folder = waiting.pop(0)
            said = one.find(folder, name)
            if said is None:
                continue
            if is_closed and not said.is_folder:
                break
            if said.facts is None or (found and said.is_folder is is_bare and not is_hollow):
                break  # removed; or it hides, and is hidden by, what is of another kind
            if found and not said.is_folder and is_hollow:
                facts, found = None, []
            is_hollow &= said.hollow
            part = (number, one, said.handle)
            if not is_closed:
                found.append(part)
            if facts is None:
                facts, source, is_implied = said.facts, part, said.implied
            elif is_implied:  # it is another file than that
                facts, source, is_implied = evolve(said.facts, inode=facts.inode), part, said.implied
            is_bare = said.bare
            is_closed |= said.opaque
            if (is_closed and not is_implied) or not (said.is_folder or said.bare):
                break
            if said.redirect is not None:
                waiting, name = self._redirected(waiting, number, said.redirect)
        if facts is None or is_bare or is_hollow:  # its bytes are nowhere; or it is there for nothing
            return None
        return Entry(path, facts, tuple(found), source, self)

    def _redirected(self, waiting: list[Part], number: int, redirect: str) -> tuple[list[Part], str]:
        """In which folders of the slices below, and by which name, what was renamed is looked for."""
        if not redirect.startswith("/"):
            return waiting, redirect
        *above, name = _names(redirect)[::-1] or [""]
        below: list[Part] = []
        for deeper, one in enumerate(self._slices[number + 1 :], number + 1):
            said: Found | None = one.root()
            is_last = False
            for text in above:
                said = one.find(said.handle, text) if said is not None else None
                if said is not None and not said.is_folder:
                    return below, name
                is_last = is_last or (said is not None and said.opaque)
            if said is not None:
                below.append((deeper, one, said.handle))
            if is_last:
                break
        return below, name


def _names(path: str) -> list[str]:
    """The names in a path, the last one first. A slash at its end is one more, `.`: what is before it is a folder."""
    names = [name for name in reversed(path.split("/")) if name]
    return [".", *names] if path.endswith("/") and names else names


def _shown(path: str) -> str:
    return f"/{path.lstrip('/')}"
