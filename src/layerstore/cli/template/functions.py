"""The functions that a template may call: Go's own, and those that docker adds.

Each takes checked values and gives one back. `HEADINGS` are those that leave a word alone when a table's head is made.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote_plus

from layerstore.cli.template.errors import TemplateError
from layerstore.cli.template.values import NIL, NIL_MAP, Nil, OpenMap, as_json, is_list, is_true, shown


def _whole(value: object, what: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TemplateError(f"{what}: {shown(value)} is not a whole number")


def _text(value: object, what: str) -> str:
    if isinstance(value, str):
        return value
    raise TemplateError(f"{what}: {shown(value)} is not a string")


def _length(value: object) -> int:
    if value is NIL:
        raise TemplateError("len: nil pointer")
    if isinstance(value, Nil):
        return 0
    if isinstance(value, str):
        return len(value.encode(errors="surrogateescape"))
    if isinstance(value, Mapping) or is_list(value):
        assert isinstance(value, Mapping | Sequence)
        return len(value)
    raise TemplateError(f"len: {shown(value)} has no length")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, Mapping):
            name = _text(key, "index")
            if name not in value and not isinstance(value, OpenMap):
                raise TemplateError(f"index: can't evaluate field {name}; there are: {', '.join(value)}")
            value = value.get(name, "")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            place = _whole(key, "index")
            if not 0 <= place < len(value):
                raise TemplateError(f"index: out of range: {place}, there are {len(value)}")
            value = value[place]
        elif isinstance(value, str):
            place = _whole(key, "index")
            data = value.encode(errors="surrogateescape")
            if not 0 <= place < len(data):
                raise TemplateError(f"index: out of range: {place}, there are {len(data)}")
            value = data[place]
        elif value is NIL_MAP:
            value = ""
        elif isinstance(value, Nil):
            raise TemplateError(f"index: out of range: {shown(key)}, there are 0")
        else:
            raise TemplateError(f"index: {shown(value)} has no elements")
    return value


def _slice(value: object, *bounds: object) -> object:
    places = [_whole(bound, "slice") for bound in bounds]
    if isinstance(value, str):
        value = value.encode(errors="surrogateescape")
    if not isinstance(value, Sequence) or len(places) > 2:
        raise TemplateError("slice: wants a string or list, and at most two whole numbers")
    start, end = [*places, *(0, len(value))[len(places) :]]
    if not 0 <= start <= end <= len(value):
        raise TemplateError(f"slice: out of range: {start} to {end}, there are {len(value)}")
    part = value[start:end]
    return part.decode(errors="surrogateescape") if isinstance(part, bytes) else part


def _kind(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "whole number"
        case float():
            return "number"
        case str():
            return "string"
        case None:
            return "nil"
    raise TemplateError(f"cannot compare {shown(value)}")


def _same_kind(first: object, second: object, what: str) -> None:
    kinds = _kind(first), _kind(second)
    if kinds[0] != kinds[1] and "nil" not in kinds:
        raise TemplateError(f"{what}: cannot compare a {kinds[0]} with a {kinds[1]}")


def _equal(first: object, *others: object) -> bool:
    if not others:
        raise TemplateError("eq: wants at least two values")
    for other in others:
        _same_kind(first, other, "eq")
    return first in others


def _unequal(first: object, second: object) -> bool:
    return not _equal(first, second)


def _before(first: object, second: object) -> bool:
    _same_kind(first, second, "lt, le, gt, ge")
    if isinstance(first, str) and isinstance(second, str):
        return first < second
    if isinstance(first, int | float) and isinstance(second, int | float) and not isinstance(first, bool):
        return first < second
    raise TemplateError(f"{shown(first)} and {shown(second)} have no order")


def _less_or_equal(first: object, second: object) -> bool:
    return _before(first, second) or first == second


def _print(*values: object) -> str:
    """As Go's Sprint: a space between two values when neither is a string."""
    text = ""
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            text += " "
        text += shown(value, top=False)
    return text


def _println(*values: object) -> str:
    return " ".join(shown(value, top=False) for value in values) + "\n"


_VERB: Final = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d*))?(?P<verb>.)", re.DOTALL)


