"""Which files of a tree the sources of a COPY mean: their paths, wildcards as Go's filepath.Match has them.

A source that is a symbolic link means what it leads to, in the tree; links below it are copied as links.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from layerstore import KernelError, open_beneath
from layerstore.build.errors import BuildError, Place
from layerstore.build.steps.laying import Chosen

__all__ = ["Skip", "choose", "walk"]

Skip = Callable[[str, bool], bool]
"""Is this path, a folder or not, left out? Of a folder: and can nothing below it be meant again?"""

_WILD = re.compile(r"[*?\[\\]")


def walk(root: int, path: bytes, skip: Skip | None) -> Iterator[tuple[bytes, bool]]:
    """What is below a folder of a tree, and whether each is a folder: what is above first, in the order of names."""
    fd = open_beneath(root, "/" + os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as found:
            entries = sorted((os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found)
    finally:
        os.close(fd)
    for name, is_folder in entries:
        inner = path + b"/" + name if path else name
        if skip is None or not skip(os.fsdecode(inner), is_folder):
            yield inner, is_folder
        if is_folder and (skip is None or not skip(os.fsdecode(inner) + "/", True)):
            yield from walk(root, inner, skip)


def choose(
    root: int, sources: Sequence[str], *, parents: bool, skip: Skip | None, exclude: Skip | None, place: Place
) -> list[Chosen]:
    """What the sources mean in a tree. Raises `BuildError` for one that means nothing."""
    found: list[Chosen] = []

    def left_out(path: str, is_folder: bool) -> bool:  # noqa: FBT001
        return bool((skip and skip(path, is_folder)) or (exclude and exclude(path, is_folder)))

    for source in sources:
        pivot, path = _parted(source, parents=parents)
        paths = list(_matching(root, path, left_out)) if _WILD.search(path) else [path]
        for each in paths:
            found += _chosen(root, each, pivot, left_out, source, place, parents=parents)
    return found


def _parted(source: str, *, parents: bool) -> tuple[str, str]:
    """The part that is not kept by `--parents` (before `/./`), and the whole path, clean and relative to the root."""
    before, pivot, after = source.partition("/./") if parents else ("", "", source)
    if not pivot:
        before = ""
    clean = posixpath.normpath("/" + (f"{before}/{after}" if pivot else source)).lstrip("/")
    return posixpath.normpath("/" + before).lstrip("/"), clean


def _chosen(
    root: int, path: str, pivot: str, skip: Skip, source: str, place: Place, *, parents: bool
) -> Iterator[Chosen]:
    if path and skip(path, False) and skip(path + "/", True):
        raise _missing(root, source, place, ignored=True)
    try:
        fd = open_beneath(root, "/" + path, os.O_PATH)
    except KernelError:
        raise _missing(root, source, place, ignored=False) from None
    try:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        top = os.readlink(f"/proc/self/fd/{root}").rstrip("/")
        real = os.readlink(f"/proc/self/fd/{fd}").removeprefix(top).lstrip("/")
    finally:
        os.close(fd)
    below = tuple(walk(root, os.fsencode(real), skip)) if is_folder else ()
    kept = None
    if parents:
        kept = os.fsencode(path.removeprefix(pivot).lstrip("/") if pivot else path)
        real = path
    yield Chosen(os.fsencode(real), is_folder, below, kept)


def _missing(root: int, source: str, place: Place, *, ignored: bool) -> BuildError:
    words = "it is excluded by .dockerignore" if ignored else "not found"
    return BuildError(f'failed to compute cache key: "/{source.lstrip("/")}": {words}', place=place)


def _matching(root: int, pattern: str, skip: Skip) -> Iterator[str]:
    """The paths that a pattern means, in the order of their names."""
    found = [""]
    for part in pattern.split("/"):
        following = []
        for above in found:
            if not _WILD.search(part):
                inner = f"{above}/{part}" if above else part
                if _is_there(root, inner):
                    following.append(inner)
                continue
            following += [
                inner
                for name in _names(root, above)
                if _pattern(part).fullmatch(name) and not skip(inner := f"{above}/{name}" if above else name, False)
            ]
        found = following
    yield from found


def _is_there(root: int, path: str) -> bool:
    try:
        os.close(open_beneath(root, "/" + path, os.O_PATH))
    except KernelError:
        return False
    return True


def _names(root: int, path: str) -> list[str]:
    try:
        fd = open_beneath(root, "/" + path, os.O_RDONLY | os.O_DIRECTORY)
    except KernelError:
        return []
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


@cache
def _pattern(part: str) -> re.Pattern[str]:
    """One part of a pattern, as Go reads it: `*` and `?` for any letters, `[a-z]`, `[^a]`, a backslash escapes."""
    out, index = "", 0
    while index < len(part):
        letter = part[index]
        index += 1
        if letter == "*":
            out += "[^/]*"
        elif letter == "?":
            out += "[^/]"
        elif letter == "\\" and index < len(part):
            out += re.escape(part[index])
            index += 1
        elif letter == "[":
            end = part.find("]", index + 1)
            if end < 0:
                return re.compile(r"(?!)")
            inner = part[index:end].replace("\\", "\\\\")
            out += f"[{inner}]"
            index = end + 1
        else:
            out += re.escape(letter)
    return re.compile(out, re.DOTALL)
