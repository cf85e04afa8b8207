"""`frozen`, as attrs has it, for values of which each start of a command makes dozens of classes.

attrs writes and compiles the comparing, hashing and showing of each class anew. That is half of what making a class
costs (0.2 of 0.4 ms for one of eight fields), and most commands end before they compare or show one. Here they are
closures, which ask for the same fields.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from attrs import frozen
else:

    def frozen(cls: type | None = None, **settings: Any) -> Any:
        """`attrs.frozen`. What the class has of its own, or is told not to have (`eq`, `repr`), stays so."""
        if cls is None:
            return lambda cls: frozen(cls, **settings)
        is_compared = settings.get("eq", True) and "__eq__" not in cls.__dict__
        is_shown = settings.get("repr", True) and "__repr__" not in cls.__dict__
        made = attrs.frozen(cls, **{**settings, "eq": False, "repr": False})
        if is_compared:
            _let_compare(made)
        if is_shown:
            _let_show(made)
        return made


__all__ = ["frozen"]


def _let_compare(made: type[attrs.AttrsInstance]) -> None:
    names = [one.name for one in attrs.fields(made) if one.eq]
    compared = attrgetter(*names) if names else lambda value: ()

    def equal(self: Any, other: object) -> bool:
        return bool(compared(self) == compared(other)) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash((made, compared(self)))

    made.__eq__, made.__hash__ = equal, hashed  # type: ignore[method-assign]  # of a class just made


def _let_show(made: type[attrs.AttrsInstance]) -> None:
    names = [one.name for one in attrs.fields(made) if one.repr]

    def shown(self: Any) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__.rpartition('>.')[2]}({values})"

    made.__repr__ = shown  # type: ignore[method-assign]  # of a class just made
