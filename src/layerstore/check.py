"""Is everything there, whole, and nothing else? What is not is told, a problem each, and noted in the rows.

Nothing is repaired here, but for records that are missing; `mending` does that. Others may use the store meanwhile;
what they remove while it is looked at is no problem, wherever they are with it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import evolve, field

from layerstore.blobs import Blobs
from layerstore.containers import rows as container_rows
from layerstore.database import Database
from layerstore.digest import ChainID, ImageID, of_bytes, short
from layerstore.driver import Layer, LayerKey
from layerstore.errors import Damaged, DriverFailed, KernelError, LayerstoreError, NotFound
from layerstore.images import rows as image_rows
from layerstore.kernel.files import names_in
from layerstore.kernel.files.descriptors import is_no_file
from layerstore.layers import Diff, Layers, garbage
from layerstore.layers import rows as layer_rows
from layerstore.layers.diffs import differences
from layerstore.layers.files import LayerFiles
from layerstore.layers.sources import Progress
from layerstore.records import MISSING, Mirror
from layerstore.segments import rows as segment_rows
from layerstore.tar import Damage, Level
from layerstore.values import define, frozen
from layerstore.volumes import Volumes

__all__ = ["Problem", "Rate", "Subject", "problems"]

_SHOWN = 10

PATIENCE = 1.0
"""Seconds that somebody has between the rows of what he removes and the first of its files, and from file to file."""

_CONTAINER: Final = re.compile(r"[0-9a-f]{64}")
_BLOB: Final = _CONTAINER


@frozen
class Subject:
    """What something is about: a `layer` (DiffID), `image` (a name or ID), `container` (its name), `checkpoint`
    (`CONTAINER LABEL`), `blob` (digest), `volume` (its name), `database`, or `file` (a path), by `name`."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@frozen
class Problem:
    """One thing that is wrong. `str` says it in a line.

    `kind`: database; missing, damaged layer; missing container, checkpoint; missing, damaged blob; missing volume;
    damaged image (its config is not what its ID says); record
    (what `rescue` would need); garbage (left by this store, and nobody's); foreign, unknown
    volume (what this store has not made, and nobody removes). `affects`: the images and containers that it takes.
    """

    kind: str
    text: str
    layer: str | None = None
    path: str | None = None
    subject: Subject | None = None
    affects: tuple[Subject, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@define
class Rate:
    """A limit in bytes a second, for what reads. Called with the bytes that were read, it waits as long as it takes."""

    limit: int | None
    _due: float = field(factory=time.monotonic)

    def __call__(self, count: int) -> None:
        """Wait until that many more bytes may have been read."""
        if self.limit is None:
            return
        now = time.monotonic()
        self._due = max(self._due, now) + count / self.limit
        while (left := self._due - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))


def problems(
    data_root: Path,
    database: Database,
    staging: Path,
    layers: Layers,
    files: LayerFiles,
    blobs: Blobs,
    containers: Callable[[], Sequence[tuple[str, Layer]]],
    volumes: Volumes | None,
    mirror: Mirror | None,
    *,
    content: bool = False,
    progress: Progress | None = None,
    rate: Rate | None = None,
) -> Iterator[Problem]:
    """Look at everything. `content`: read every byte of every layer too, no faster than `rate`.

    `containers` lists those that must have files, by name, with their writable layers. `mirror`: None where records
    cannot be written, and so are not looked at. `progress` is told the bytes of each layer as they are read.
    """
    rate = rate or Rate(None)
    found = database.problems()
    yield from (Problem("database", text, subject=Subject("database", str(database.path))) for text in found)
    if found:
        return
    with database.read() as tx:
        in_use = layer_rows.places(tx)  # what was replaced, and is mounted still, is no layer any more
        diffs = [diff for diff in layer_rows.all_diffs(tx) if diff.key in in_use]
    look = _Look(database, layers, files, rate, progress)
    for stored in diffs:
        yield from _affecting(database, stored, look.at(stored, content=content))
    for stored in () if files.independent else diffs:  # now it is known which of their parents are damaged
        yield from _affecting(database, stored, look.at_inherited(stored, content=content))
    yield from _images(database)
    for name, layer in containers():
        if not files.has(layer) and (name, layer) in containers():
            path, subject = str(files.place_of(layer)), Subject("container", name)
            text = f"the files of container {name} are gone: {path}"
            yield Problem("missing container", text, path=path, subject=subject, affects=(subject,))
    yield from _segments(database, files)
    for kind, text, where in blobs.problems(content=content, read=rate):
        yield Problem(kind, text, path=str(where), subject=_about(kind, where))
    for kind, text, where in () if volumes is None else volumes.problems():
        volume = _about(kind, where)
        using = () if volumes is None or kind != "missing volume" else volumes.users(volume.name)
        takes = tuple(sorted({Subject("container", name) for _, name in using}, key=str))
        yield Problem(kind, text, path=str(where), subject=volume, affects=takes)
    if mirror is not None:
        yield from _layer_records(database, layers, files, diffs)
        yield from _records(mirror)
    yield from _leftovers(data_root, database, staging, files)


