"""containerd's filters: `kind==committed,labels."containerd.io/gc.root"`; a comma means and, several filters mean or.

The grammar is that of containerd's package `filters`; what there is to ask for is what it has for snapshots: `name`,
`parent`, `kind` and `labels.X`. Pure: texts in, a question to a snapshot out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from layerstore.faces.containerd.errors import Code, Refused
from layerstore.faces.containerd.rows import Row

__all__ = ["question"]

Question = Callable[[Row], bool]
_Test = Callable[[str | None], bool]
"""A question to the value of a field, which is None if there is none."""

_FIELD: Final = re.compile(r"""\s*(?:(?P<bare>\w+)|"(?P<quoted>(?:[^"\\\n]|\\.)*)")""", re.ASCII)
_OPERATOR: Final = re.compile(r"\s*([=!~]+)")
_VALUE: Final = re.compile(
    r"""\s*(?:(?P<quote>["/|])(?P<quoted>(?:(?!(?P=quote))[^\\\n]|\\.)*)(?P=quote)|(?P<bare>[^\s,."/|][^\s,]*))"""
)
_COMMA: Final = re.compile(r"\s*,")
_DOT: Final = re.compile(r"\s*\.")
_END: Final = re.compile(r"\s*\Z")
_ESCAPE: Final = re.compile(r"\\(?:([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SIGNS: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def question(filters: Iterable[str]) -> Question:
    """Does a snapshot match any of these? Without filters, each does. Raises `Refused` for what is no filter."""
    alternatives = [_parsed(text) for text in filters]
    if not alternatives:
        return lambda row: True
    return lambda row: any(all(one(row) for one in selectors) for selectors in alternatives)


def _parsed(text: str) -> Sequence[Question]:
    """The selectors of one filter, all of which have to match."""
    if not text:
        return ()
    selectors, at = [], 0
    while True:
        one, at = _selector(text, at)
        selectors.append(one)
        if _END.match(text, at):
            return selectors
        at = _required(_COMMA, text, at, "a comma").end()


def _selector(text: str, at: int) -> tuple[Question, int]:
    path, at = _path(text, at)
    if _END.match(text, at) or _COMMA.match(text, at):
        return lambda row: _value_of(row, path) is not None, at
    found = _required(_OPERATOR, text, at, "an operator (==, !=, ~=)")
    value = _required(_VALUE, text, found.end(), "a value")
    quote, operator = value["quote"], found[1]
    if quote in ("/", "|") and operator != "~=":
        raise _wrong(text, value.start(), "a value in double quotes")
    wanted = value["bare"] if quote is None else _unquoted(value["quoted"], quote, text)
    test = _test(operator, wanted, text)
    return lambda row: test(_value_of(row, path)), value.end()


def _test(operator: str, wanted: str, text: str) -> _Test:
    match operator:
        case "==":
            return lambda value: value == wanted
        case "!=":
            return lambda value: (value or "") != wanted
        case "~=":
            pattern = _pattern(wanted, text)
            return lambda value: pattern.search(value or "") is not None
        case _:
            raise Refused(Code.INVALID_ARGUMENT, f"filter {text!r}: {operator!r} is no operator: use ==, != or ~=")


def _pattern(wanted: str, text: str) -> re.Pattern[str]:
    try:
        if "[:" in wanted:  # which Python takes for letters
            raise ValueError("classes of POSIX are not known here")
        return re.compile(wanted)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise Refused(Code.INVALID_ARGUMENT, f"filter {text!r}: {wanted!r} is no pattern: {error}") from None


def _path(text: str, at: int) -> tuple[tuple[str, ...], int]:
    names = []
    while True:
        found = _required(_FIELD, text, at, "the name of a field")
        names.append(_unquoted(found["quoted"], '"', text) if found["bare"] is None else found["bare"])
        dot = _DOT.match(text, found.end())
        if dot is None:
            return tuple(names), found.end()
        at = dot.end()


def _value_of(row: Row, path: tuple[str, ...]) -> str | None:
    match path[0]:
        case "name":
            return row.key
        case "parent":
            return row.parent
        case "kind":
            return row.kind.name.lower()
        case "labels":
            return row.labels.get(".".join(path[1:]))
        case _:
            return None


def _unquoted(inner: str, quote: str, text: str) -> str:
    def sign(found: re.Match[str]) -> str:
        octal, byte, short, long, other = found.groups()
        if other is not None:
            if other != quote and other not in _SIGNS:
                raise Refused(Code.INVALID_ARGUMENT, f"filter {text!r}: \\{other} means nothing in quotes")
            return _SIGNS.get(other, other)
        number = int(octal, 8) if octal else int(byte or short or long, 16)
        if number > 0x10FFFF:
            raise Refused(Code.INVALID_ARGUMENT, f"filter {text!r}: there is no character {number:x}")
        return chr(number)

    return _ESCAPE.sub(sign, inner)


def _required(pattern: re.Pattern[str], text: str, at: int, what: str) -> re.Match[str]:
    found = pattern.match(text, at)
    if found is None:
        raise _wrong(text, at, what)
    return found


def _wrong(text: str, at: int, what: str) -> Refused:
    return Refused(Code.INVALID_ARGUMENT, f"filter {text!r}: {what} is missing at character {at + 1}")
