"""What cannot be repaired goes, by word: first it is said what goes, then that is removed, the dependents first.

Whoever stands on a damaged layer goes with it: images, their containers with what was written in them, checkpoints, and
what builds remember. Nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from layerstore.check import Problem, Subject
from layerstore.containers import rows as container_rows
from layerstore.database import Transaction
from layerstore.digest import ChainID, Digest, parse
from layerstore.errors import LayerstoreError, NotFound
from layerstore.images import rows as image_rows
from layerstore.layers import rows as layer_rows
from layerstore.layers.lasting import rows as lasting
from layerstore.segments import rows as segment_rows
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.containers import Containers
    from layerstore.images import Images
    from layerstore.layers import Layers
    from layerstore.volumes import Volumes

__all__ = ["Doomed", "doomed", "drop"]


@frozen
class Doomed:
    """Something that goes. `name` is what it is called where it is removed: an ID, a digest, a name."""

    subject: Subject
    name: str


@frozen
class Holdings:
    """Where things are removed from: the parts of a store."""

    layers: Layers
    images: Images
    containers: Containers
    volumes: Volumes | None
    blobs: Blobs


def doomed(problems: Iterable[Problem], held: Holdings) -> list[Doomed]:
    """What goes with these problems, in the order in which it is removed. Nothing is done."""
    given = [problem for problem in problems if problem.subject is not None]
    named = {problem.subject for problem in given if problem.subject is not None}
    named |= {subject for problem in given for subject in problem.affects}
    with held.layers.database.read() as tx:
        bad = _chains(layer_rows.all_kept(tx), {problem.layer for problem in given if problem.layer}, tx)
        shown = image_rows.all_shown(tx)
        images, boxes = image_rows.every(tx), container_rows.every(tx)
        points = segment_rows.every_checkpoint(tx)
        leases = lasting.all_lasting(tx)
    names = {row.id: row.name for row in boxes}

    going = {row.id for row in images if row.chain_id in bad or Subject("image", shown[row.id]) in named}
    lost = {
        row.id
        for row in boxes
        if row.chain_id in bad or row.image_id in going or Subject("container", row.name) in named
    }
    kept = [point for point in points if point.container not in lost]
    return [
        *(Doomed(Subject("container", row.name), row.id) for row in boxes if row.id in lost),
        *(
            Doomed(Subject("checkpoint", f"{names[point.container]} {point.label}"), f"{point.container} {point.label}")
            for point in kept
            if point.chain_id in bad
            or point.image_id in going
            or Subject("checkpoint", f"{names[point.container]} {point.label}") in named
        ),
        *(Doomed(Subject("image", shown[row.id]), row.id) for row in images if row.id in going),
        *(Doomed(Subject("lease", f"{owner} {name}"), f"{owner} {name}") for owner, name, at in leases if at in bad),
        *(Doomed(one, one.name) for one in sorted(named, key=str) if one.kind in ("volume", "blob")),
    ]


def _chains(kept: dict[ChainID, layer_rows.Kept], names: set[str | None], tx: Transaction) -> set[ChainID]:
    """The layers that are noted as damaged, among those named, and all that stand on them."""
    keys = {diff.key for diff in layer_rows.all_diffs(tx) if diff.damaged and diff.diff_id in names}
    bad = {chain for chain, one in kept.items() if one.key in keys}
    while more := {chain for chain, one in kept.items() if one.parent in bad and chain not in bad}:
        bad |= more
    return bad


def drop(things: Sequence[Doomed], held: Holdings) -> Iterator[tuple[Doomed, LayerstoreError | None]]:
    """Remove them, in this order; each with why it could not be."""
    ways: dict[str, Callable[[str], object]] = {
        "container": lambda name: held.containers.get(name).remove(force=True),
        "checkpoint": lambda name: _remove_checkpoint(held, *name.split(" ", 1)),
        "lease": lambda name: held.layers.end_lasting_leases(*_owned(name)),
        "volume": lambda name: None if held.volumes is None else held.volumes.remove(name),
        "blob": lambda name: held.blobs.delete(Digest(parse(name))),
    }
    images = [one for one in things if one.subject.kind == "image"]
    is_begun = False
    for one in things:
        if one.subject.kind == "image":
            if not is_begun:
                is_begun = True
                yield from _images(images, held)
            continue
        yield one, _tried(ways[one.subject.kind], one.name)
    held.layers.prune()


def _images(images: Sequence[Doomed], held: Holdings) -> Iterator[tuple[Doomed, LayerstoreError | None]]:
    """Those that others were built on come after these."""
    with held.layers.database.write() as tx:
        image_rows.orphan(tx, [one.name for one in images])
    for one in images:
        yield one, _tried(lambda name: held.images.remove(name, force=True), one.name)


def _tried(deed: Callable[[str], object], name: str) -> LayerstoreError | None:
    try:
        deed(name)
    except NotFound:
        return None  # it went with another
    except LayerstoreError as error:
        return error
    return None


def _remove_checkpoint(held: Holdings, container: str, label: str) -> None:
    held.containers.remove_checkpoint(held.containers.checkpoint_of(container, label))


def _owned(name: str) -> tuple[str, list[str]]:
    owner, _, own = name.partition(" ")
    return owner, [own]
