"""Where layerstore is slower than a peer, or takes more room, and why. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from benchmarks.peers.rows import DISK, DURABLE, FIGURES, RETURNS, START
from layerstore.bench.units import ratio_in_words, seconds_in_words, size_in_words

OURS: Final = "layerstore"
IN_PROCESS: Final = "layerstore in Python"
"""The same work by the library, in a process that is there: no peer, but it tells where the time of a command goes."""

Figures = Mapping[tuple[str, str, str, str], Sequence[float]]

_DURABLE: Final = "It returns when all that it wrote is on disk; the others do not wait for all of it."
_RECORDED: Final = "What it writes down of a container is a durable transaction of its database."
REASONS: Final[Mapping[str, str]] = {
    START: "The command is a Python program, which imports its modules at each start; the others are compiled.",
    "load": _DURABLE,
    "load, OCI": _DURABLE,
    "pull": _DURABLE,
    "save": "It keeps files and not tars, and puts each tar together anew; containerd copies the blobs that it keeps.",
    "push": "It keeps files and not blobs, so layers are compressed anew; containerd sends the blobs that it keeps.",
    "create": _RECORDED,
    "create and mount": _RECORDED,
    "commit": _DURABLE,
    "remove": "That it is gone is a durable transaction of its database, which comes before the first file goes.",
}
"""What is known of each kind of work beside the start of the command, which is measured."""
ROOM: Final = (
    "Beside the files it keeps the headers of each tar, out of which the tar is put together again byte by byte,"
    " and a database."
)


@frozen
class Better:
    """A peer whose median is better than ours."""

    peer: str
    theirs: float
    ours: float
    overlaps: bool
    """Whether a round of the peer was worse than one of ours: then chance may have parted them."""

    @property
    def ratio(self) -> float:
        """Ours as a multiple of the peer's; without end where the peer's is nothing."""
        return self.ours / self.theirs if self.theirs > 0 else float("inf")


@frozen
class Behind:
    """One kind of work in which there are better peers: by each of its figures, the best one first."""

    work: str
    image: str
    figures: Mapping[str, tuple[Better, ...]]
    why: str

    @property
    def ratio(self) -> float:
        """The largest multiple of a peer's that ours is."""
        return max(peers[0].ratio for peers in self.figures.values())


def behind(figures: Figures) -> list[Behind]:
    """All kinds of work in which a peer is better, by medians: those first in which ours is the largest multiple."""
    found: dict[tuple[str, str], dict[str, tuple[Better, ...]]] = {}
    for (work, figure, image, title), ours in figures.items():
        if title == OURS and (peers := _better(figures, work, figure, image, ours)):
            found.setdefault((work, image), {})[figure] = peers
    made = [Behind(work, image, by, _why(figures, work, image, by)) for (work, image), by in found.items()]
    return sorted(made, key=lambda one: -one.ratio)


def _better(figures: Figures, work: str, figure: str, image: str, ours: Sequence[float]) -> tuple[Better, ...]:
    peers = [
        Better(peer, statistics.median(theirs), statistics.median(ours), max(theirs) >= min(ours))
        for peer, theirs in _peers(figures, work, figure, image)
        if statistics.median(theirs) < statistics.median(ours)
    ]
    return tuple(sorted(peers, key=lambda one: one.theirs))


def _peers(figures: Figures, work: str, figure: str, image: str) -> Iterator[tuple[str, Sequence[float]]]:
    for (its_work, its_figure, its_image, title), amounts in figures.items():
        if (its_work, its_figure, its_image) == (work, figure, image) and title not in (OURS, IN_PROCESS):
            yield title, amounts


def _why(figures: Figures, work: str, image: str, by: Mapping[str, tuple[Better, ...]]) -> str:
    """What is measured of the reason, and what is known."""
    said = []
    if any(figure != DISK for figure in by):
        inside = figures.get((work, RETURNS, image, IN_PROCESS))
        if inside:
            median = seconds_in_words(statistics.median(inside))
            said.append(f"By the library, where no command has to start, it takes {median}.")
        starts = [figures.get((START, RETURNS, image, title)) for title in (OURS, best_of(by).peer)]
        if work != START and all(starts):
            ours, theirs = (seconds_in_words(statistics.median(start)) for start in starts if start)
            said.append(f"A command that only lists images takes {ours}, one of {best_of(by).peer} {theirs}.")
        if (reason := REASONS.get(work)) and (RETURNS in by or reason not in (_DURABLE, _RECORDED)):
            said.append(reason)
        if not said:
            said.append("Not known: to be looked at.")
    if RETURNS in by and DURABLE in figures_of(figures, work, image) and DURABLE not in by:
        said.append("Until on disk nobody is better.")
    if DISK in by:
        said.append(ROOM)
    return " ".join(filter(None, said))


def best_of(by: Mapping[str, tuple[Better, ...]]) -> Better:
    """The best peer by the first figure that is a time."""
    return next(peers[0] for figure, peers in by.items() if figure != DISK)


def figures_of(figures: Figures, work: str, image: str) -> set[str]:
    """The figures that there are of a kind of work."""
    return {figure for its_work, figure, its_image, _ in figures if (its_work, its_image) == (work, image)}


def in_words(one: Behind) -> str:
    """A line of the page."""
    parts = []
    for figure, peers in one.figures.items():
        words = size_in_words if figure == DISK else seconds_in_words
        texts = []
        for peer in peers:
            ratio = f"ours is {ratio_in_words(peer.ratio)}" if peer.theirs > 0 else "ours is more"
            texts.append(f"{peer.peer} {words(peer.theirs)} ({ratio}{', rounds overlap' if peer.overlaps else ''})")
        parts.append(f"{figure} {words(peers[0].ours)}; {', '.join(texts)}")
    return f"{one.work}, {one.image}: {'. '.join(parts)}. {one.why}"


def lines(figures: Figures, image: str, works: Sequence[str]) -> list[tuple[str, str]]:
    """The (kind of work, figure) that an image has figures of, in order."""
    there = {(work, figure) for work, figure, its_image, _ in figures if its_image == image}
    return [(work, figure) for work in works for figure in FIGURES if (work, figure) in there]


def cell(figures: Figures, work: str, figure: str, image: str, title: str) -> str:
    """A median, and for a peer what multiple of ours it is; empty where there is none."""
    amounts = figures.get((work, figure, image, title))
    if not amounts:
        return ""
    median = statistics.median(amounts)
    text = size_in_words(median) if figure == DISK else seconds_in_words(median)
    ours = figures.get((work, figure, image, OURS))
    if title == OURS or not ours or statistics.median(ours) <= 0:
        return text
    return f"{text} ({ratio_in_words(median / statistics.median(ours))})"


def share(figures: Figures, work: str, figure: str, image: str) -> str:
    """Our median in parts of the best peer's."""
    ours = figures.get((work, figure, image, OURS))
    peers = [statistics.median(amounts) for _, amounts in _peers(figures, work, figure, image)]
    if not ours or not peers or min(peers) <= 0:
        return ""
    return f"{statistics.median(ours) / min(peers):.2f}"
