"""Variables filled in: `$NAME`, `${NAME:-default}` and BuildKit's other operators, by its lexer's port."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from layerstore.build.language.parser import ShellLex
from layerstore.values import frozen

__all__ = ["Expanded", "expand_content", "expand_text", "expand_word", "expand_words", "look", "look_content"]

_NAMES = re.compile(r"\$\{?(\w+)")
_PATTERN = re.compile(r"\$\{\w+[#%/]")
_LARGEST = 4 << 20
_MOST_STEPS = 10**9


@frozen
class Expanded:
    """A word after expansion, and the variables that it asked for: those that are set, and those that are not."""

    text: str
    matched: frozenset[str]
    unmatched: frozenset[str]


def expand_word(text: str, variables: Mapping[str, str], escape: str) -> str:
    """One word: variables filled in, quotes and escapes gone. Raises `ValueError` for what cannot be read."""
    _refuse_explosions(text, variables)
    return str(ShellLex(escape, env=variables, skip_unset_env=False).process_word(text))


def expand_words(text: str, variables: Mapping[str, str], escape: str) -> list[str]:
    """The same, and split at blanks that are not quoted, those within values too."""
    _refuse_explosions(text, variables)
    return list(ShellLex(escape, env=variables, skip_unset_env=False).process_words(text))


def expand_content(text: str, variables: Mapping[str, str]) -> str:
    """A heredoc: quotes are letters like others there, and what escapes is a backslash always."""
    _refuse_explosions(text, variables)
    return str(ShellLex("\\", skip_process_quotes=True, env=variables, skip_unset_env=False).process_word(text))


def expand_text(text: str, variables: Mapping[str, str], escape: str) -> str:
    """For people to read: quotes stay, and so do variables that are not set. What cannot be read stays as it is."""
    try:
        _refuse_explosions(text, variables)
        return str(ShellLex(escape, raw_quotes=True, env=variables, skip_unset_env=True).process_word(text))
    except ValueError:
        return text


def look(text: str, variables: Mapping[str, str], escape: str) -> Expanded:
    """As `expand_word`, and what it asked for."""
    asked = _Asked(variables)
    return asked.expanded(expand_word(text, asked, escape))


def look_content(text: str, variables: Mapping[str, str]) -> Expanded:
    """As `expand_content`, and what it asked for."""
    asked = _Asked(variables)
    return asked.expanded(expand_content(text, asked))


def _refuse_explosions(text: str, variables: Mapping[str, str]) -> None:
    """Raise `ValueError` for what would take all memory (values of values of values) or all time.

    Patterns become regular expressions that backtrack: of n letters and k stars, n to the power of k steps.
    """
    values = [variables[name] for name in _NAMES.findall(text) if name in variables]
    if sum(map(len, values)) > _LARGEST:
        raise ValueError(f"its variables have more than {_LARGEST >> 20} MiB")
    if _PATTERN.search(text):
        stars = text.count("*") + sum(value.count("*") for value in values)
        if max(map(len, values), default=0) ** stars > _MOST_STEPS:
            raise ValueError(f"too many * in a pattern for values as long as these: {text[:80]}")


class _Asked(Mapping[str, str]):
    """Variables that remember which of them somebody asked for."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._variables[name]

    def expanded(self, text: str) -> Expanded:
        """What came of it, with all names that were asked for until now."""
        known = frozenset(name for name in self.names if name in self._variables)
        return Expanded(text, known, frozenset(self.names) - known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)
