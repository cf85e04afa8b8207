"""What each line of an image costs, and what could be saved: measured in the layers, not guessed from a Dockerfile."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TypeVar

from layerstore import ChainID, Image, Store
from layerstore.looking.caches import Leftover, leftover_of
from layerstore.looking.costs import Fate, Payload, payloads
from layerstore.looking.lines import Line
from layerstore.looking.stacks import stack_of, times_of
from layerstore.values import frozen

__all__ = ["Advice", "Cost", "Finding", "Subject", "advise", "places_of"]

_MOST_PLACES = 3
_MOST = 0.9

T = TypeVar("T")


class Subject(Enum):
    """What a finding is about."""

    HIDDEN = "hidden"
    """A later line removes or overwrites what an earlier one made."""
    REWRITTEN = "rewritten"
    """A later line has the same bytes once more, for other attributes."""
    LEFTOVER = "leftover"
    """What a program needs for its next run alone."""
    ADJACENT = "adjacent"
    """RUN after RUN that could be one."""
    UNUSED = "unused"
    """Files of the build's context that no line uses."""


@frozen
class Cost:
    """What one line of the history costs."""

    line: Line
    bytes: int
    """Of all files in its layer."""
    files: int
    lost: int
    """Bytes of these that a later layer hides, or has once more."""
    seconds: float | None
    """That it took, if it was built here and the build is remembered."""


@frozen
class Finding:
    """One thing that could be otherwise, and what that would save."""

    subject: Subject
    lines: tuple[Line, ...]
    """The line that makes it, and that which undoes it; all that are adjacent; none where none uses it."""
    bytes: int
    """What would be saved. What adjacent lines would save is in other findings, too; what is unused is in no layer."""
    files: int
    places: tuple[str, ...]
    """Where most of it is."""
    text: str
    remedy: str
    layers: int = 0
    """How many layers fewer there would be."""


@frozen
class Advice:
    """What an image costs, and what could be saved, the most first."""

    of: str
    costs: tuple[Cost, ...]
    findings: tuple[Finding, ...]
    bytes: int
    """Of all files in all layers."""
    shown: int
    """Of those that show in the end: what one layer in the place of all would have."""
    saved: int
    """What all findings save in the layers, each byte counted once."""
    payloads: tuple[Payload, ...]
    """Every file of every layer, and what becomes of it."""


def advise(store: Store, of: Image | str, *, least: int = 4096) -> Advice:
    """What each line of an image costs, and what could be saved. Findings of less than `least` bytes are left out.

    Only the lists of names in the layers are read. Raises `NotFound`, `Damaged`.
    """
    image = store.image(of) if isinstance(of, str) else of
    stack = stack_of(store, image)
    found = payloads(stack.entries(level) for level in range(len(stack.layers)))
    title = image.tags[0] if image.tags else image.short_id
    return judged(title, stack.lines, found, times_of(store, image.chain_ids), least=least)


def judged(
    title: str, lines: Sequence[Line], found: Sequence[Payload], times: Mapping[ChainID, float], *, least: int = 4096
) -> Advice:
    """The same, of what was read of an image. Pure."""
    layers = [line for line in lines if line.level is not None]
    lost = [one for one in found if one.fate is not Fate.SHOWN]
    left = [one for one in found if one.fate is Fate.SHOWN and leftover_of(one.path) is not None]
    findings = [*_hidden(layers, lost), *_leftovers(layers, left), *_adjacent(lines, lost)]
    findings = [one for one in findings if one.bytes >= least or (one.layers and one.bytes > 0) or one.layers > 1]
    return Advice(
        title,
        tuple(_costs(lines, found, times)),
        tuple(sorted(findings, key=lambda one: (-one.bytes, one.layers, one.lines[0].number))),
        sum(one.size for one in found),
        sum(one.size for one in found if one.fate is Fate.SHOWN),
        sum(one.size for one in (*lost, *left)),
        tuple(found),
    )


def _costs(lines: Iterable[Line], found: Iterable[Payload], times: Mapping[ChainID, float]) -> Iterator[Cost]:
    by_level = _grouped((one.level, one) for one in found)
    for line in lines:
        own = [] if line.level is None else by_level.get(line.level, [])
        yield Cost(
            line,
            sum(one.size for one in own),
            len(own),
            sum(one.size for one in own if one.fate is not Fate.SHOWN),
            None if line.chain_id is None else times.get(line.chain_id),
        )


# --- findings ---


