"""Is everything there, whole, and nothing else? What is not is told, a problem each, and noted in the rows.

Nothing is repaired here: a layer that is noted as damaged is unpacked anew by the next load of an image that has it,
and garbage is removed by the next `open` that finds its owner dead. Others may use the store meanwhile; what they
remove while it is looked at is no problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from layerstore.driver import LayerKey
from layerstore.errors import Damaged, KernelError
from layerstore.layers import Diff, Layers, garbage
from layerstore.layers import rows as layer_rows
from layerstore.tar import Damage, Level

_SHOWN = 10

Told = Callable[[str, int, int], None]
"""Called with a layer's DiffID, the number of layers looked at so far, and how many there are."""


@frozen
class Problem:
    """One thing that is wrong. `str` says it in a line.

    `kind`: database, missing layer, damaged layer, missing container, garbage.
    """

    kind: str
    text: str
    layer: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def problems(
    layers: Layers,
    containers: Callable[[], Sequence[tuple[str, LayerKey]]],
    *,
    content: bool = False,
    progress: Told | None = None,
) -> Iterator[Problem]:
    """Look at everything. `content`: read every byte of every layer too.

    `containers` lists those that must have files, by name and key.
    """
    found = layers.database.problems()
    yield from (Problem("database", text) for text in found)
    if found:
        return
    with layers.database.read() as tx:
        diffs = layer_rows.all_diffs(tx)
    for number, stored in enumerate(diffs, 1):
        yield from _of_diff(layers, stored, content=content)
        if progress is not None:
            progress(stored.diff_id, number, len(diffs))
    for name, key in containers():
        if not layers.folders.tree_exists(key) and (name, key) in containers():
            path = str(layers.driver.tree(key))
            yield Problem("missing container", f"the files of container {name} are gone: {path}", path=path)
    left = garbage.find(layers)
    for key in left.home:
        yield Problem("garbage", f"{layers.driver.home / key} belongs to nothing", path=str(layers.driver.home / key))
    for key in left.skeletons:
        yield Problem("garbage", f"{layers.skeletons / key} belongs to nothing", path=str(layers.skeletons / key))


def _of_diff(layers: Layers, stored: Diff, *, content: bool) -> Iterator[Problem]:
    try:
        damages = _damages(layers, stored, content=content)
    except KernelError as error:
        # The disk may fail, or the process lack something: a problem, but none that unpacking anew is known to mend.
        if _has_row(layers, stored):
            what = error.message.removeprefix(f"layer {stored.diff_id}: ")
            yield Problem("damaged layer", f"{stored.diff_id}: {what}", stored.diff_id, error.path)
        return
    if not _has_row(layers, stored):
        return
    if bool(damages) != stored.damaged and (damages or content):
        layers.mark_damaged(stored.key, damaged=bool(damages))
    for damage in damages[:_SHOWN]:
        kind = "missing layer" if not layers.folders.tree_exists(stored.key) else "damaged layer"
        where = f"{damage.path}: " if damage.path else ""
        yield Problem(kind, f"{stored.diff_id}: {where}{damage.what}", layer=stored.diff_id, path=damage.path or None)
    if len(damages) > _SHOWN:
        more = f"{stored.diff_id}: and {len(damages) - _SHOWN} more"
        yield Problem("damaged layer", more, layer=stored.diff_id)


def _damages(layers: Layers, stored: Diff, *, content: bool) -> list[Damage]:
    """The DiffID is the proof of the content; which file it is that differs is looked for only when it fails."""
    damages = list(layers.folders.damages(stored, Level.ATTRIBUTES))
    if damages or not content:
        return damages
    try:
        layers.folders.give_out(stored, lambda _: None)
    except Damaged as error:
        return list(layers.folders.damages(stored, Level.CONTENT)) or [Damage("", error.message)]
    return []


def _has_row(layers: Layers, stored: Diff) -> bool:
    with layers.database.read() as tx:
        return layer_rows.has_row(tx, stored.key)
