"""Patterns of names as Go's path.Match reads them. Pure.

`*` and `?` stop at `/`; `[a-z]` and `[^a]` are letters; a backslash before a letter means the letter itself.
"""

from __future__ import annotations

import re
from functools import lru_cache

from layerstore.values import frozen

__all__ = ["Brackets", "brackets_at", "escaped", "expression"]


@frozen
class Brackets:
    """One letter of some ranges (first and last), or one of no such range; `end` is behind the closing bracket."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool
    end: int


def brackets_at(pattern: str, at: int) -> Brackets:
    """The brackets that were opened before `at`. Raises `ValueError` for some that cannot be."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", at)):
        first, at = _letter(pattern, at)
        last = first
        if pattern.startswith("-", at):
            last, at = _letter(pattern, at + 1)
        if last < first:
            raise ValueError(f"the range {first}-{last} is the wrong way round")
        ranges.append((first, last))
    return Brackets(tuple(ranges), negated, at + 1)


def _letter(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise ValueError("brackets that are not as they should be")
    at += pattern[at] == "\\"
    if at + 1 >= len(pattern):
        raise ValueError("brackets that are not closed")
    return pattern[at], at + 1


@lru_cache
def expression(pattern: str) -> re.Pattern[str]:
    """What a pattern matches all of. Raises `ValueError`, with the pattern, for one that cannot be."""
    try:
        return re.compile(_expression(pattern), re.DOTALL)
    except ValueError as error:
        raise ValueError(f"{pattern!r}: {error}") from None


def escaped(text: str) -> str:
    """A pattern that matches this text alone."""
    return re.sub(r"([*?\[\\])", r"\\\1", text)


def _expression(pattern: str) -> str:
    out, at = "", 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            out += "[^/]*"
        elif letter == "?":
            out += "[^/]"
        elif letter == "[":
            found = brackets_at(pattern, at)
            at = found.end
            ranges = "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in found.ranges)
            out += f"(?!/)[{'^' if found.negated else ''}{ranges}]"
        elif letter == "\\":
            if at >= len(pattern):
                raise ValueError("a backslash at the end")
            out += re.escape(pattern[at])
            at += 1
        else:
            out += re.escape(letter)
    return out
