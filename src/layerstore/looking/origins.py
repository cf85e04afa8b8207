"""From which layer a path of an image or container is, by which line, what it hides below, and which package owns it.

A stack shows the uppermost layer that has a name. What the others have is told by their lists of names alone; the tree
itself is opened for the links on the way, for what a container has changed, and for the packages' databases.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import Enum

from layerstore import Changes, Container, EntryKind, Image, Kind, LayerEntry, NotFound, Store
from layerstore.looking.lines import Line
from layerstore.looking.merging import Hidden, Merged
from layerstore.looking.owners import Answer, owners_of
from layerstore.looking.places import Found, find, same_bytes
from layerstore.looking.stacks import StackLines, stack_of
from layerstore.values import frozen

__all__ = ["Deed", "Step", "Why", "Written", "why"]


class Deed(Enum):
    """What a layer does with a name. The values are words for people."""

    ADDED = "added"
    CONTENT = "changed"
    ATTRIBUTES = "changed but for its content"
    EMPTIED = "emptied of what was in it"
    AGAIN = "there again, the same"
    REPLACED = "replaced by another kind of thing"
    REMOVED = "removed"


@frozen
class Step:
    """What one layer has to say of the path."""

    line: Line
    """The line that made the layer."""
    deed: Deed
    entry: LayerEntry | None
    """What the layer has there; None if it removes it."""
    differs: tuple[str, ...] = ()
    """What else is not as it is below: `mode 0644 -> 0755`."""
    by: bytes | None = None
    """The folder above it whose entry hides what is below, if it is not the path's own."""
    hides: int = 0
    """How many names of the layers below it hides, the path itself among them."""
    hides_bytes: int = 0
    """What the files under these names have."""


@frozen
class Written:
    """What a container has done with the path since its image."""

    deed: Deed
    differs: tuple[str, ...] = ()
    checkpoint: str | None = None
    """The first checkpoint since it was last written, of those that the container stands on; None: there is none."""
    after: str | None = None
    """The last one before that. `Container.checkpoints` says on which one stands: with btrfs and vfs on few."""


@frozen
class Why:
    """Where a path is from. `steps` are those of the layers, the topmost first: what shows is the first that has it."""

    of: str
    """The image or container, as people call it."""
    asked: str
    found: Found
    steps: tuple[Step, ...]
    written: Written | None
    """What the container has done with it itself; None of an image."""
    packages: Answer

    @property
    def path(self) -> str:
        """The path, with all links on its way followed; absolute."""
        return "/" + os.fsdecode(self.found.path)

    @property
    def exists(self) -> bool:
        """Is there something at the path?"""
        return self.found.facts is not None

    @property
    def changed(self) -> datetime | None:
        """When it was last changed, as its own time tells."""
        facts = self.found.facts
        return None if facts is None else moment(facts.st_mtime_ns)


def why(store: Store, of: Image | Container | str, path: str | bytes) -> Why:
    """Why `path` of an image or container is what it is. A name may be either's; containers come first.

    The path is from the root, and links on its way are followed, its last component is not. Raises `NotFound` for a
    path that no layer has ever had, too. The caller is root.
    """
    held = named(store, of) if isinstance(of, str) else of
    image = held if isinstance(held, Image) else held.image
    stack = stack_of(store, image, held.chain_id)
    with held.open_tree() as root:
        found = find(root, path)
        steps = tuple(reversed(list(_steps(stack, found.path))))
        written = None
        if isinstance(held, Container):
            written = _written(held, image, root, found)
        packages = owners_of(root, found.path)
    return Why(_title(held, of), os.fsdecode(path), found, steps, written, packages)


def named(store: Store, name: str) -> Image | Container:
    """The container or image of this name. Raises `NotFound`, `Ambiguous`."""
    try:
        return store.container(name)
    except NotFound:
        pass
    try:
        return store.image(name)
    except NotFound:
        raise NotFound(f"no container or image {name}") from None


def moment(nanoseconds: int) -> datetime | None:
    """A time of a file; None where it is beyond the years that a date can have."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1000 / 1e6, UTC)
    except (OverflowError, ValueError):
        return None


def _title(held: Image | Container, asked: Image | Container | str) -> str:
    """What it is called: of the names of an image the one by which it was asked for."""
    if isinstance(held, Container):
        return held.name
    names = [tag for tag in held.tags if asked in (tag, tag.removesuffix(":latest"))] or held.tags
    return names[0] if names else held.short_id


# --- the layers ---


def _steps(stack: StackLines, path: bytes) -> Iterator[Step]:
    """What each layer that speaks of the path says, the lowest first."""
    merged = Merged()
    for level, line in enumerate(stack.layers):
        own = None
        touching = []
        for entry in stack.entries(level):
            if _concerns(entry.path, path):
                touching.append(entry)
                if entry.path == path:
                    own = entry
        before = merged.shown.get(path)
        hidden = merged.lay(level, touching)
        step = _step(line, None if before is None else before.entry, own, hidden, path)
        if step is not None:
            yield step


def _concerns(entry: bytes, path: bytes) -> bool:
    """Is an entry the path's own, that of a folder above it, or that of something in it?"""
    if len(entry) <= len(path):
        return path == entry or not entry or path.startswith(entry + b"/")
    return not path or entry.startswith(path + b"/")


