"""The report: one HTML page that needs nothing else, for somebody who has read nothing else.

`page.html` is the page, with its style; here it gets its contents. Every text is escaped there: names of images,
folders and drivers are the user's, and what a driver says of itself is its author's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from layerstore.bench import plots
from layerstore.bench.advice import Verdict, verdicts
from layerstore.bench.comparison import CHANCE, LEAST_SHIFT, Comparison, Difference
from layerstore.bench.comparison import Verdict as Outcome
from layerstore.bench.results import BARE, Key, Results
from layerstore.bench.units import ratio_in_words, seconds_in_words, size_in_words
from layerstore.bench.workloads import WORKLOADS, Workload
from layerstore.values import frozen

__all__ = ["page", "row_title"]

_CACHES: Final[Mapping[str, str]] = {"warm": "warm cache", "cold": "cold cache"}
_MODELS: Final[Mapping[str, Workload]] = {workload.name: workload for workload in WORKLOADS}


@frozen
class _Cell:
    """One subject at one thing, in words."""

    subject: str
    colour: int
    time: str
    ratio: str
    best: bool
    least: str
    quartiles: str
    space: str
    missing: str = ""
    """Why there is no figure."""


@frozen
class _Row:
    """One thing that was measured, with all subjects."""

    title: str
    cache: str
    cells: tuple[_Cell, ...]
    has_space: bool
    shown: bool
    """Is it the first of its title? Warm and cold stand below each other."""


@frozen
class _Section:
    """One workload."""

    workload: Workload
    count: int
    rows: tuple[_Row, ...]
    times: Markup
    space: Markup | None


@frozen
class _Change:
    """One change against the earlier run, in words."""

    what: str
    subject: str
    old: str
    new: str
    factor: str
    chance: str
    verdict: str
    kind: str


def page(results: Results, comparison: Comparison | None = None) -> str:
    """The report as HTML."""
    text = resources.files("layerstore.bench").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["prose"] = _prose
    environment.filters["times"] = ratio_in_words
    colours = _colours(results)
    return environment.from_string(text).render(
        results=results,
        title=_title(results),
        date=_date(results.started),
        subjects=[(subject.name, colours[subject.name]) for subject in results.subjects],
        sections=list(_sections(results, colours)),
        verdicts=[_advised(verdict) for verdict in verdicts(results)],
        bare=BARE,
        minutes=f"{results.seconds / 60:.0f} minutes" if results.seconds >= 90 else f"{results.seconds:.0f} seconds",
        image=_image(results),
        sizes={"large": size_in_words(float(results.settings.get("large_file", 0)))},
        comparison=comparison,
        changes=[] if comparison is None else [_change(one) for one in comparison.real],
        others=0 if comparison is None else sum(c.verdict is Outcome.NOISE for c in comparison.changes),
        too_few=0 if comparison is None else sum(c.verdict is Outcome.TOO_FEW for c in comparison.changes),
        rule={"chance": f"{CHANCE:.0%}", "shift": f"{LEAST_SHIFT:.0%}"},
    )


def row_title(key: Key) -> str:
    """What a figure is of, without its cache."""
    model = _MODELS.get(key[0])
    title = model.title if model else key[0]
    variant = (model.variants.get(key[1], key[1]) if model else key[1]) or ""
    return f"{title}: {variant}" if variant else title


# ---- the parts


def _sections(results: Results, colours: Mapping[str, int]) -> Iterator[_Section]:
    failures = {
        (failure.workload, failure.variant, failure.cache, failure.subject): failure.reason
        for failure in results.failures
    }
    seen = {*(key[0] for key in results.measured()), *(failure.workload for failure in results.failures)}
    for workload in WORKLOADS:
        if workload.name not in seen:
            continue
        keys = [key for key in results.measured() if key[0] == workload.name]
        # By variant first, so that warm and cold stand together.
        variants = list(dict.fromkeys(key[1] for key in keys))
        keys.sort(key=lambda key: variants.index(key[1]))
        rows = [
            _row(results, key, workload, colours, failures, shown=index == 0 or keys[index - 1][1] != key[1])
            for index, key in enumerate(keys)
        ]
        yield _Section(
            workload=workload,
            count=max((figure.count for key in keys for figure in results.at(key).values()), default=1),
            rows=tuple(rows),
            times=_drawn(results, keys, workload, colours),
            space=_space(results, keys, workload, colours),
        )


def _row(
    results: Results,
    key: Key,
    workload: Workload,
    colours: Mapping[str, int],
    failures: Mapping[tuple[str, str, str, str], str],
    *,
    shown: bool,
) -> _Row:
    found = results.at(key)
    drivers = {name: figure.summary for name, figure in found.items() if name != BARE}
    best = min(drivers, key=lambda name: drivers[name].median, default=None)
    cells = []
    for subject in results.subjects:
        figure = found.get(subject.name)
        if figure is None:
            why = (
                failures.get((*key, subject.name)) or failures.get((key[0], "", key[2], subject.name)) or "not measured"
            )
            cells.append(_Cell(subject.name, colours[subject.name], "–", "", False, "–", "–", "–", missing=why))
            continue
        summary, ratio, size = figure.summary, results.ratio(figure), figure.bytes
        is_best = (
            best is not None
            and subject.name in drivers
            and (subject.name == best or summary.overlaps(drivers[best]))
            and len(drivers) > 1
        )
        cells.append(
            _Cell(
                subject=subject.name,
                colour=colours[subject.name],
                time=seconds_in_words(summary.median),
                ratio="" if ratio is None else ratio_in_words(ratio),
                best=is_best,
                least=seconds_in_words(summary.least),
                quartiles=f"{seconds_in_words(summary.low)} – {seconds_in_words(summary.high)}",
                space="" if size is None else size_in_words(size),
            )
        )
    return _Row(
        title=workload.variants.get(key[1], key[1]),
        cache=_CACHES.get(key[2], key[2]),
        cells=tuple(cells),
        has_space=any(figure.space for figure in found.values()),
        shown=shown,
    )


def _drawn(results: Results, keys: Sequence[Key], workload: Workload, colours: Mapping[str, int]) -> Markup:
    groups = []
    for key in keys:
        bars = []
        for name, figure in results.at(key).items():
            summary = figure.summary
            bars.append(plots.Bar(name, colours[name], summary.least, summary.low, summary.median, summary.high))
        groups.append(plots.Group(_group_title(key, workload), tuple(bars)))
    if not groups:
        return Markup("")
    return Markup(plots.times(groups, description=f"{workload.title}: time"))


def _space(results: Results, keys: Sequence[Key], workload: Workload, colours: Mapping[str, int]) -> Markup | None:
    """Space does not depend on the cache: one group a variant."""
    groups: dict[str, plots.Group] = {}
    for key in keys:
        bars = []
        for name, figure in results.at(key).items():
            if figure.space:
                values = sorted(figure.space)
                middle = figure.bytes or 0.0
                bars.append(plots.Bar(name, colours[name], values[0], values[0], middle, values[-1]))
        if bars and key[1] not in groups:
            groups[key[1]] = plots.Group(workload.space, tuple(bars))
    if not groups:
        return None
    drawn = plots.toll(list(groups.values()), description=f"{workload.title}: space")
    return Markup(drawn)


def _group_title(key: Key, workload: Workload) -> str:
    parts = [workload.variants.get(key[1], key[1])]
    if len(workload.caches) > 1:
        parts.append(_CACHES.get(key[2], key[2]))
    return ", ".join(part for part in parts if part) or workload.title


def _advised(verdict: Verdict) -> dict[str, object]:
    best = verdict.best
    least = verdict.places[0].factor
    others = [
        (place.subject, ratio_in_words(place.factor / least)) for place in verdict.places if place.subject not in best
    ]
    unit = "of the space" if verdict.topic.name == "space" else "of the time"
    return {"topic": verdict.topic, "best": best, "others": others, "unit": unit, "lacking": verdict.lacking,
            "counted": verdict.counted}  # fmt: skip


def _change(one: Difference) -> _Change:
    cache = f" ({_CACHES.get(one.key[2], one.key[2])})"
    faster = one.verdict is Outcome.FASTER
    factor = 1 / one.factor if faster else one.factor
    return _Change(
        what=row_title(one.key) + cache,
        subject=one.subject,
        old=seconds_in_words(one.old.median),
        new=seconds_in_words(one.new.median),
        factor=ratio_in_words(factor),
        chance=f"{one.chance:.1g}",
        verdict=one.verdict.value,
        kind="good" if faster else "bad",
    )


def _colours(results: Results) -> dict[str, int]:
    """The bare filesystem is grey; the drivers get the others in turn."""
    found = {BARE: 0}
    for subject in results.drivers:
        found[subject.name] = 1 + (len(found) - 1) % (plots.COLOURS - 1)
    return found


def _title(results: Results) -> str:
    return f"Storage drivers on {results.filesystem.get('type', 'this disk')}"


def _date(started: str) -> str:
    return started[:16].replace("T", " ")


def _image(results: Results) -> str:
    settings = results.settings
    what = "made for the run" if settings.get("image") == "made" else f"from {settings.get('image')}"
    if "image_layers" not in settings:
        return what
    return f"{what}: {settings['image_layers']} layers, {size_in_words(float(settings['image_bytes']))}"


def _prose(text: str) -> Markup:
    """Escaped, and with what stands between backquotes as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
