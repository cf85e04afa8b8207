"""Rectangles whose areas are sizes: the files of a layer, folder by folder. Pure.

The way of filling is that of Bruls, Huizing and van Wijk, "Squarified treemaps" (2000): rows along the shorter side,
each as long as its rectangles come nearer to squares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import Factory

from layerstore.values import define, frozen

__all__ = ["Box", "Folder", "boxes", "squarified", "tree_of"]


@define
class Folder:
    """A folder, or what is left of it: sizes by kind, of itself and all below."""

    name: str
    sizes: dict[str, int] = Factory(dict)
    files: int = 0
    inside: dict[str, Folder] = Factory(dict)

    @property
    def size(self) -> int:
        """All bytes below it."""
        return sum(self.sizes.values())

    def add(self, parts: Sequence[str], size: int, kind: str) -> None:
        """One file at a path below it."""
        folder = self
        folder.sizes[kind] = folder.sizes.get(kind, 0) + size
        folder.files += 1
        for part in parts:
            folder = folder.inside.setdefault(part, Folder(part))
            folder.sizes[kind] = folder.sizes.get(kind, 0) + size
            folder.files += 1


@frozen
class Box:
    """One rectangle. `depth` 1 is in the root; what is a folder has others in it."""

    path: str
    name: str
    size: int
    files: int
    kind: str
    """What most of it is."""
    depth: int
    is_leaf: bool
    x: float
    y: float
    width: float
    height: float


Rectangle = tuple[float, float, float, float]
"""Left, top, width, height."""


def tree_of(files: Iterable[tuple[str, int, str]]) -> Folder:
    """The folders of files: path without a leading slash, size, kind."""
    root = Folder("")
    for path, size, kind in files:
        root.add([part for part in path.split("/") if part], size, kind)
    return root


def boxes(
    root: Folder, width: float, height: float, *, margin: float = 2, title: float = 13, least: float = 24
) -> list[Box]:
    """The rectangles of a tree, folders before what is in them.

    A folder has a title above its contents and a margin around them, if it is large enough. What would be smaller than
    `least` square units is put together with its like.
    """
    found: list[Box] = []
    if root.size:
        _fill(root, "", 1, (0.0, 0.0, width, height), (margin, title, least), found)
    return found


def _fill(
    folder: Folder, path: str, depth: int, room: Rectangle, form: tuple[float, float, float], found: list[Box]
) -> None:
    margin, title, least = form
    inner = _inner(room, depth, margin, title)
    if inner is None:
        return
    scale = inner[2] * inner[3] / folder.size
    parts = sorted((one for one in folder.inside.values() if one.size), key=lambda one: (-one.size, one.name))
    large = [one for one in parts if one.size * scale >= least]
    rest = _joined([one for one in parts if one.size * scale < least])
    shown = [*large, *([rest] if rest is not None and rest.size * scale >= least / 4 else [])]
    for part, place in zip(shown, squarified([part.size for part in shown], inner), strict=True):
        below = part is not rest and bool(part.inside)
        where = f"{path}/{part.name}" if part is not rest else f"{path}/…"
        deeper = below and _inner(place, depth + 1, margin, title) is not None
        found.append(Box(where, part.name, part.size, part.files, _kind(part), depth, not deeper, *place))
        if deeper:
            _fill(part, where, depth + 1, place, form, found)


def _inner(room: Rectangle, depth: int, margin: float, title: float) -> Rectangle | None:
    """Where the contents of a folder go; None if there is no room for any."""
    x, y, width, height = room
    if depth > 1:
        head = title if height > 2.5 * title and width > 3 * title else margin
        x, y, width, height = x + margin, y + head, width - 2 * margin, height - head - margin
    return (x, y, width, height) if width > 4 and height > 4 else None


def _joined(parts: Sequence[Folder]) -> Folder | None:
    """Many small things as one."""
    if not parts:
        return None
    sizes: dict[str, int] = {}
    for part in parts:
        for kind, size in part.sizes.items():
            sizes[kind] = sizes.get(kind, 0) + size
    return Folder(f"{len(parts)} more", sizes, sum(part.files for part in parts))


def _kind(folder: Folder) -> str:
    return max(sorted(folder.sizes), key=lambda kind: folder.sizes[kind])


def squarified(sizes: Sequence[int], room: Rectangle) -> Iterator[Rectangle]:
    """Rectangles that fill `room`, in the order of `sizes`, which are falling and above 0."""
    x, y, width, height = room
    total = sum(sizes)
    if not total:
        return
    scale = width * height / total
    areas = [size * scale for size in sizes]
    begin = 0
    while begin < len(areas):
        side = min(width, height)
        end, row = begin + 1, areas[begin]
        worst = _worst(areas[begin], areas[begin], row, side)
        while end < len(areas):
            longer = row + areas[end]
            further = _worst(areas[begin], areas[end], longer, side)
            if further > worst:
                break
            row, worst, end = longer, further, end + 1
        thickness = row / side if side else 0.0
        at = 0.0
        for area in areas[begin:end]:
            length = area / thickness if thickness else 0.0
            yield (x, y + at, thickness, length) if width >= height else (x + at, y, length, thickness)
            at += length
        if width >= height:
            x, width = x + thickness, max(width - thickness, 0.0)
        else:
            y, height = y + thickness, max(height - thickness, 0.0)
        begin = end


def _worst(largest: float, smallest: float, row: float, side: float) -> float:
    """How far from a square the worst rectangle of a row is, of which these are the largest and smallest area."""
    if not row or not smallest or not side:
        return float("inf")
    return max(side * side * largest / (row * row), row * row / (side * side * smallest))