def _about(kind: str, where: Path) -> Subject:
    match kind:
        case "missing blob" | "damaged blob":
            return Subject("blob", f"sha256:{where.name}")
        case "missing volume":
            return Subject("volume", where.parent.name)
        case _:
            return Subject("file", str(where))


def _affecting(database: Database, stored: Diff, problems: Iterable[Problem]) -> Iterator[Problem]:
    """Problems of a diff, each with what stands on it."""
    found = list(problems)
    takes = _standing_on(database, stored.key) if found else ()
    return (evolve(problem, affects=takes) for problem in found)


def _standing_on(database: Database, key: LayerKey) -> tuple[Subject, ...]:
    """Images and containers that stand on a layer that has this diff."""
    with database.read() as tx:
        kept, images = layer_rows.all_kept(tx), image_rows.every(tx)
        containers = container_rows.every(tx)
        names = image_rows.all_shown(tx)

    def stands(chain: ChainID | None) -> bool:
        while chain is not None:
            if kept[chain].key == key:
                return True
            chain = kept[chain].parent
        return False

    taken = [Subject("image", names[row.id]) for row in images if stands(row.chain_id)]
    taken += [Subject("container", row.name) for row in containers if stands(row.chain_id)]
    return tuple(sorted(set(taken), key=lambda one: (one.kind != "image", one.name)))


def _images(database: Database) -> Iterator[Problem]:
    """Images whose config is not what their ID says."""
    with database.read() as tx:
        rows, names = image_rows.every(tx), image_rows.all_shown(tx)
    for row in rows:
        if ImageID(of_bytes(row.config)) != row.id:
            subject = Subject("image", names[row.id])
            text = f"the config of {subject} is not what its ID {row.id} says"
            yield Problem("damaged image", text, subject=subject, affects=(subject,))


def _segments(database: Database, files: LayerFiles) -> Iterator[Problem]:
    """Segments without files, and what stands on them. Nobody has hashed what is in them, so more is not known."""
    with database.read() as tx:
        keys = sorted(segment_rows.keys(tx))
    gone = [key for key in keys if not files.has(Layer(key))]
    with database.read() as tx:  # what somebody removed meanwhile has no row any more
        there = segment_rows.keys(tx)
        gone = [key for key in gone if key in there]
        users = {key: segment_rows.standing_on(tx, key) for key in gone}
    for key in gone:
        path = str(files.place_of(Layer(key)))
        takes = tuple(
            Subject("container", container) if label is None else Subject("checkpoint", f"{container} {label}")
            for container, label in users[key]
        )
        words = ", ".join(
            f"container {container}" if label is None else f"checkpoint {label} of container {container}"
            for container, label in users[key]
        )
        subject = takes[0] if takes else Subject("file", path)
        words = words or "a snapshot that another program keeps here"
        yield Problem(
            "missing checkpoint", f"the files of {words} are gone: {path}", path=path, subject=subject, affects=takes
        )


