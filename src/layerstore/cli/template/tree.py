"""What a template is made of once it is read: nodes, pipelines, commands, operands."""

from __future__ import annotations

from typing import TypeAlias

from layerstore.values import frozen


@frozen
class Literal:
    """A string, number, boolean or nil written in the template."""

    value: object


@frozen
class Dot:
    """`.`, what the template is about here."""


@frozen
class Variable:
    """`$name`; `$` alone is the whole data."""

    name: str


@frozen
class Function:
    """A function's name."""

    name: str


@frozen
class Fields:
    """`base.name.name`."""

    base: Operand
    names: tuple[str, ...]
    source: str


@frozen
class Command:
    """An operand, or a function or method with its arguments."""

    words: tuple[Operand, ...]


@frozen
class Pipeline:
    """Commands, each fed with the value of the one before; `names` are the variables that take the last value.

    `declares` tells `:=` from `=`.
    """

    commands: tuple[Command, ...]
    names: tuple[str, ...] = ()
    declares: bool = True


@frozen
class Text:
    """Text that stands for itself."""

    text: str


@frozen
class Action:
    """`{{pipeline}}`: prints the value, unless it is a declaration."""

    pipeline: Pipeline


@frozen
class Branch:
    """`if`, `with` or `range` (`word`) with its two bodies."""

    word: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


@frozen
class Leave:
    """`break` or `continue`."""

    word: str


Operand: TypeAlias = Literal | Dot | Variable | Function | Fields | Pipeline
Node: TypeAlias = Text | Action | Branch | Leave
