"""Under which names what is copied comes to lie in the layer, and what may not be in its way. By BuildKit's rules.

What a folder has is copied, not the folder; a file lands in a folder that is there or is written with a / behind it,
and else takes its place. Symbolic links are followed on the way to the destination, and never below it.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence

from layerstore.build.context import Chosen
from layerstore.build.errors import BuildError, Place
from layerstore.values import frozen

__all__ = ["Entry", "Target", "apart", "lay", "require_free"]


@frozen
class Target:
    """Where a copy goes: a path of the tree without symbolic links, what is there, whether it is meant as a folder."""

    path: bytes
    kind: int | None
    """The file type of what is there (`stat.S_IFDIR`); None if nothing is, or nobody looks (`--link`)."""
    as_folder: bool

    @property
    def is_folder(self) -> bool:
        """Is it, or will it be one, whatever comes?"""
        return self.as_folder or self.kind == stat.S_IFDIR


@frozen
class Entry:
    """One file or folder of the layer: where it is now, and its name there."""

    path: bytes
    name: bytes
    is_folder: bool


def lay(chosen: Sequence[Chosen], target: Target) -> list[Entry]:
    """The entries of a layer that has what was chosen. A name may come twice; the last counts."""
    found: list[Entry] = []
    for one in chosen:
        found += _laid(one, target)
    return found


def apart(chosen: Sequence[Chosen]) -> list[list[Chosen]]:
    """What was chosen, in its order, in parts in each of which names of one file stay links of each other.

    Each source is copied by itself, and so is each thing that a pattern means: a folder has its hard links still, and
    two names of one file that were chosen become two files.
    """
    found: list[list[Chosen]] = []
    seen: set[tuple[int, int]] = set()
    for one in chosen:
        top = None if one.is_folder else one.listing.top
        file = None if top is None else (top.device, top.inode)
        if file is None or file in seen or not seen:
            found.append([])
            seen = set()
        if file is not None:
            seen.add(file)
        found[-1].append(one)
    return found


def _laid(one: Chosen, target: Target) -> Iterator[Entry]:
    if one.keeps is not None:
        yield from _with_parents(one, target)
        return
    if not one.is_folder:
        name = _joined(target.path, one.named or posixpath.basename(one.path)) if target.is_folder else target.path
        yield Entry(one.path, name, is_folder=False)
        return
    start = len(one.path) + 1 if one.path else 0
    above = target.path + b"/" if target.path else b""
    for path, is_folder in one.below:
        yield Entry(path, above + path[start:], is_folder)


def _with_parents(one: Chosen, target: Target) -> Iterator[Entry]:
    """`--parents`: the folders above come along, as they are where they come from."""
    keeps = one.keeps or b""
    names = keeps.split(b"/")
    for count, path in enumerate(one.above, 1):
        yield Entry(path, _joined(target.path, b"/".join(names[:count])), is_folder=True)
    if keeps:
        yield Entry(one.path, _joined(target.path, keeps), one.is_folder)
    start = len(one.path) + 1 if one.path else 0
    for path, is_folder in one.below:
        yield Entry(path, _joined(target.path, _joined(keeps, path[start:])), is_folder)


def _joined(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name if above and name else above or name


def require_free(
    entries: Sequence[Entry], top: bytes, there: Callable[[bytes], Mapping[bytes, int] | None], place: Place
) -> None:
    """Raise `BuildError` if a file would take the place of a folder, or a folder that of anything else.

    `top` is the folder of the tree in which all of them come to lie. `there` tells what is in one, by name with the
    file type; None if there is no such folder. It is asked of those alone that are on both sides.
    """
    coming = {entry.name: entry.is_folder for entry in entries}
    folders = [top]
    while folders:
        above = folders.pop()
        for name, kind in sorted((there(above) or {}).items()):
            path = _joined(above, name)
            is_folder = coming.get(path)
            if is_folder is None:
                continue
            _require_alike(path, kind, place, is_folder=is_folder)
            if is_folder:
                folders.append(path)


def _require_alike(path: bytes, kind: int, place: Place, *, is_folder: bool) -> None:
    shown = path.decode(errors="replace")
    if is_folder and kind != stat.S_IFDIR:
        what = "a symbolic link" if kind == stat.S_IFLNK else "a file"
        raise BuildError(
            f"cannot copy to non-directory: /{shown}",
            place=place,
            remedy=f"/{shown} is {what} in the stage, and a folder in what is copied: "
            "copy what is in that folder to where the link leads, or remove it first.",
        )
    if not is_folder and kind == stat.S_IFDIR:
        raise BuildError(
            f"cannot replace to directory /{shown} with file",
            place=place,
            remedy="It is a folder in the stage, and a file in what is copied: remove it first, or copy elsewhere.",
        )