def _hidden(layers: Sequence[Line], lost: Iterable[Payload]) -> Iterator[Finding]:
    groups = _grouped(((one.level, one.by, one.fate), one) for one in lost)
    for (level, by, fate), group in groups.items():
        assert by is not None  # it does not show
        maker, undoer = layers[level], layers[by]
        where = places_of(group)
        if fate is Fate.HIDDEN:
            text = "is removed or overwritten by a later line, and stays in the layer below"
            remedy = "Remove it in the line that makes it, or make it in a stage and COPY --from what is needed."
            if maker.base != undoer.base:
                remedy = f"It comes with {maker.base}: only another base is without it."
            yield _finding(Subject.HIDDEN, (maker, undoer), group, where, text, remedy)
        else:
            differs = Counter(word for one in group for word in one.differs)
            text = "is there once more, the same" + (f" but for {', '.join(differs)}" if differs else "")
            remedy = _remedy_for(differs, maker)
            if maker.base != undoer.base:
                remedy = f"It comes with {maker.base}: leave it as it is, or take another base."
            yield _finding(Subject.REWRITTEN, (maker, undoer), group, where, text, remedy)


def _remedy_for(differs: Mapping[str, int], maker: Line) -> str:
    if maker.instruction in ("COPY", "ADD"):
        flags = [flag for word, flag in (("owner", "--chown"), ("mode", "--chmod")) if word in differs]
        if flags:
            return f"{maker.instruction} {' '.join(flags)} makes it right at once."
    if differs:
        return "Change it in the line that makes it."
    return "Leave it out of the later line."


def _leftovers(layers: Sequence[Line], left: Iterable[Payload]) -> Iterator[Finding]:
    found = [(one, leftover_of(one.path)) for one in left]
    groups = _grouped(((one.level, kind), one) for one, kind in found if kind is not None)
    for (level, kind), group in groups.items():
        yield _leftover(layers[level], kind, group)


def _leftover(line: Line, kind: Leftover, group: Sequence[Payload]) -> Finding:
    mount = "; or RUN --mount=type=cache there" if kind.is_cache else ""
    remedy = f"{kind.remedy[:1].upper()}{kind.remedy[1:]}{mount}."
    return _finding(Subject.LEFTOVER, (line,), group, places_of(group), f"is left behind: {kind.title}", remedy)


def _adjacent(lines: Sequence[Line], lost: Iterable[Payload]) -> Iterator[Finding]:
    listed = list(lost)
    for run in _runs(lines):
        levels = {line.level for line in run}
        group = [one for one in listed if one.level in levels and one.by in levels]
        text = f"are {len(run)} RUN lines one after the other, and {len(run)} layers"
        remedy = "Put them into one RUN, with && or a heredoc."
        yield _finding(Subject.ADJACENT, run, group, places_of(group), text, remedy, layers=len(run) - 1)


def _runs(lines: Sequence[Line]) -> Iterator[tuple[Line, ...]]:
    """RUN lines that follow each other, of one image."""
    run: list[Line] = []
    for line in lines:
        if run and (line.instruction != "RUN" or line.level is None or line.base != run[0].base):
            if len(run) > 1:
                yield tuple(run)
            run = []
        if line.instruction == "RUN" and line.level is not None:
            run.append(line)
    if len(run) > 1:
        yield tuple(run)


def _finding(
    subject: Subject,
    lines: tuple[Line, ...],
    group: Sequence[Payload],
    places: tuple[str, ...],
    text: str,
    remedy: str,
    *,
    layers: int = 0,
) -> Finding:
    return Finding(subject, lines, sum(one.size for one in group), len(group), places, text, remedy, layers)


def places_of(group: Sequence[Payload]) -> tuple[str, ...]:
    """Where most of the bytes are: the deepest folder that has nearly all, or the largest things in the root."""
    folder = b""
    inside = list(group)
    while True:
        sizes: Counter[bytes] = Counter()
        for one in inside:
            rest = one.path[len(folder) + bool(folder) :]
            sizes[rest.partition(b"/")[0]] += one.size + 1  # files of no bytes are somewhere, too
        if not sizes:
            return ()
        name, most = sizes.most_common(1)[0]
        if most < _MOST * sum(sizes.values()):
            break
        deeper = folder + b"/" + name if folder else name
        inside = [one for one in inside if one.path.startswith(deeper + b"/")]
        folder = deeper
        if not inside:
            return (f"/{os.fsdecode(folder)}",)
    if folder:
        return (f"/{os.fsdecode(folder)}",)
    return tuple(f"/{os.fsdecode(name)}" for name, _ in sizes.most_common(_MOST_PLACES))


def _grouped(pairs: Iterable[tuple[T, Payload]]) -> dict[T, list[Payload]]:
    found: dict[T, list[Payload]] = defaultdict(list)
    for key, one in pairs:
        found[key].append(one)
    return found
