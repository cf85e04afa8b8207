"""The results of one run, as values and as JSON. Pure.

`docs/bench.schema.json` describes the JSON. A change that would make older files unreadable raises `VERSION`; a new key
does not. What is read comes from a file that anybody may have edited: it is checked, and the error says what is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import asdict, field

from layerstore.bench.figures import Summary, summary
from layerstore.errors import ConfigError, remedy_for
from layerstore.values import frozen

__all__ = ["BARE", "VERSION", "Failure", "Figure", "Key", "Refused", "Results", "Subject", "parse", "read", "to_json"]

VERSION: Final = 1
KIND: Final = "layerstore-bench"
BARE: Final = "bare"
"""The name of the bare filesystem among the subjects."""

Key = tuple[str, str, str]
"""What was measured: workload, variant, cache."""


@frozen
class Subject:
    """One that took part: a driver with its options, or the bare filesystem. `status`: the driver's lines of `info`."""

    name: str
    driver: str | None
    options: tuple[str, ...] = ()
    status: tuple[tuple[str, str], ...] = ()


@frozen
class Refused:
    """A driver that cannot work there."""

    name: str
    reason: str
    remedy: str = ""


@frozen
class Figure:
    """All timings of one subject at one thing: the seconds of each round that counts, and the bytes taken on the disk.

    `count`: how many equal things each run did; `seconds` are for one of them. `space` may be empty.
    """

    workload: str
    variant: str
    cache: str
    subject: str
    count: int
    seconds: tuple[float, ...]
    space: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        """What was measured."""
        return (self.workload, self.variant, self.cache)

    @property
    def summary(self) -> Summary:
        """Of the seconds."""
        return summary(self.seconds)

    @property
    def bytes(self) -> float | None:
        """The median of the space."""
        return summary(self.space).median if self.space else None


@frozen
class Failure:
    """A subject that could not do a workload, and why."""

    workload: str
    variant: str
    cache: str
    subject: str
    reason: str


