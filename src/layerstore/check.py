"""Is everything there, whole, and nothing else? What is not is told, a problem each, and noted in the rows.

Nothing is repaired here: a layer that is noted as damaged is unpacked anew by the next load of an image that has it,
and garbage is removed by the next `open` that finds its owner dead. Others may use the store meanwhile; what they
remove while it is looked at is no problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from layerstore.blobs import Blobs
from layerstore.database import Database
from layerstore.driver import Layer
from layerstore.errors import Damaged, DriverFailed, KernelError
from layerstore.layers import Diff, Layers, garbage
from layerstore.layers import rows as layer_rows
from layerstore.layers.files import Damage, LayerFiles, Level
from layerstore.segments import rows as segment_rows
from layerstore.values import frozen
from layerstore.volumes import Volumes

_SHOWN = 10

Told = Callable[[str, int, int], None]
"""Called with a layer's DiffID, the number of layers looked at so far, and how many there are."""


@frozen
class Problem:
    """One thing that is wrong. `str` says it in a line.

    `kind`: database, missing layer, damaged layer, missing container, missing checkpoint, missing blob,
    damaged blob, missing volume, unknown volume (a folder among them that is none, which nobody removes), garbage.
    """

    kind: str
    text: str
    layer: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def problems(
    database: Database,
    staging: Path,
    layers: Layers,
    files: LayerFiles,
    blobs: Blobs,
    containers: Callable[[], Sequence[tuple[str, Layer]]],
    volumes: Volumes | None,
    *,
    content: bool = False,
    progress: Told | None = None,
) -> Iterator[Problem]:
    """Look at everything. `content`: read every byte of every layer too.

    `containers` lists those that must have files, by name, with their writable layers.
    """
    found = database.problems()
    yield from (Problem("database", text) for text in found)
    if found:
        return
    with database.read() as tx:
        diffs = layer_rows.all_diffs(tx)
    look = _Look(database, layers, files)
    for number, stored in enumerate(diffs, 1):
        yield from look.at(stored, content=content)
        if progress is not None:
            progress(stored.diff_id, number, len(diffs))
    for name, layer in containers():
        if not files.has(layer) and (name, layer) in containers():
            path = str(files.place_of(layer))
            yield Problem("missing container", f"the files of container {name} are gone: {path}", path=path)
    yield from _segments(database, files)
    for kind, text, where in blobs.problems(content=content):
        yield Problem(kind, text, path=str(where))
    for kind, text, where in () if volumes is None else volumes.problems():
        yield Problem(kind, text, path=str(where))
    left = garbage.find(database, staging, files)
    for folder, keys in ((files.driver.home, left.home), (files.beside, left.beside)):
        for key in keys:
            yield Problem("garbage", f"{folder / key} belongs to nothing", path=str(folder / key))


def _segments(database: Database, files: LayerFiles) -> Iterator[Problem]:
    """Segments without files, and what stands on them. Nobody has hashed what is in them, so more is not known."""
    with database.read() as tx:
        gone = [key for key in sorted(segment_rows.keys(tx)) if not files.has(Layer(key))]
        gone = [key for key in gone if key in segment_rows.keys(tx)]
        users = {key: segment_rows.users_of(tx, key) for key in gone}
    for key in gone:
        path = str(files.place_of(Layer(key)))
        yield Problem("missing checkpoint", f"the files of {', '.join(users[key])} are gone: {path}", path=path)


@frozen
class _Look:
    """How one diff is looked at."""

    database: Database
    layers: Layers
    files: LayerFiles

    def at(self, stored: Diff, *, content: bool) -> Iterator[Problem]:
        """What is wrong with it."""
        try:
            damages = self._damages(stored, content=content)
        except (KernelError, DriverFailed) as error:
            # Disk or driver may fail, or the process lack something: a problem, but unpacking anew may not mend it.
            if self._has_row(stored):
                what = error.message.removeprefix(f"layer {stored.diff_id}: ")
                yield Problem("damaged layer", f"{stored.diff_id}: {what}", stored.diff_id, error.path)
            return
        if not self._has_row(stored):
            return
        if bool(damages) != stored.damaged and (damages or content):
            self.layers.mark_damaged(stored.key, damaged=bool(damages))
        for damage in damages[:_SHOWN]:
            kind = "missing layer" if not self.files.has(Layer(stored.key)) else "damaged layer"
            where = f"{damage.path}: " if damage.path else ""
            text = f"{stored.diff_id}: {where}{damage.what}"
            yield Problem(kind, text, layer=stored.diff_id, path=damage.path or None)
        if len(damages) > _SHOWN:
            more = f"{stored.diff_id}: and {len(damages) - _SHOWN} more"
            yield Problem("damaged layer", more, layer=stored.diff_id)

    def _damages(self, stored: Diff, *, content: bool) -> list[Damage]:
        """The DiffID is the proof of the content; which file it is that differs is looked for only when it fails."""
        damages = list(self.files.damages(stored, Level.ATTRIBUTES))
        if damages or not content:
            return damages
        try:
            self.files.give_out(stored, lambda _: None)
        except Damaged as error:
            return list(self.files.damages(stored, Level.CONTENT)) or [Damage("", error.message)]
        return []

    def _has_row(self, stored: Diff) -> bool:
        with self.database.read() as tx:
            return layer_rows.has_row(tx, stored.key)