def _records(mirror: Mirror) -> Iterator[Problem]:
    """Records that are not what the rows say. Those that are missing never came to the disk, and are written.

    What else lies there and can be no record is foreign.
    """
    strange = set(mirror.records.strange())
    for kind, name, what in mirror.differing():
        if what == MISSING:
            mirror.write([(kind, name)])
        else:
            path = mirror.records.path(kind, name)
            strange.discard(path)
            yield Problem("record", f"{path} {what}", path=str(path), subject=Subject("file", str(path)))
    for path in sorted(strange):
        yield _foreign(path)


def _layer_records(database: Database, layers: Layers, files: LayerFiles, diffs: Iterable[Diff]) -> Iterator[Problem]:
    """Records beside layers that are damaged, or say something else than the rows. Those that are missing are made."""
    with suppress(KernelError):  # the next `open` tries again
        layers.complete_records()
    for stored in diffs:
        path, what = files.record_of(stored.key), ""
        try:
            record = files.read_record(stored.key)
        except LayerstoreError as error:
            what = f"cannot be read: {error.message}"
        else:
            told = [] if record is None else differences(stored, record[0])
            what = f"is not what the database says: {', '.join(told)}" if told else ""
        if what and _has_row(database, stored):
            yield Problem("record", f"{path} {what}", path=str(path), subject=Subject("file", str(path)))


# --- what does not belong there


def _leftovers(data_root: Path, database: Database, staging: Path, files: LayerFiles) -> Iterator[Problem]:
    """What lies in the folders of the store without a row: left by the dead, or not the store's at all.

    What somebody was at who has died since the store was opened is no problem: the next `open` removes it.
    """
    strange = list(_strange(files, data_root))
    for path in _forsaken(lambda: _without_row(data_root, database, staging, files)):
        yield _garbage(path)
    for path in strange:
        if os.path.lexists(path):
            yield _foreign(path)


def _forsaken(find: Callable[[], list[Path]]) -> list[Path]:
    """What `find` finds, and nobody is removing.

    Rows go first and files after, and who removes something need not have made it: no name says whether he is alive. So
    what is found is looked at again, for as long as some of it goes.
    """
    found = find()
    deadline = time.monotonic() + PATIENCE
    while found and time.monotonic() < deadline:
        time.sleep(0.05)
        again = set(find())
        left = [path for path in found if path in again]
        if len(left) < len(found):
            found, deadline = left, time.monotonic() + PATIENCE
    return found


def _without_row(data_root: Path, database: Database, staging: Path, files: LayerFiles) -> list[Path]:
    """What this store has made, and nothing refers to, though nobody alive has made it."""
    left = garbage.find(database, staging, files)
    found = [_place_of(files, key) for key in left.home] + [files.beside / key for key in left.beside]
    boxes = data_root / "containers"
    there = [name for name in names_in(boxes) if _CONTAINER.fullmatch(name)]
    with database.read() as tx:
        known = {row.id for row in container_rows.every(tx)}
    return found + [boxes / name for name in there if name not in known and (boxes / name).exists()]


def _foreign(path: Path) -> Problem:
    return Problem("foreign", f"{path} is nothing of this store", path=str(path), subject=_about("", path))


def _garbage(path: Path) -> Problem:
    return Problem("garbage", f"{path} belongs to nothing", path=str(path), subject=Subject("file", str(path)))


def _place_of(files: LayerFiles, key: LayerKey) -> Path:
    """Where something of the home lies: a folder of that name, or, with some drivers, further in."""
    own = files.driver.home / key
    return own if os.path.lexists(own) else files.place_of(Layer(key))


def _strange(files: LayerFiles, data_root: Path) -> Iterator[Path]:
    """What has a name that this store gives to nothing, in the folders where it knows all names."""
    keys = list(files.driver.keys())
    for key in set(keys) - set(garbage.own_keys(keys)):
        yield _place_of(files, key)
    for name in names_in(files.beside):
        if not garbage.own_keys([name.partition(".")[0]]):
            yield files.beside / name
    kept = data_root / "blobs" / "sha256"
    for name in names_in(kept):
        if not _BLOB.fullmatch(name) or is_no_file(kept / name):
            yield kept / name
    boxes = data_root / "containers"
    for name in names_in(boxes):
        if not _CONTAINER.fullmatch(name):
            yield boxes / name


