"""How much of a context steps look at, and what of it weighs the most. Pure; nothing is walked for it again.

BuildKit tells how much of a context it transfers. Here it is read in place, so what counts is what a step that takes
from it makes a build look at: all that its sources mean, whether it has altered or not.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from operator import itemgetter

from attrs import field

from layerstore import patterns
from layerstore.gathering import Listing
from layerstore.values import frozen

__all__ = ["Weight", "apart", "told"]

_SHOWN = 5
_MOST_OF_ALL = 0.9
_WORTH_NAMING = 0.01
_MEGABYTE = 10**6


@frozen
class Weight:
    """The bytes of regular files, and how many things there are that are no folder."""

    size: int
    files: int


@frozen
class _Sizes:
    """Bytes of folders, with all that is below them, and of large files, by what they are in."""

    below: dict[bytes, dict[bytes, int]] = field(factory=dict)

    def add(self, path: bytes, size: int) -> None:
        self.below.setdefault(posixpath.dirname(path), {})[path] = size


def apart(listings: Mapping[bytes, Listing]) -> list[Listing]:
    """Those of the listings by their tops that are in none of the others."""

    def is_in_another(top: bytes) -> bool:
        while top:
            top = posixpath.dirname(top)
            if top in listings:
                return True
        return False

    return [listing for top, listing in listings.items() if not is_in_another(top)]


def told(listings: Mapping[bytes, Listing], name: str, ignore: str) -> str:
    """What a warning says of a context: how much is looked at, what of it is largest, how not to.

    `name` is what errors call the context, `ignore` the file that says what is no part of it.
    """
    found = apart(listings)
    total = sum(listing.size for listing in found)
    largest = _largest(found, total)
    lines = [
        f"the steps look at {_shown_size(total)} of {name}, in {sum(listing.files for listing in found):,} files; "
        "the largest parts of it:",
        *(f"  {_shown_size(size)}  {_shown(path)}" for path, size in largest),
        f"What no step needs is left out by lines in {ignore}:",
        *(f"  {line}" for path, _ in largest if (line := _pattern(path))),
    ]
    return "\n".join(lines)


def _largest(listings: list[Listing], total: int) -> list[tuple[bytes, int]]:
    """The largest folders and files, none of them in another; what has nearly all gives way to what is in it.

    Folders whose names begin with a dot are some program's (`.git`), and stay whole.
    """
    below = _sizes(listings, total).below
    parts = dict(below.get(b"", {}))
    while parts:
        path, size = max(parts.items(), key=itemgetter(1))
        is_own = posixpath.basename(path).startswith(b".")
        if size < total * _MOST_OF_ALL or path not in below or is_own:
            break
        del parts[path]
        parts |= below[path]
    ordered = sorted(parts.items(), key=lambda part: (-part[1], part[0]))
    return [part for part in ordered if part[1]][:_SHOWN]


def _sizes(listings: list[Listing], total: int) -> _Sizes:
    sizes = _Sizes()
    folders: dict[bytes, int] = {}
    for listing in listings:
        for found in listing:
            if found.is_folder:
                folders.setdefault(found.path, 0)
                continue
            above = posixpath.dirname(found.path)
            folders[above] = folders.get(above, 0) + found.size
            if found.size >= total * _WORTH_NAMING:
                sizes.add(found.path, found.size)
    for path in list(folders):
        while path:  # what is above a listing's top
            path = posixpath.dirname(path)
            folders.setdefault(path, 0)
    for path in sorted(folders, key=lambda path: path.count(b"/"), reverse=True):
        if path:
            above = posixpath.dirname(path)
            folders[above] += folders[path]
            sizes.add(path, folders[path])
    return sizes


def _shown_size(size: int) -> str:
    return f"{round(size / _MEGABYTE):,} MB"


def _shown(path: bytes) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in path.decode(errors="replace"))


def _pattern(path: bytes) -> str:
    """A line of .dockerignore that means this path; "" for one that no text can have."""
    text = patterns.escaped(os.fsdecode(path))
    if not text.isprintable():
        return ""
    return f"/{text}" if text[0] in "!# " else text
