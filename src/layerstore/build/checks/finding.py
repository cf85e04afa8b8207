"""What a check found, before anybody asked whether it is wanted."""

from __future__ import annotations

from layerstore.build.errors import Place
from layerstore.build.language.instructions import Instruction
from layerstore.values import frozen

__all__ = ["Finding"]


@frozen
class Finding:
    """`comments` are those above its instruction, which may silence it."""

    rule: str
    place: Place
    message: str
    comments: tuple[str, ...] = ()

    @classmethod
    def at(cls, instruction: Instruction, rule: str, message: str) -> Finding:
        """Something about one instruction."""
        return cls(rule, instruction.place, message, instruction.comments)
