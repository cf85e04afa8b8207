"""attrs' `frozen` and `define`, whose classes are made in half the time.

A command makes a hundred classes of values before it does anything, and attrs writes and compiles source for the
methods of each. When two values are equal, and how one is shown, is the same for all of them: it is written here once,
and attrs has the fields, defaults, converters and validators. What its own decorators are told is told to these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

import attrs

__all__ = ["define", "frozen"]


def _decorator(maker: Callable[..., type], *, is_hashable: bool) -> Callable[..., object]:
    """A decorator of classes that is called as `maker` is: as it is, or with options first."""

    def decorate(cls: type | None = None, /, *, eq: bool = True, repr: bool = True, **options: object) -> object:
        if cls is None:
            return lambda cls: decorate(cls, eq=eq, repr=repr, **options)
        own = vars(cls)
        made = maker(cls, eq=False, repr=False, **options)
        methods: dict[str, object] = {"__repr__": _shown} if repr else {}
        if eq and "__eq__" not in own:
            equal, hashed = _comparing([field.name for field in attrs.fields(made) if field.eq])
            methods |= {"__eq__": equal, "__hash__": hashed if is_hashable else None}
        for name, method in methods.items():
            if name not in own:
                setattr(made, name, method)
        return made

    return decorate


def _comparing(names: Sequence[str]) -> tuple[Callable[[Any, object], bool], Callable[[Any], int]]:
    """`__eq__` and `__hash__` by the fields of these names."""
    compared: Callable[[object], object] = attrgetter(*names) if names else lambda _: ()

    def equal(self: object, other: object) -> bool:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: object) -> int:
        return hash(compared(self))

    return equal, hashed


@recursive_repr()
def _shown(self: Any) -> str:
    """`Class(field=value)`, with the fields that are not told to be left out."""
    fields = (field.name for field in attrs.fields(type(self)) if field.repr)
    shown = ", ".join(f"{name}={getattr(self, name, attrs.NOTHING)!r}" for name in fields)
    return f"{type(self).__qualname__.rpartition('>.')[2]}({shown})"


if TYPE_CHECKING:
    from attrs import define, frozen
else:
    define = _decorator(attrs.define, is_hashable=False)
    frozen = _decorator(attrs.frozen, is_hashable=True)
