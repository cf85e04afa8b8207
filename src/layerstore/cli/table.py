"""Columns: lines whose cells are parted by tabs become lines whose columns stand below each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Final

_NARROWEST: Final = 10
_GAP: Final = 3


def aligned(lines: Iterable[str], *, narrowest: int = _NARROWEST) -> Iterator[str]:
    """The lines, each cell but a line's last padded to its column, with three blanks between columns.

    A column is at least `narrowest` wide.
    """
    rows = [line.split("\t") for line in lines]
    widths: list[int] = []
    for row in rows:
        widths = [
            max(known, length + _GAP)
            for known, length in zip_longest(widths, map(len, row[:-1]), fillvalue=narrowest - _GAP)
        ]
    widths = [max(width, narrowest) for width in widths]
    for row in rows:
        yield "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1]
