"""What the figures say about which driver to take for what. Pure.

Each topic gathers the workloads that answer one question. At each of its figures every driver is held against the best
of them, and the geometric mean of these factors is the driver's place: 1.0 is the best at everything, 2.0 takes twice
as long on the whole. Only figures that all of them have count, so nobody gains by failing at something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from layerstore.bench.figures import geometric_mean
from layerstore.bench.results import Figure, Key, Results
from layerstore.bench.workloads import WORKLOADS
from layerstore.values import frozen

__all__ = ["TOPICS", "Place", "Topic", "Verdict", "verdicts"]

_ALIKE: Final = 1.1
"""Up to so far from the best nobody should choose by it."""


@frozen
class Topic:
    """A question that a user has."""

    name: str
    title: str
    what: str


TOPICS: Final[Sequence[Topic]] = (
    Topic("containers", "Many short-lived containers", "starting and ending them, alone and 16 at once"),
    Topic("writing", "Changing files that come from the image", "first writes, changes of mode"),
    Topic("building", "Building images step by step", "finding and committing changes"),
    Topic("reading", "Reading from containers", "look-ups in deep images, large folders, large files"),
    Topic("images", "Moving images in and out", "load, save, remove"),
    Topic("space", "Little disk space", "images, containers and what is written in them"),
)


@frozen
class Place:
    """How one driver does at one topic: by which factor it is behind the best, on the whole."""

    subject: str
    factor: float


@frozen
class Verdict:
    """The drivers at one topic, the best first. `counted`: of how many figures; `lacking`: who failed at what."""

    topic: Topic
    places: tuple[Place, ...]
    counted: int
    lacking: tuple[str, ...] = ()

    @property
    def best(self) -> tuple[str, ...]:
        """Those that nobody is clearly better than."""
        least = self.places[0].factor
        return tuple(place.subject for place in self.places if place.factor <= least * _ALIKE)


def verdicts(results: Results) -> list[Verdict]:
    """One for each topic that has figures. None if fewer than two drivers took part."""
    drivers = [subject.name for subject in results.drivers]
    if len(drivers) < 2:
        return []
    topics = {workload.name: workload.topic for workload in WORKLOADS}
    found = []
    for topic in TOPICS:
        if topic.name == "space":
            verdict = _verdict(topic, results, results.measured(), drivers, _space)
        else:
            keys = [key for key in results.measured() if topics.get(key[0]) == topic.name]
            verdict = _verdict(topic, results, keys, drivers, lambda figure: figure.summary.median)
        if verdict is not None:
            found.append(verdict)
    return found


def _space(figure: Figure) -> float | None:
    # What is left after a removal is a matter of time, and no use of space.
    if figure.bytes is None or figure.workload == "remove":
        return None
    return max(figure.bytes, 4096.0)


def _verdict(
    topic: Topic,
    results: Results,
    keys: Sequence[Key],
    drivers: Sequence[str],
    measure: Callable[[Figure], float | None],
) -> Verdict | None:
    factors: dict[str, list[float]] = {driver: [] for driver in drivers}
    lacking: dict[str, None] = {}
    counted = 0
    for key in keys:
        values = _values(results.at(key), drivers, measure)
        if not values:
            continue
        if len(values) < len(drivers):
            for driver in drivers:
                if driver not in values:
                    lacking[driver] = None
            continue
        counted += 1
        best = max(min(values.values()), 1e-9)
        for driver, value in values.items():
            factors[driver].append(max(value, 1e-9) / best)
    if not counted:
        return None
    places = [Place(driver, geometric_mean(factors[driver])) for driver in drivers]
    return Verdict(topic, tuple(sorted(places, key=lambda place: place.factor)), counted, tuple(lacking))


def _values(
    figures: Mapping[str, Figure], drivers: Sequence[str], measure: Callable[[Figure], float | None]
) -> dict[str, float]:
    found = {}
    for driver in drivers:
        if driver in figures:
            value = measure(figures[driver])
            if value is not None:
                found[driver] = value
    return found
