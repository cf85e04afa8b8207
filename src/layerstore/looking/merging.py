"""Layers laid on each other in memory, name by name: what shows, and what each layer hides of those below. Pure.

These are overlay's rules, and those of the OCI image spec: a removal hides names of lower layers, never of its own; a
folder joins the folder below it, unless it is opaque; all else takes the place of what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from layerstore import EntryKind, LayerEntry
from layerstore.values import frozen

__all__ = ["Hidden", "Merged", "Shown", "parent_of"]


@frozen
class Shown:
    """What shows under a name: the entry, and the layer (0 is the lowest) that has it."""

    entry: LayerEntry
    level: int


@frozen
class Hidden:
    """A name of a lower layer that does not show any more.

    `by` is the path whose entry hides it: its own, or that of a folder above it.
    """

    was: Shown
    level: int
    """The layer that hides it."""
    by: bytes
    now: LayerEntry | None
    """What that layer has there itself, if it has."""


class Merged:
    """A tree that layers make, the lowest first."""

    def __init__(self) -> None:
        self.shown: dict[bytes, Shown] = {}
        self._inside: dict[bytes, dict[bytes, None]] = {}

    def lay(self, level: int, entries: Iterable[LayerEntry]) -> list[Hidden]:
        """Lay a layer on top. What it hides; folders that go on with other attributes are not hidden."""
        listed = list(entries)
        hidden: list[Hidden] = []
        for entry in listed:
            if entry.kind is EntryKind.REMOVAL or entry.covers:
                hidden += self._take(entry.path, level, entry.path)
            if entry.opaque:
                hidden += self._empty(entry.path, level, entry.path)
        gone = {one.was.entry.path: place for place, one in enumerate(hidden)}
        for entry in listed:
            if entry.kind is EntryKind.REMOVAL:
                continue
            path, below = entry.path, self.shown.get(entry.path)
            if below is None:
                place = gone.get(path)
                if place is not None:
                    hidden[place] = Hidden(hidden[place].was, level, hidden[place].by, entry)
            elif entry.kind is not EntryKind.FOLDER or below.entry.kind is not EntryKind.FOLDER:
                if below.entry.kind is EntryKind.FOLDER:
                    hidden += self._empty(path, level, path)
                hidden.append(Hidden(below, level, path, entry))
            elif entry.implied:
                continue  # it is what it was
            self.shown[path] = Shown(entry, level)
            self._note(path)
        return hidden

    def _note(self, path: bytes) -> None:
        """Remember that a name is in its folder, and that in its own, as far as that is new."""
        while path:
            folder = parent_of(path)
            names = self._inside.setdefault(folder, {})
            if path in names:
                return
            names[path] = None
            path = folder

    def below(self, path: bytes) -> Iterator[bytes]:
        """The names in a folder, at any depth."""
        waiting = list(self._inside.get(path, ()))
        while waiting:
            name = waiting.pop()
            yield name
            waiting += self._inside.get(name, ())

    def _empty(self, path: bytes, level: int, by: bytes) -> list[Hidden]:
        """Take away what is in a folder."""
        names = list(self.below(path))
        for name in (path, *names):
            self._inside.pop(name, None)
        return [Hidden(self.shown.pop(name), level, by, None) for name in names if name in self.shown]

    def _take(self, path: bytes, level: int, by: bytes) -> list[Hidden]:
        """Take away a name with all that is in it."""
        inside = self._empty(path, level, by)
        if path not in self.shown or not path:
            return inside
        self._inside.get(parent_of(path), {}).pop(path, None)
        return [*inside, Hidden(self.shown.pop(path), level, by, None)]


def parent_of(path: bytes) -> bytes:
    """The folder that a name is in; b"" is the root."""
    return path.rpartition(b"/")[0]
