"""What can be looked at: the lines of an image or container, the files as each leaves them, and what is wasted.

Only lists of names are read, no file. What a container has written is one more line, on top.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from attrs import Factory

from layerstore import Checkpoint, Container, Entry, EntryKind, Image, Kind, LayerEntry, NotFound, Store
from layerstore.looking.costs import Fate, payloads
from layerstore.looking.lines import Line
from layerstore.looking.merging import Merged
from layerstore.looking.stacks import stack_of
from layerstore.values import define, frozen

__all__ = ["Explored", "File", "Mark", "Row", "Waste", "explore"]

Subject = Image | Container | Checkpoint

_KEPT = 4
"""Of how many lines the files are kept in memory."""

_TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.HARD_LINK: stat.S_IFREG,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
    EntryKind.FOLDER: stat.S_IFDIR,
    EntryKind.FIFO: stat.S_IFIFO,
}


class Mark(Enum):
    """What a line does with a file."""

    KEPT = " "
    ADDED = "A"
    CHANGED = "M"
    REMOVED = "R"


@frozen
class Row:
    """One line, as it is listed."""

    number: int
    text: str
    bytes: int
    """Of the files in its layer."""
    lost: int
    """Bytes of these that a later line hides, or has once more."""
    level: int | None
    """The layer that it made, counted from the lowest; None: it made none."""
    line: Line | None
    """None: what was written in a container."""


@frozen
class Waste:
    """Bytes that lie in layers and do not show."""

    path: str
    bytes: int
    copies: int
    """In how many layers they lie."""


@define(eq=False)
class File:
    """A file or folder as a line leaves it, or as it removes it."""

    name: str
    path: str
    mark: Mark = Mark.KEPT
    mode: int = stat.S_IFDIR | 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    """Of a folder: of all files that are in it."""
    changed: bool = False
    """Does the line do something with it, or with anything in it?"""
    inside: dict[str, File] = Factory(dict)

    @property
    def is_folder(self) -> bool:
        """Is it a folder?"""
        return stat.S_ISDIR(self.mode)

    def children(self) -> list[File]:
        """What is in it, folders first."""
        return sorted(self.inside.values(), key=lambda one: (not one.is_folder, one.name))


class Explored:
    """An image, container or checkpoint that is looked at. Threads may share it."""

    def __init__(self, store: Store, subject: Subject, title: str) -> None:
        self.title = title
        self._store = store
        self._subject = subject
        self._written: list[tuple[Kind, str]] = []
        self._stack = stack_of(store, _image_of(store, subject))
        self._listed = [list(self._stack.entries(level)) for level in range(len(self._stack.layers))]
        found = payloads(self._listed)
        self.bytes = sum(one.size for one in found)
        self.wasted = sum(one.size for one in found if one.fate is not Fate.SHOWN)
        own: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        lost: defaultdict[bytes, list[int]] = defaultdict(lambda: [0, 0])
        for one in found:
            own[one.level][0] += one.size
            if one.fate is not Fate.SHOWN:
                own[one.level][1] += one.size
                lost[one.path][0] += one.size
                lost[one.path][1] += 1
        self.waste = sorted(
            (Waste(f"/{os.fsdecode(path)}", size, copies) for path, (size, copies) in lost.items() if size),
            key=lambda one: (-one.bytes, one.path),
        )
        rows = []
        for line in self._stack.lines:
            size, hidden = own[line.level] if line.level is not None else (0, 0)
            rows.append(Row(line.number, line.text, size, hidden, line.level, line))
        if not isinstance(subject, Image):
            self._written = [(change.kind, change.path.strip("/")) for change in subject.changes()]
            text = f"written in the {'container' if isinstance(subject, Container) else 'checkpoint'}"
            rows.append(Row(len(rows) + 1, text, self._size_of_written(), 0, len(self._listed), None))
        self.rows: Sequence[Row] = rows
        self._files: OrderedDict[tuple[int, bool], File] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def efficiency(self) -> float:
        """Which part of what lies in the layers shows: 1 is all."""
        return 1.0 if not self.bytes else 1 - self.wasted / self.bytes

    @property
    def top(self) -> int:
        """The place in `rows` of the last line that made a layer; -1: there is none."""
        return max((place for place, row in enumerate(self.rows) if row.level is not None), default=-1)

    def files(self, row: Row) -> File:
        """The root of the files as a line leaves them. A line that made no layer leaves what is below it, unmarked."""
        key = self._level(row), row.level is not None
        with self._lock:
            if key not in self._files:
                self._files[key] = self._made(key[0], marked=key[1])
                while len(self._files) > _KEPT:
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            return self._files[key]

    def read(self, row: Row, path: str, most: int) -> tuple[bytes, int]:
        """The first bytes of a file as a line leaves it, and how many it has. Raises `LayerstoreError`."""
        level = self._level(row)
        if level < len(self._stack.layers):
            tree = self._store.browse_layers(self._stack.layers[level].chain_id if level >= 0 else None)
        else:
            tree = self._subject.browse()
        with tree as opened:
            entry = opened.find(path, follow=False)
            with entry.open() as file:
                return file.read(most), entry.size

    def _level(self, row: Row) -> int:
        """The topmost layer at a line; -1: there is none yet."""
        if row.level is not None:
            return row.level
        return max((one.level for one in self.rows[: row.number] if one.level is not None), default=-1)

    # --- files as a line leaves them ---

    def _made(self, level: int, *, marked: bool) -> File:
        merged = Merged()
        for below, entries in enumerate(self._listed[: max(level, 0) if marked else level + 1]):
            merged.lay(below, entries)
        before = set(merged.shown)
        root = File("", "")
        if marked and 0 <= level < len(self._listed):
            entries = self._listed[level]
            hidden = merged.lay(level, entries)
            told = {entry.path for entry in entries if entry.kind is not EntryKind.REMOVAL and not entry.implied}
            for path, shown in merged.shown.items():
                mark = Mark.KEPT if path not in told else Mark.CHANGED if path in before else Mark.ADDED
                _put(root, os.fsdecode(path), mark, shown.entry)
            for one in hidden:
                if one.was.entry.path not in merged.shown:
                    _put(root, os.fsdecode(one.was.entry.path), Mark.REMOVED, one.was.entry)
        else:
            for path, shown in merged.shown.items():
                _put(root, os.fsdecode(path), Mark.KEPT, shown.entry)
            if level == len(self._listed) and self._written:
                self._put_written(root)
        _sum(root)
        return root

    def _put_written(self, root: File) -> None:
        marks = {Kind.ADDED: Mark.ADDED, Kind.CHANGED: Mark.CHANGED, Kind.DELETED: Mark.REMOVED}
        with self._subject.browse() as tree:
            for kind, path in self._written:
                if kind is Kind.DELETED:
                    gone = _at(root, path)
                    for one in _all(gone):
                        one.mark = Mark.REMOVED
                    continue
                try:
                    entry = tree.find(path, follow=False)
                except NotFound:
                    continue  # gone meanwhile
                one = _at(root, path)
                one.mark, one.mode, one.uid, one.gid, one.size = (
                    marks[kind],
                    entry.mode,
                    entry.uid,
                    entry.gid,
                    entry.size,
                )

    def _size_of_written(self) -> int:
        size = 0
        with self._subject.browse() as tree:
            for kind, path in self._written:
                if kind is not Kind.DELETED:
                    try:
                        size += _bytes_of(tree.find(path, follow=False))
                    except NotFound:
                        continue
        return size


def explore(
    store: Store, name: str, title: str | None = None, *, told: Callable[[int], object] | None = None
) -> Explored:
    """What is to be looked at under the name of a container, a checkpoint (`CONTAINER@LABEL`) or an image.

    `told`: is given the bytes of lazy layers that are waited for, if any lack.
    """
    subject = store.subject(name)
    if told is not None and (lacking := store.lacking()):
        image = _image_of(store, subject)
        if bytes_lacking := sum(lacking.get(layer, 0) for layer in set(image.layers if image else ())):
            told(bytes_lacking)
    return Explored(store, subject, title or name)


def _bytes_of(entry: Entry) -> int:
    return entry.size if entry.is_file else 0


def _image_of(store: Store, subject: Subject) -> Image | None:
    """The image that something is, or stands on."""
    if isinstance(subject, Image):
        return subject
    return None if subject.image_id is None else store.image(subject.image_id)


def _at(root: File, path: str) -> File:
    """The file at a path; what is not there is made."""
    file = root
    for name in path.split("/") if path else ():
        inner = file.inside.get(name)
        if inner is None:
            inner = file.inside[name] = File(name, f"{file.path}/{name}" if file.path else name)
        file = inner
    return file


def _put(root: File, path: str, mark: Mark, entry: LayerEntry) -> None:
    file = _at(root, path)
    file.mark, file.uid, file.gid = mark, entry.uid, entry.gid
    file.mode = _TYPES[entry.kind] | stat.S_IMODE(entry.mode)
    file.size = entry.stored if entry.kind is EntryKind.FILE else 0


def _all(root: File) -> Iterator[File]:
    """A file and all that is in it, folders first."""
    waiting = [root]
    while waiting:
        file = waiting.pop()
        yield file
        waiting += file.inside.values()


def _sum(root: File) -> None:
    """Let each folder know the size of what is in it, and whether anything in it is changed."""
    for file in reversed(list(_all(root))):
        file.changed = file.mark is not Mark.KEPT
        for one in file.inside.values():
            file.changed = file.changed or one.changed
            if one.mark is not Mark.REMOVED:
                file.size += one.size