def _printf(form: object, *values: object) -> str:
    """Go's Sprintf. A verb that does not fit its value is an error, where Go prints the complaint."""
    text = _text(form, "printf")
    rest = list(values)

    def next_value(verb: str) -> object:
        if not rest:
            raise TemplateError(f"printf: no value for {verb} in {text!r}")
        return rest.pop(0)

    def formatted(match: re.Match[str]) -> str:
        whole, flags, verb = match.group(), match["flags"], match["verb"]
        if verb == "%":
            return "%"
        width = match["width"] or ""
        if width == "*":
            width = str(_whole(next_value(whole), "printf"))
        precision = match["precision"]
        if precision == "*":
            precision = str(_whole(next_value(whole), "printf"))
        return _verb(whole, flags, width, precision, verb, next_value(whole))

    result = _VERB.sub(formatted, text)
    if rest:
        raise TemplateError(f"printf: {len(rest)} more values than verbs in {text!r}")
    return result


def _verb(whole: str, flags: str, width: str, precision: str | None, verb: str, value: object) -> str:
    """One verb of printf, by way of Python's % operator, whose flags, widths and precisions are the same."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    point = "" if precision is None else f".{precision}"
    match verb:
        case "v":
            if precision is not None and isinstance(value, float):
                return f"%{flags}{width}{point}g" % value
            return f"%{flags.replace('0', '')}{width}s" % shown(value, top=False)
        case "s" if isinstance(value, str) or not (number or isinstance(value, bool)):
            return f"%{flags.replace('0', '')}{width}{point}s" % shown(value, top=False)
        case "q" if isinstance(value, str):
            return f"%{flags.replace('0', '').replace('+', '')}{width}s" % as_json(value)
        case "t" if isinstance(value, bool):
            return f"%{flags}{width}s" % shown(value)
        case "d" | "x" | "X" | "o" | "c" if isinstance(value, int) and number:
            return f"%{flags}{width}{point}{verb}" % value
        case "b" if isinstance(value, int) and number:
            return f"%{flags}{width}s" % format(value, "b")
        case "x" if isinstance(value, str):
            return f"%{flags}{width}s" % value.encode(errors="surrogateescape").hex()
        case "e" | "E" | "f" | "F" | "g" | "G" if isinstance(value, float):
            return f"%{flags}{width}{point}{verb}" % value
    raise TemplateError(f"printf: {whole} does not fit {shown(value)}")


_JS_ESCAPES: Final = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "<": "\\u003C",
    ">": "\\u003E",
    "&": "\\u0026",
    "=": "\\u003D",
}


def _js(*values: object) -> str:
    text = _print(*values)
    return "".join(_JS_ESCAPES.get(c, c if c >= " " else f"\\u{ord(c):04X}") for c in text)


def _html(*values: object) -> str:
    return html.escape(_print(*values), quote=True).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def _urlquery(*values: object) -> str:
    return quote_plus(_print(*values), safe="")


def _split(text: object, separator: object) -> object:
    by = _text(separator, "split")
    whole = _text(text, "split")
    return whole.split(by) if by else list(whole)


def _join(elements: object, separator: object) -> str:
    if isinstance(elements, Nil):
        return ""
    if not isinstance(elements, Sequence) or isinstance(elements, str):
        raise TemplateError(f"join: {shown(elements)} is not a list")
    return _text(separator, "join").join(_text(element, "join") for element in elements)


def _title(text: object) -> str:
    return re.sub(r"(?<![^\s])\w", lambda first: first.group().upper(), _text(text, "title"))


def _lower(text: object) -> str:
    return _text(text, "lower").lower()


def _upper(text: object) -> str:
    return _text(text, "upper").upper()


def _pad(text: object, before: object, after: object) -> str:
    plain = _text(text, "pad")
    return " " * _whole(before, "pad") + plain + " " * _whole(after, "pad") if plain else plain


def _truncate(text: object, length: object) -> str:
    return _text(text, "truncate")[: _whole(length, "truncate")]


def _json(value: object) -> str:
    return as_json(value)


FUNCTIONS: Final[Mapping[str, Callable[..., object]]] = {
    "eq": _equal,
    "ne": _unequal,
    "lt": _before,
    "le": _less_or_equal,
    "gt": lambda first, second: not _less_or_equal(first, second),
    "ge": lambda first, second: not _before(first, second),
    "not": lambda value: not is_true(value),
    "index": _index,
    "slice": _slice,
    "len": _length,
    "print": _print,
    "println": _println,
    "printf": _printf,
    "html": _html,
    "js": _js,
    "urlquery": _urlquery,
    "json": _json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": _lower,
    "upper": _upper,
    "pad": _pad,
    "truncate": _truncate,
}

HEADINGS: Final[Mapping[str, Callable[..., object]]] = {
    **FUNCTIONS,
    **dict.fromkeys(("json", "title", "lower", "upper", "truncate", "split", "join"), lambda text, *_: text),
}
