"""Which line of which Dockerfile each line of an image's history is: written down with the image that a build made.

History has no place for it, and a config that had it would be another image on each machine. So the store remembers,
for as long as it has the image.
"""

from __future__ import annotations

from collections.abc import Iterator

from layerstore import ImageID, ReadOnlyStore, Store
from layerstore.build.errors import Place
from layerstore.build.graph import Plan, PlannedStage
from layerstore.build.language import OnBuild
from layerstore.build.lines import rows
from layerstore.build.lines.rows import Written

__all__ = ["Written", "inherit", "places_of", "recall", "remember"]


def places_of(plan: Plan) -> list[Place]:
    """Where a target's own lines of history are in its Dockerfile, the oldest first: one each, as history has them."""
    chain: list[PlannedStage] = []
    stage: PlannedStage | None = plan[plan.target]
    while stage is not None:
        chain.append(stage)
        stage = None if stage.base.stage is None else plan[stage.base.stage]
    return [place for stage in reversed(chain) for place in _places(stage)]


def _places(planned: PlannedStage) -> Iterator[Place]:
    for instruction in planned.stage.instructions:
        if not isinstance(instruction, OnBuild):  # of which history says nothing
            yield instruction.place


def remember(store: Store, image: ImageID, file: str, places: list[Place]) -> None:
    """Write down that an image was made by these lines of `file`, which people know by that name."""
    _write(store, image, Written(file, tuple((place.line, place.end) for place in places)))


def inherit(store: Store, image: ImageID, of: ImageID) -> None:
    """Write down of an image what is known of the one that it was made of, and whose history it has."""
    written = recall(store, of)
    if written is not None:
        _write(store, image, written)


def _write(store: Store, image: ImageID, written: Written) -> None:
    with store.tables(rows.TABLES).write(durable=False) as tx:
        rows.put(tx, image, written)


def recall(store: Store, image: ImageID) -> Written | None:
    """What made an image, if a build of this store did."""
    try:
        with store.tables(rows.TABLES).read() as tx:
            return rows.get(tx, image)
    except ReadOnlyStore:
        return None  # nothing was ever built in it
