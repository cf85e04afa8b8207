"""`--chmod`: octal, or in chmod(1)'s words; what it makes of a mode. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from layerstore.values import frozen

__all__ = ["Modes", "modes_of"]

Modes = Callable[[int, bool], int]
"""A mode (its twelve bits) and whether it is a folder's, to what it becomes."""

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")

_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_ALL = 0o7777
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_SHIFT = {"u": 6, "g": 3, "o": 0}


@frozen
class _Action:
    who: int
    """The bits that may change."""
    operator: str
    what: str


def modes_of(text: str) -> Modes:
    """What `text` says. Raises `ValueError`."""
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= _ALL:
        fixed = int(text, 8)
        return lambda mode, is_folder: fixed
    actions: list[_Action] = []
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise ValueError(f"invalid mode: {text}")
        who = 0
        for letter in match[1] or "a":
            who |= _ALL if letter == "a" else _WHO[letter]
        actions += [_Action(who, operator, what) for operator, what in _ACTION.findall(match[2])]
    return lambda mode, is_folder: _changed(actions, mode, is_folder=is_folder)


def _changed(actions: Sequence[_Action], mode: int, *, is_folder: bool) -> int:
    for action in actions:
        bits = _bits(action.what, mode, is_folder=is_folder) & action.who
        if action.operator == "+":
            mode |= bits
        elif action.operator == "-":
            mode &= ~bits
        else:
            # The set-id bits of a folder are kept by `=`, as chmod(1) does.
            kept = ~action.who | (0o6000 if is_folder and "s" not in action.what else 0)
            mode = mode & kept | bits
    return mode & _ALL


def _bits(what: str, mode: int, *, is_folder: bool) -> int:
    if what in _SHIFT:  # as the permissions of somebody else
        part = mode >> _SHIFT[what] & 7
        return part << 6 | part << 3 | part
    bits = 0
    for letter in what:
        if letter == "X":
            bits |= 0o111 if is_folder or mode & 0o111 else 0
        else:
            bits |= _BITS[letter]
    return bits
