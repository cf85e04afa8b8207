"""`.dockerignore`: which files of a context are no part of it, as moby's patternmatcher means them.

The last pattern that matches counts; one that matches a folder matches all in it; `!` takes back. Here its language is
read; the rules that come of it are applied while a tree is walked (`layerstore.gathering`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from layerstore import patterns
from layerstore.build.errors import BuildError
from layerstore.gathering import Element, Rule, Rules, Sort

__all__ = ["Ignore", "rule_of", "rules_of"]


class Ignore:
    """The patterns of one file, `name`, whose text is `text`. Raises `BuildError` for one that cannot be.

    `size` are the bytes of the text.
    """

    def __init__(self, text: str, name: str = ".dockerignore") -> None:
        self.name = name
        self.size = len(text.encode(errors="surrogateescape"))
        self.patterns = patterns_of(text)
        try:
            self.rules = rules_of(self.patterns)
        except ValueError as error:
            raise BuildError(f"{name}: {error}", remedy="Write a pattern as `*.log` or `!kept.log`.") from None

    def leaves_out(self, path: str) -> bool:
        """Is this path left out, with or without those above it?"""
        return self.rules.leaves_out(path)

    def may_keep_below(self, path: str) -> bool:
        """Of a folder: could a pattern take back something in it?"""
        return self.rules.may_keep_below(path)


def patterns_of(text: str) -> list[str]:
    """The patterns of a `.dockerignore`: its lines, without comments, blank ones and a mark of the byte order."""
    lines = (line.strip() for line in text.removeprefix("\ufeff").split("\n") if not line.startswith("#"))
    return [line for line in lines if line]


def rules_of(lines: list[str]) -> Rules:
    """What these patterns mean together. Raises `ValueError` for one that cannot be."""
    return Rules([rule_of(line) for line in lines])


def rule_of(pattern: str) -> Rule:
    """What one pattern means. Raises `ValueError`, with the pattern."""
    takes_back = pattern.startswith("!")
    text = pattern[1:].strip() if takes_back else pattern
    if not text:
        raise ValueError(f"{pattern!r}: there is nothing to take back")
    clean = posixpath.normpath(text)
    clean = "/" + clean.lstrip("/") if clean.startswith("/") else clean  # POSIX keeps two slashes
    if len(clean) > 1:
        clean = clean.removeprefix("/")
    try:
        return Rule(tuple(_elements(clean)), takes_back)
    except ValueError as error:
        raise ValueError(f"{pattern!r}: {error}") from None


def _elements(pattern: str) -> Iterator[Element]:
    """As moby makes a regular expression of it, or none.

    It compares texts where only `**` at one end is special: then `**name` means all that ends so, and letters may be
    ends of lines; a regular expression goes by lines.
    """
    regex = _needs_regex(pattern)
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if pattern.startswith("**", at - 1):
            first = at == 1
            at += 1
            slash = pattern.startswith("/", at)
            at += slash
            if at >= len(pattern) or (first and not slash and not regex):
                yield Element(Sort.ALL, in_line=regex)
            else:
                yield Element(Sort.DEEP, in_line=regex)
        elif letter == "*":
            yield Element(Sort.STAR)
        elif letter == "?":
            yield Element(Sort.ANY)
        elif letter == "[":
            found = patterns.brackets_at(pattern, at)
            at = found.end
            yield Element(Sort.CLASS, ranges=found.ranges, negated=found.negated)
        elif letter == "\\":
            if at >= len(pattern):
                raise ValueError("a backslash at the end")
            yield Element(Sort.LETTER, pattern[at])
            at += 1
        else:
            yield Element(Sort.LETTER, letter)


def _needs_regex(pattern: str) -> bool:
    if any(letter in pattern for letter in "?[]\\"):
        return True
    inner = pattern.removeprefix("**")
    first = inner != pattern
    rest = inner if first else inner.removesuffix("**")
    return "*" in rest
