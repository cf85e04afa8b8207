"""`.dockerignore`: which files of a context are no part of it, as moby's patternmatcher means them.

The last pattern that matches counts; one that matches a folder matches all in it; `!` takes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.build.errors import BuildError

if TYPE_CHECKING:
    from e2b_dockerfile_utils import PatternMatcher

__all__ = ["Ignore"]


class Ignore:
    """The patterns of one file, `name`, whose text is `text`. Raises `BuildError` for one that cannot be."""

    def __init__(self, text: str, name: str = ".dockerignore") -> None:
        self.name = name
        self.patterns = patterns_of(text)
        try:
            self._matcher = matcher_of(self.patterns)
        except ValueError as error:
            raise BuildError(f"{name}: {error}", remedy="Write a pattern as in .gitignore: *.log, !kept.log.") from None

    def leaves_out(self, path: str) -> bool:
        """Is this path left out, whatever is above it?"""
        return self._matcher.matches(path)

    def may_keep_below(self, path: str) -> bool:
        """Of a folder that is left out: could a pattern take back something in it?"""
        return self._matcher.may_match_under(path)


def patterns_of(text: str) -> list[str]:
    """The patterns of a `.dockerignore`: its lines, without comments, blank ones and a mark of the byte order."""
    lines = (line.strip() for line in text.removeprefix("\ufeff").splitlines() if not line.startswith("#"))
    return [line for line in lines if line]


def matcher_of(patterns: list[str]) -> PatternMatcher:
    """What matches them. Raises `ValueError` for a pattern that cannot be."""
    from e2b_dockerfile_utils import PatternMatcher

    return PatternMatcher(patterns)
