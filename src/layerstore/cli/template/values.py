"""The data that templates are about, and how a value is shown: as Go prints it, and as JSON.

Data are strings, numbers, booleans, None, sequences and mappings. A mapping is strict, as a struct of Go: to ask for a
name that it does not have is an error. An `OpenMap` is not, as a map of Go. A callable in a mapping is a method.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

NO_VALUE: Final = "<no value>"


class OpenMap(dict[str, object]):
    """A map whose keys are data (labels, say): one that is not there has no value, and that is no error."""


class Record(Mapping[str, object]):
    """A strict mapping that computes its values when they are asked for."""

    @abstractmethod
    def in_json(self) -> Iterable[str]:
        """The names that its JSON has: not those of methods, nor of what is costly."""


@frozen
class Nil:
    """An empty list or map that docker's JSON has as null and its templates as `[]` or `map[]`."""

    shown: str


NIL_LIST: Final = Nil("[]")
NIL_MAP: Final = Nil("map[]")


def is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def shown(value: object, *, top: bool = True) -> str:
    """`value` as Go's `%v` has it; None at the top is `<no value>`, as text/template prints it."""
    match value:
        case None:
            return NO_VALUE if top else "<nil>"
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return f"{int(value)}" if value.is_integer() and abs(value) < 1e21 else repr(value)
        case Nil():
            return value.shown
        case Mapping():
            return f"map[{' '.join(f'{key}:{shown(value[key], top=False)}' for key in sorted(value))}]"
        case Sequence():
            return f"[{' '.join(shown(element, top=False) for element in value)}]"
        case _:
            return str(value)


def is_true(value: object) -> bool:
    """Go's truth: not false, zero, nil or empty."""
    return not isinstance(value, Nil) and bool(value)


def _plain(value: object) -> object:
    match value:
        case Nil():
            return None
        case Record():
            return {name: _plain(value[name]) for name in value.in_json()}
        case Mapping():
            return {key: _plain(element) for key, element in value.items() if not callable(element)}
        case str() | bytes():
            return value
        case Sequence():
            return [_plain(element) for element in value]
        case _:
            return value


def as_json(value: object, *, indent: int | None = None) -> str:
    """`value` as JSON. Names of files that are not UTF-8 become escapes, so that the text is always valid."""
    plain = _plain(value)
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(plain, ensure_ascii=False, indent=indent, separators=separators)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(plain, indent=indent, separators=separators)
    return text
