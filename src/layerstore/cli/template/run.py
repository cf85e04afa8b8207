"""A parsed template, and how it is run over data. `and` and `or` stop at the first value that decides, as in Go."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from layerstore.cli.template.errors import TemplateError
from layerstore.cli.template.functions import FUNCTIONS, HEADINGS
from layerstore.cli.template.syntax import parse
from layerstore.cli.template.tree import (
    Action,
    Branch,
    Command,
    Dot,
    Fields,
    Function,
    Leave,
    Literal,
    Node,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from layerstore.cli.template.values import NIL, Nil, OpenMap, Struct, is_true, shown, type_of

_LAZY: Final = frozenset(("and", "or"))
_NAMES: Final = frozenset(FUNCTIONS) | _LAZY


class Template:
    """A template, read once and run for many values. Raises `TemplateError`, from `__init__` and from `render`.

    `escapes`: `\\t` and `\\n` between the actions mean a tab and a line break, as in docker's formats of lists.
    """

    def __init__(self, text: str, *, escapes: bool = False) -> None:
        self.source = text
        try:
            self._nodes = parse(text, _NAMES, escapes=escapes)
        except RecursionError:
            raise TemplateError("nested too deeply") from None

    def render(self, data: object) -> str:
        """The template's text for `data`."""
        return _Run(data, FUNCTIONS).all(self._nodes)

    def render_headings(self, headings: object) -> str:
        """The head of a table: `headings` has a heading for each field, and json, upper and the like leave it alone."""
        return _Run(headings, HEADINGS).all(self._nodes)


class _Left(Exception):
    """`break` or `continue` on its way to the loop."""

    def __init__(self, word: str) -> None:
        self.word = word


class _Run:
    """One run: the data, and the variables in scope (innermost last)."""

    def __init__(self, data: object, functions: Mapping[str, Callable[..., object]]) -> None:
        self.variables: list[tuple[str, object]] = [("$", data)]
        self.data = data
        self.functions = functions
        self.out: list[str] = []

    def all(self, nodes: Sequence[Node]) -> str:
        self.walk(nodes, self.data)
        return "".join(self.out)

    def walk(self, nodes: Sequence[Node], dot: object) -> None:
        for node in nodes:
            match node:
                case Text(text):
                    self.out.append(text)
                case Action(pipeline):
                    value = self.pipeline(pipeline, dot)
                    if not pipeline.names:
                        self.out.append(shown(value))
                case Branch():
                    self.branch(node, dot)
                case Leave(word):
                    raise _Left(word)

    def branch(self, node: Branch, dot: object) -> None:
        known = len(self.variables)
        if node.word == "range":
            self.loop(node, dot)
        else:
            value = self.pipeline(node.pipeline, dot)
            if is_true(value):
                self.walk(node.body, value if node.word == "with" else dot)
            else:
                self.walk(node.otherwise, dot)
        del self.variables[known:]

    def loop(self, node: Branch, dot: object) -> None:
        names = node.pipeline.names
        known = len(self.variables)
        anything = False
        for key, value in _pairs(self.pipeline(node.pipeline, dot, declare=False)):
            anything = True
            for name, meant in zip(names, (key, value) if len(names) == 2 else (value,), strict=False):
                if node.pipeline.declares:
                    self.variables.append((name, meant))
                else:
                    self.assign(name, meant)
            try:
                self.walk(node.body, value)
            except _Left as left:
                if left.word == "break":
                    break
            finally:
                del self.variables[known:]
        if not anything:
            self.walk(node.otherwise, dot)

    # values

    def pipeline(self, pipeline: Pipeline, dot: object, *, declare: bool = True) -> object:
        value: object = None
        for place, command in enumerate(pipeline.commands):
            value = self.command(command, dot, *([value] if place else []))
        if declare:
            for name in pipeline.names:
                if pipeline.declares:
                    self.variables.append((name, value))
                else:
                    self.assign(name, value)
        return value

    def assign(self, name: str, value: object) -> None:
        for place in range(len(self.variables) - 1, -1, -1):
            if self.variables[place][0] == name:
                self.variables[place] = (name, value)
                return

    def command(self, command: Command, dot: object, *fed: object) -> object:
        first, *others = command.words
        if isinstance(first, Function):
            if first.name in _LAZY:
                return self.decide(first.name, others, dot, *fed)
            return _called(self.functions[first.name], first.name, [*(self.value(word, dot) for word in others), *fed])
        value = self.value(first, dot, call=False)
        arguments = [*(self.value(word, dot) for word in others), *fed]
        if callable(value):
            return _called(value, _source(first), arguments)
        if arguments:
            raise TemplateError(f"{_source(first)} is no function, but has arguments")
        return value

    def decide(self, name: str, words: Sequence[Operand], dot: object, *fed: object) -> object:
        if not words and not fed:
            raise TemplateError(f"{name}: wants at least one value")
        value: object = None
        for word in words:
            value = self.value(word, dot)
            if is_true(value) == (name == "or"):
                return value
        return fed[0] if fed else value

    def value(self, operand: Operand, dot: object, *, call: bool = True) -> object:
        match operand:
            case Literal(value):
                return value
            case Dot():
                return dot
            case Variable(name):
                return next(value for known, value in reversed(self.variables) if known == name)
            case Pipeline():
                return self.pipeline(operand, dot)
            case Function(name):
                return _called(self.functions[name], name, []) if name not in _LAZY else self.decide(name, (), dot)
            case Fields(base, names, source):
                value = self.value(base, dot)
                for place, name in enumerate(names):
                    if callable(value):
                        value = _called(value, source, [])
                    value = _field(value, name, last=place == len(names) - 1, source=source)
                return _called(value, source, []) if call and callable(value) else value


def _source(operand: Operand) -> str:
    match operand:
        case Fields(source=source):
            return source
        case Variable(name):
            return name
        case Literal(value):
            return shown(value)
    return "."


def _field(value: object, name: str, *, last: bool, source: str) -> object:
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        if isinstance(value, OpenMap):
            if last:
                return None
            raise TemplateError(f"{source}: {name} has no value")
        kind = f" in type {value.shape.name}" if isinstance(value, Struct) else ""
        raise TemplateError(f"{source}: can't evaluate field {name}{kind}; there are: {', '.join(sorted(value))}")
    if value is NIL:
        raise TemplateError(f"{source}: nil pointer evaluating {name}: there is no value before it")
    if value is None:
        raise TemplateError(f"{source}: nil data; no entry for key {name}: there is no value before it")
    raise TemplateError(f"{source}: can't evaluate field {name} in type {type_of(value)}")


def _pairs(value: object) -> Iterator[tuple[object, object]]:
    """What `range` goes over."""
    match value:
        case Nil() if value is NIL:
            raise TemplateError("range: cannot go over a nil pointer")
        case None | Nil():
            return
        case Mapping():
            for key in sorted(value):
                yield key, value[key]
        case bool() | str():
            raise TemplateError(f"range: cannot go over {shown(value)}")
        case int():
            for number in range(value):
                yield number, number
        case Sequence():
            yield from enumerate(value)
        case _:
            raise TemplateError(f"range: cannot go over {shown(value)}")


def _called(function: Callable[..., object], name: str, arguments: Sequence[object]) -> object:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        raise TemplateError(f"{name}: wrong number of arguments: {len(arguments)}") from None
    return function(*arguments)
