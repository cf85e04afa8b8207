"""A layer that is watched, and a read of it that waits, as the holder knows them."""

from __future__ import annotations

import os

from layerstore.holding.passing import Watched
from layerstore.holding.recording import Record
from layerstore.kernel.watching import Waiting
from layerstore.layers.lazy import Present
from layerstore.values import define

__all__ = ["Asked", "Held", "has_holes", "inode_of", "is_same"]


@define
class Held:
    """A layer that is watched. `inode` is that of its tar; `told`: the fetcher knows it."""

    watched: Watched
    inode: tuple[int, int]
    chunk: int
    size: int
    present: Present
    wrong: bool
    told: bool = False
    record: Record | None = None


@define
class Asked:
    """A read that waits for the fetcher, until `deadline`."""

    waiting: Waiting
    held: Held
    first: int
    last: int
    deadline: float
    told: bool = False


def has_holes(tar: int) -> bool:
    """Does this file take less room than it has bytes?"""
    facts = os.fstat(tar)
    return facts.st_blocks * 512 < facts.st_size


def inode_of(facts: os.stat_result) -> tuple[int, int]:
    """What tells a file from all others."""
    return facts.st_dev, facts.st_ino


def is_same(one: int, other: int) -> bool:
    """Are these descriptors of one file?"""
    return inode_of(os.fstat(one)) == inode_of(os.fstat(other))