@frozen
class Results:
    """One run of the bench. The maps hold facts for people, by names for people."""

    started: str
    seconds: float
    machine: Mapping[str, str]
    filesystem: Mapping[str, str]
    settings: Mapping[str, Any]
    subjects: tuple[Subject, ...]
    refused: tuple[Refused, ...]
    figures: tuple[Figure, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    order: tuple[tuple[int, str, str, tuple[str, ...]], ...] = field(default=(), repr=False)
    """In which order they took their turns: round (0: the one that does not count), workload, cache, subjects."""

    @property
    def drivers(self) -> tuple[Subject, ...]:
        """Those that are drivers."""
        return tuple(subject for subject in self.subjects if subject.driver is not None)

    def measured(self) -> list[Key]:
        """All that was measured, in the order of measuring."""
        return list(dict.fromkeys(figure.key for figure in self.figures))

    def at(self, key: Key) -> dict[str, Figure]:
        """The figures of one thing, by subject, in the subjects' order."""
        found = {figure.subject: figure for figure in self.figures if figure.key == key}
        return {subject.name: found[subject.name] for subject in self.subjects if subject.name in found}

    def ratio(self, figure: Figure) -> float | None:
        """The median against that of the bare filesystem."""
        bare = self.at(figure.key).get(BARE)
        if bare is None or figure.subject == BARE or bare.summary.median <= 0:
            return None
        return figure.summary.median / bare.summary.median


def to_json(results: Results) -> str:
    """The results as a JSON object, figures one a line."""
    content = {"version": VERSION, "kind": KIND, **asdict(results)}
    lines = []
    for name, value in content.items():
        if isinstance(value, list | tuple) and value:
            inner = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            text = f"[\n  {inner}\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}"


def read(file: Path) -> Results:
    """The results in a file. Raises `ConfigError`."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        remedy = remedy_for(error.errno)
        raise ConfigError(f"{file}: {error.strerror}", remedy=remedy, path=file, errno=error.errno) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text in UTF-8", path=file) from None
    return parse(text, str(file))


def parse(text: str, origin: str = "the results") -> Results:
    """The results in a text. Raises `ConfigError`."""
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{origin}: not JSON: {error}", path=origin) from None
    try:
        return _Reader(origin).results(content)
    except _Wrong as wrong:
        raise ConfigError(
            f"{origin}: {wrong}", remedy="Give a file that `layerstore bench --format json` wrote.", path=origin
        ) from None


class _Wrong(Exception):
    """What is wrong with a file, and where in it."""


class _Reader:
    """Takes values out of parsed JSON, and says where one is not what it should be."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def results(self, content: object) -> Results:
        top = self.mapping(content, "it")
        if top.get("kind") != KIND:
            raise _Wrong("these are no results of `layerstore bench`")
        if top.get("version") != VERSION:
            raise _Wrong(f"version {top.get('version')!r} of the format; this layerstore reads version {VERSION}")
        return Results(
            started=self.text(top, "started"),
            seconds=self.number(top.get("seconds"), "seconds"),
            machine=self.facts(top, "machine"),
            filesystem=self.facts(top, "filesystem"),
            settings=self.mapping(top.get("settings"), "settings"),
            subjects=tuple(self.subject(*item) for item in self.items(top, "subjects")),
            refused=tuple(self.refused(*item) for item in self.items(top, "refused")),
            figures=tuple(self.figure(*item) for item in self.items(top, "figures")),
            failures=tuple(self.failure(*item) for item in self.items(top, "failures")),
            notes=tuple(self.strings(top.get("notes", []), "notes")),
            order=tuple(self.turn(*item) for item in self.items(top, "order")),
        )

    def subject(self, value: object, place: str) -> Subject:
        item = self.mapping(value, place)
        driver = item.get("driver")
        if driver is not None and not isinstance(driver, str):
            raise _Wrong(f"{place}.driver is no text")
        status = [self.strings(pair, f"{place}.status") for pair in self.sequence(item.get("status", []), place)]
        if any(len(pair) != 2 for pair in status):
            raise _Wrong(f"{place}.status is no list of pairs")
        return Subject(
            name=self.text(item, "name"),
            driver=driver,
            options=tuple(self.strings(item.get("options", []), f"{place}.options")),
            status=tuple((pair[0], pair[1]) for pair in status),
        )

    def refused(self, value: object, place: str) -> Refused:
        item = self.mapping(value, place)
        return Refused(self.text(item, "name"), self.text(item, "reason"), str(item.get("remedy") or ""))

    def figure(self, value: object, place: str) -> Figure:
        item = self.mapping(value, place)
        seconds = [self.number(one, f"{place}.seconds") for one in self.sequence(item.get("seconds"), place)]
        space = [int(self.number(one, f"{place}.space")) for one in self.sequence(item.get("space", []), place)]
        if not seconds:
            raise _Wrong(f"{place}.seconds is empty")
        if any(one < 0 for one in seconds):
            raise _Wrong(f"{place}.seconds has a negative number")
        workload, variant, cache, subject = (self.text(item, n) for n in ("workload", "variant", "cache", "subject"))
        return Figure(
            workload=workload,
            variant=variant,
            cache=cache,
            subject=subject,
            count=int(self.number(item.get("count"), f"{place}.count")),
            seconds=tuple(seconds),
            space=tuple(space),
        )

    def failure(self, value: object, place: str) -> Failure:
        item = self.mapping(value, place)
        return Failure(*(self.text(item, name) for name in ("workload", "variant", "cache", "subject", "reason")))

    def turn(self, value: object, place: str) -> tuple[int, str, str, tuple[str, ...]]:
        item = self.sequence(value, place)
        if len(item) != 4:
            raise _Wrong(f"{place} does not have four parts")
        number, workload, cache, names = item
        return int(self.number(number, place)), str(workload), str(cache), tuple(self.strings(names, place))

    def items(self, top: Mapping[str, Any], name: str) -> Iterator[tuple[object, str]]:
        for index, value in enumerate(self.sequence(top.get(name, []), name)):
            yield value, f"{name}[{index}]"

    def facts(self, top: Mapping[str, Any], name: str) -> dict[str, str]:
        return {key: str(value) for key, value in self.mapping(top.get(name), name).items()}

    def mapping(self, value: object, place: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise _Wrong(f"{place} is no JSON object")
        return value

    def sequence(self, value: object, place: str) -> Sequence[Any]:
        if not isinstance(value, list):
            raise _Wrong(f"{place} is no list, or has none where one belongs")
        return value

    def strings(self, value: object, place: str) -> Sequence[str]:
        found = self.sequence(value, place)
        if not all(isinstance(one, str) for one in found):
            raise _Wrong(f"{place} is no list of texts")
        return found

    def text(self, item: Mapping[str, Any], name: str) -> str:
        value = item.get(name)
        if not isinstance(value, str):
            raise _Wrong(f"{name} is missing, or no text")
        return value

    def number(self, value: object, place: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _Wrong(f"{place} is missing, or no number")
        return value
