"""`--filter NAME=VALUE`, with docker's names and meanings. Pure: predicates over what a list shows.

Values of one name are alternatives (of `label`: all have to hold), and every name has to hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from layerstore import patterns
from layerstore.cli import units

F = TypeVar("F", bound=Callable[..., Any])

OF_CONTAINERS = (
    "ancestor", "before", "exited", "health", "id", "label", "name", "network", "owner", "publish", "since", "status",
    "until", "volume",
)  # fmt: skip
"""The filters that lists of containers know."""


def filter_option(*names: str, known: Sequence[str], verb: str) -> Callable[[F], F]:
    """The option `--filter` of a command that knows these filters. Its value is a name and a value."""

    def parsed(text: str) -> tuple[str, str]:
        # As docker: label!=x is the filter label! with the value x.
        name, equals, value = text.partition("=")
        name = name.strip().lower()
        if not equals:
            raise click.BadParameter(f"{text!r} is no filter: it has to be NAME=VALUE")
        if name not in known:
            raise click.BadParameter(f"there is no filter {name!r}; there are: {', '.join(known)}")
        return name, value.strip()

    return click.option(
        *names,
        "given",
        multiple=True,
        type=parsed,
        metavar="NAME=VALUE",
        help=f"{verb} only what fits: {', '.join(known)}",
    )


def grouped(filters: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of each filter by its name."""
    values: dict[str, list[str]] = {}
    for name, value in filters:
        values.setdefault(name, []).append(value)
    return values


def truth(name: str, value: str) -> bool:
    """The meaning of a filter that is on or off."""
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise click.UsageError(f"filter {name} is true or false, not {value!r}")


def time(name: str, value: str) -> datetime:
    """The meaning of a filter that is a time, or a span before now."""
    then = units.until(value)
    if then is None:
        raise click.UsageError(
            f"filter {name} is a time (2026-01-31T12:00:00Z) or a span before now (24h), not {value!r}"
        )
    return then


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether each of `wanted`, `KEY` or `KEY=VALUE`, is among the labels."""
    for label in wanted:
        key, equals, value = label.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def matches_reference(pattern: str, repository: str, tag: str) -> bool:
    """Whether an image's name fits `pattern`, which may leave the tag out, or begin with docker.io."""
    for prefix in ("docker.io/library/", "docker.io/", "library/"):
        if pattern.startswith(prefix) and not repository.startswith(prefix):
            pattern = pattern.removeprefix(prefix)
            break
    try:
        expression = patterns.expression(pattern)
    except ValueError as error:
        raise click.UsageError(f"not a pattern: {error}") from None
    return expression.fullmatch(f"{repository}:{tag}") is not None or expression.fullmatch(repository) is not None


def matches_name(expression: str, name: str) -> bool:
    """Whether a container's name, with docker's slash before it or without, fits a regular expression somewhere."""
    try:
        wanted = re.compile(expression)
    except re.error:
        raise click.UsageError(f"filter name is a regular expression, not {expression!r}") from None
    return wanted.search(name) is not None or wanted.search(f"/{name}") is not None


def any_of(values: Iterable[str], fits: Callable[[str], bool]) -> bool:
    """Whether one of a filter's values fits; true when there is none to fit."""
    wanted = list(values)
    return not wanted or any(fits(value) for value in wanted)
