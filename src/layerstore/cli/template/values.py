"""The data that templates are about, and how a value is shown: as Go prints it, and as JSON.

Data are strings, numbers, booleans, None, sequences and mappings. A mapping is strict, as a struct of Go: to ask for a
name that it does not have is an error. An `OpenMap` is not, as a map of Go. A callable in a mapping is a method. A
`Shape` says which fields an object has by its type, so that one that it lacks has Go's zero value.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from layerstore.values import frozen

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
    """An empty list or map, or a pointer to nothing: null in docker's JSON, and `shown` in its templates."""

    shown: str


NIL_LIST: Final = Nil("[]")
NIL_MAP: Final = Nil("map[]")
NIL: Final = Nil("<nil>")


class Duration(int):
    """Nanoseconds, which Go shows as `1m30s`."""

    def __str__(self) -> str:
        rest = abs(self)
        if rest < 1_000_000_000:
            for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
                if rest >= size:
                    return f"{'-' * (self < 0)}{_decimal(rest, size)}{unit}"
            return "0s"
        minutes, left = divmod(rest, 60_000_000_000)
        hours, minutes = divmod(minutes, 60)
        text = f"{_decimal(left, 1_000_000_000)}s"
        if hours or minutes:
            text = f"{minutes}m{text}"
        return f"{'-' * (self < 0)}{f'{hours}h' if hours else ''}{text}"


def _decimal(number: int, unit: int) -> str:
    whole, part = divmod(number, unit)
    digits = str(part + unit)[1:].rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


@frozen
class Shape:
    """A struct type of Go: its name, and what each field is.

    A field is its zero value ("", 0, False, `NIL_LIST`, `NIL_MAP`, `NIL`, `Duration(0)`), a `Shape`, or a list of one
    shape for a list of structs. `pointer`: where there is none, there is nothing; else a struct of zero values.
    """

    name: str
    fields: Mapping[str, object]
    pointer: bool = False


class Struct(Record):
    """An object with all fields of its shape. Its JSON is what was given, null if that is nothing.

    `also`: more of its fields, which its JSON leaves out.
    """

    def __init__(
        self, shape: Shape, given: Mapping[str, object] | None, *, also: Mapping[str, object] | None = None
    ) -> None:
        self.shape = shape
        self.given = given
        own = {**(given or {}), **(also or {})}
        self._values = {name: shaped(own.get(name), field) for name, field in shape.fields.items()}
        self._values |= {name: value for name, value in own.items() if name not in self._values}

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        # What is not there is not true, although its fields can be asked for.
        return 0 if self.given is None else max(len(self._values), 1)

    def in_json(self) -> Iterable[str]:
        return self.given or ()


def shaped(value: object, field: object) -> object:
    """A value as its field has it; the zero value for None. What is of another kind than its field stays as it is."""
    match field:
        case Shape():
            if value is None:
                return NIL if field.pointer else Struct(field, None)
            return Struct(field, value) if isinstance(value, Mapping) else value
        case [element]:
            if value is None:
                return NIL_LIST
            return [shaped(one, element) for one in value] if isinstance(value, list) else value
        case Nil():
            if value is None:
                return field
            return OpenMap(value) if isinstance(value, Mapping) else value
        case Duration():
            return Duration(value) if isinstance(value, int) else field if value is None else value
    return field if value is None else value


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
        case Record():
            return shown({name: value[name] for name in value.in_json()}, top=top)
        case Mapping():
            return f"map[{' '.join(f'{key}:{shown(value[key], top=False)}' for key in sorted(value))}]"
        case Sequence():
            return f"[{' '.join(shown(element, top=False) for element in value)}]"
        case _:
            return str(value)


def type_of(value: object) -> str:
    """What Go would call the type of a value that is no object."""
    match value:
        case bool():
            return "bool"
        case int():
            return "int64"
        case float():
            return "float64"
        case str():
            return "string"
    return "[]string"


def is_true(value: object) -> bool:
    """Go's truth: not false, zero, nil or empty."""
    return not isinstance(value, Nil) and bool(value)


def _plain(value: object) -> object:
    match value:
        case Nil():
            return None
        case Struct():
            return _plain(value.given)
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