# --- one diff


@frozen
class _Look:
    """How one diff is looked at."""

    database: Database
    layers: Layers
    files: LayerFiles
    rate: Rate
    progress: Progress | None

    def at(self, stored: Diff, *, content: bool) -> Iterator[Problem]:
        """What is wrong with it."""
        return self._told(stored, lambda: self._damages(stored, content=content), is_all=content)

    def at_inherited(self, stored: Diff, *, content: bool) -> Iterator[Problem]:
        """The same of what a layer holds of its parents, for one with which nothing else is wrong."""
        return self._told(stored, lambda: self._inherited(stored, content=content), is_all=False)

    def _told(self, stored: Diff, find: Callable[[], list[Damage]], *, is_all: bool) -> Iterator[Problem]:
        """`is_all`: where nothing is found, nothing is wrong."""
        subject = Subject("layer", stored.diff_id)
        try:
            damages = find()
        except (KernelError, DriverFailed) as error:
            # Disk or driver may fail, or the process lack something: a problem, but unpacking anew may not mend it.
            if _has_row(self.database, stored):
                what = error.message.removeprefix(f"layer {stored.diff_id}: ")
                text = f"{stored.diff_id}: {what}"
                yield Problem("damaged layer", text, stored.diff_id, error.path, subject)
            return
        if not _has_row(self.database, stored):
            return
        if bool(damages) != stored.damaged and (damages or is_all):
            self.layers.mark_damaged(stored.key, damaged=bool(damages))
        for damage in damages[:_SHOWN]:
            kind = "missing layer" if not self.files.has(Layer(stored.key)) else "damaged layer"
            where = f"{damage.path}: " if damage.path else ""
            text = f"{stored.diff_id}: {where}{damage.what}"
            yield Problem(kind, text, stored.diff_id, damage.path or None, subject)
        if len(damages) > _SHOWN:
            more = f"{stored.diff_id}: and {len(damages) - _SHOWN} more"
            yield Problem("damaged layer", more, stored.diff_id, subject=subject)

    def _damages(self, stored: Diff, *, content: bool) -> list[Damage]:
        """The DiffID is the proof of the content; which file it is that differs is looked for only when it fails."""
        if content and self.files.lacks(stored):  # what is there of it; nobody waits for the rest
            return list(self.files.damages_arrived(stored, self._reader(stored, self.files.fetched(stored))))
        damages = list(self.files.damages(stored, Level.ATTRIBUTES, lambda data: self.rate(len(data))))
        if damages:
            return damages
        if content:
            try:
                self.files.give_out(stored, self._reader(stored, stored.size))
            except Damaged as error:
                self.rate(stored.size)
                return list(self.files.damages(stored, Level.CONTENT)) or [Damage("", error.message)]
        return []

    def _reader(self, stored: Diff, size: int) -> Callable[[memoryview], None]:
        done = 0

        def read(data: memoryview) -> None:
            nonlocal done
            done += len(data)
            if self.progress is not None:
                self.progress(short(stored.diff_id), min(done, size), size)  # what is read beside it is not told
            self.rate(len(data))

        return read

    def _inherited(self, stored: Diff, *, content: bool) -> list[Damage]:
        """What it has otherwise than its parent, though its tar says nothing of it."""
        try:
            with self.database.read() as tx:
                own = layer_rows.find_diff(tx, stored.key)
                below = layer_rows.parents_of_diff(tx, stored.key)
        except NotFound:
            return []
        if own.damaged or any(diff.damaged for diff in below):
            return []  # that is told, and what stands on it is made anew with it
        try:
            damages = list(self.files.inherited_damages(stored, [Layer(diff.key) for diff in below], content=content))
        except Damaged:
            return []  # its skeleton, which is told, though where nothing can be written it is not noted
        if content:
            self.rate(sum(diff.size for diff in below))
        return damages


def _has_row(database: Database, stored: Diff) -> bool:
    with database.read() as tx:
        return layer_rows.has_row(tx, stored.key)
