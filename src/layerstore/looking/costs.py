"""What each layer of a stack costs, file by file, and what becomes of it further up. Pure.

A payload is the bytes that a layer's tar has of one file, whatever names it has. It shows in the end, or a layer above
hides its last name; so each is counted once, and what is counted adds up to what the layers have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

from layerstore import EntryKind, LayerEntry
from layerstore.looking.merging import Hidden, Merged
from layerstore.values import define, frozen

__all__ = ["Fate", "Payload", "payloads"]

_FILES = (EntryKind.FILE, EntryKind.HARD_LINK)


class Fate(Enum):
    """What becomes of a payload in the layers above its own."""

    SHOWN = "shown"
    HIDDEN = "hidden"
    """A layer above removes it, or has other bytes there."""
    REWRITTEN = "rewritten"
    """A layer above has the same bytes there once more, for other attributes."""


@frozen
class Payload:
    """The bytes of one file in one layer."""

    path: bytes
    level: int
    size: int
    fate: Fate = Fate.SHOWN
    by: int | None = None
    """The layer that hides it."""
    differs: tuple[str, ...] = ()
    """Of one that is rewritten: which attributes the copy has otherwise: `mode`, `owner`, `time`, `xattrs`."""


@define
class _Count:
    """A payload while layers are laid, with how many names it still has."""

    size: int
    names: int = 0
    fate: Fate = Fate.SHOWN
    by: int | None = None
    differs: tuple[str, ...] = ()


def payloads(layers: Iterable[Iterable[LayerEntry]]) -> list[Payload]:
    """All payloads of layers, the lowest first, each with what becomes of it."""
    merged = Merged()
    counts: dict[tuple[int, bytes], _Count] = {}
    for level, entries in enumerate(layers):
        listed = list(entries)
        for entry in listed:
            if entry.kind is EntryKind.FILE:
                counts[level, entry.path] = _Count(entry.stored)
        for entry in listed:
            if entry.kind in _FILES and (owner := counts.get(_owner(level, entry))) is not None:
                owner.names += 1
        for hidden in merged.lay(level, listed):
            _lose(counts, hidden)
    return [
        Payload(path, level, count.size, count.fate, count.by, count.differs) for (level, path), count in counts.items()
    ]


def _owner(level: int, entry: LayerEntry) -> tuple[int, bytes]:
    return level, entry.target if entry.kind is EntryKind.HARD_LINK else entry.path


def _lose(counts: dict[tuple[int, bytes], _Count], hidden: Hidden) -> None:
    """One name of a payload does not show any more."""
    was = hidden.was.entry
    count = counts.get(_owner(hidden.was.level, was)) if was.kind in _FILES else None
    if count is None:
        return
    count.names -= 1
    if count.names:
        return
    count.by = hidden.level
    now = hidden.now
    if now is not None and now.kind in _FILES and (now.size, now.content) == (was.size, was.content):
        count.fate = Fate.REWRITTEN
        count.differs = tuple(_differences(was, now))
    else:
        count.fate = Fate.HIDDEN


def _differences(old: LayerEntry, new: LayerEntry) -> Iterator[str]:
    if old.mode != new.mode:
        yield "mode"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield "owner"
    if old.attributes != new.attributes:
        yield "xattrs"
    if old.mtime_ns != new.mtime_ns:
        yield "time"
