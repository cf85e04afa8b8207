"""The storage-opts of `vfs`."""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen


class Copy(Enum):
    """How a child is made of its parent."""

    AUTO = "auto"
    REFLINK = "reflink"
    COPY = "copy"


def _copy(value: str | Copy) -> Copy:
    try:
        return Copy(value.strip().lower() if isinstance(value, str) else value)
    except ValueError:
        raise ValueError("auto, reflink or copy") from None


def _threads(value: str | int) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if not 1 <= number <= 16:
        raise ValueError("a number from 1 to 16")
    return number


@frozen
class Settings:
    """`vfs.copy=reflink` and so on.

    `copy`: `reflink` shares the blocks of parent and child, and is refused where the filesystem cannot; `copy` shares
    nothing, so that a bad block damages one layer only; `auto` shares where that is possible. `threads`: how many
    copy at a time.
    """

    copy: Copy = field(default=Copy.AUTO, converter=_copy)
    threads: int = field(default=2, converter=_threads)