def _step(
    line: Line, before: LayerEntry | None, own: LayerEntry | None, hidden: Sequence[Hidden], path: bytes
) -> Step | None:
    inside = path + b"/" if path else b""
    gone = [one for one in hidden if one.was.entry.path == path or one.was.entry.path.startswith(inside)]
    if before is not None and _joins(before, own):
        gone = []  # what goes in a folder that stays, name by name, is told by these names
    itself = next((one for one in gone if one.was.entry.path == path), None)
    by = itself.by if itself is not None and itself.by != path else None
    count, size = len(gone), sum(one.was.entry.stored for one in gone)
    if own is None or own.kind is EntryKind.REMOVAL:
        return None if itself is None else Step(line, Deed.REMOVED, None, (), by, count, size)
    if before is None:
        return None if own.implied else Step(line, Deed.ADDED, own, (), by, count, size)
    deed, differs = compared(before, own)
    if own.kind is EntryKind.FOLDER and deed is not Deed.REPLACED:
        if gone:
            deed = Deed.EMPTIED
        elif deed is Deed.AGAIN:
            return None  # it is listed for what is in it
    return Step(line, deed, own, differs, by, count, size)


def _joins(before: LayerEntry, own: LayerEntry | None) -> bool:
    """Does a folder go on with what it had?"""
    if own is None or own.opaque or own.covers:
        return False
    return own.kind is before.kind is EntryKind.FOLDER


def compared(old: LayerEntry, new: LayerEntry) -> tuple[Deed, tuple[str, ...]]:
    """What one entry does with another of the same name, and how they differ."""
    if new.implied:
        return Deed.AGAIN, ()
    kinds = [EntryKind.FILE if entry.kind is EntryKind.HARD_LINK else entry.kind for entry in (old, new)]
    if kinds[0] is not kinds[1]:
        return Deed.REPLACED, ()
    differs = tuple(_differences(old, new))
    if kinds[0] is not EntryKind.FOLDER and (old.size, old.content, old.device) != (new.size, new.content, new.device):
        return Deed.CONTENT, differs
    return (Deed.ATTRIBUTES if differs else Deed.AGAIN), differs


def _differences(old: LayerEntry, new: LayerEntry) -> Iterator[str]:
    if old.mode != new.mode and new.kind is not EntryKind.SYMLINK:
        yield f"mode {old.mode:04o} -> {new.mode:04o}"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield f"owner {old.uid}:{old.gid} -> {new.uid}:{new.gid}"
    if old.attributes != new.attributes:
        yield "extended attributes"
    if old.mtime_ns != new.mtime_ns:
        yield "time"


# --- what a container has written ---


def _written(container: Container, image: Image | None, root: int, found: Found) -> Written | None:
    change = _change_of(container.changes(), found.path)
    if change is None:
        return None
    before, after = _between(container, found.path)
    if change is Kind.DELETED:
        return Written(Deed.REMOVED, (), before, after)
    if change is Kind.ADDED or image is None:
        return Written(Deed.ADDED, (), before, after)
    with image.open_tree() as below:
        old = find(below, found.path).facts
        deed, differs = _compared_trees(below, old, root, found)
    if deed is Deed.AGAIN and found.facts is not None and stat.S_ISDIR(found.facts.st_mode):
        return None  # something in it was changed
    return Written(deed, differs, before, after)


def _change_of(changes: Changes, path: bytes) -> Kind | None:
    """What is said of a path, or that a folder above it is gone."""
    text = "/" + os.fsdecode(path)
    folders = {text[:place] for place in range(1, len(text)) if text[place] == "/"}
    found = None
    for change in changes:
        if change.path == text:
            return change.kind
        if change.kind is Kind.DELETED and change.path in folders:
            found = Kind.DELETED
    return found


def _between(container: Container, path: bytes) -> tuple[str | None, str | None]:
    """The checkpoints that the last writing of a path lies between: the one after it, the one before it."""
    later = None
    for checkpoint in reversed(container.checkpoints(below=True)):
        if _change_of(container.changes(checkpoint), path) is not None:
            return later, checkpoint.label
        later = checkpoint.label
    return later, None


def _compared_trees(below: int, old: os.stat_result | None, root: int, found: Found) -> tuple[Deed, tuple[str, ...]]:
    new = found.facts
    if old is None or new is None:
        return Deed.ADDED, ()
    if stat.S_IFMT(old.st_mode) != stat.S_IFMT(new.st_mode):
        return Deed.REPLACED, ()
    differs = []
    if old.st_mode != new.st_mode:
        differs.append(f"mode {stat.S_IMODE(old.st_mode):04o} -> {stat.S_IMODE(new.st_mode):04o}")
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        differs.append(f"owner {old.st_uid}:{old.st_gid} -> {new.st_uid}:{new.st_gid}")
    if old.st_mtime_ns != new.st_mtime_ns:
        differs.append("time")
    if not stat.S_ISDIR(new.st_mode) and not same_bytes(below, root, found.path):
        return Deed.CONTENT, tuple(differs)
    return (Deed.ATTRIBUTES if differs else Deed.AGAIN), tuple(differs)
