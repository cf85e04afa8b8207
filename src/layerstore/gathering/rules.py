"""Rules of what is left out of a tree: patterns of elements, the last one that matches counts. Matched in C (rules.h).

Who reads a language of patterns makes elements of it; this is what they may say.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from enum import IntEnum

from layerstore.kernel._shim import ffi, lib
from layerstore.values import frozen

_LARGEST = 1 << 20


class Sort(IntEnum):
    """What an element stands for, each of them for letters of a path from the root on."""

    LETTER = lib.LS_RULE_LITERAL
    """This letter."""
    ANY = lib.LS_RULE_ANY
    """One letter, but no slash."""
    CLASS = lib.LS_RULE_CLASS
    """One letter of some ranges, or one of no such range."""
    STAR = lib.LS_RULE_STAR
    """Any number of letters, but no slash."""
    ALL = lib.LS_RULE_ALL
    """Any number of letters."""
    DEEP = lib.LS_RULE_DEEP
    """Nothing, or letters and a slash."""


@frozen
class Element:
    """One element. `ranges` (first and last letter) and `negated` are for CLASS; `in_line`: no end of line is meant."""

    sort: Sort
    letter: str = ""
    ranges: tuple[tuple[str, str], ...] = ()
    negated: bool = False
    in_line: bool = False


@frozen
class Rule:
    """A pattern, which has to match all of a path. `takes_back`: what it matches is not left out after all."""

    elements: tuple[Element, ...]
    takes_back: bool = False


class Rules:
    """Rules, ready to be applied to paths: those of a folder go for all in it, as moby's patternmatcher does it.

    Raises `ValueError` for more elements than anybody needs (a million): each costs memory for each folder.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        elements, ranges = array("I"), array("I")
        firsts = array("I")
        for rule in rules:
            firsts.extend((len(elements) // 2, rule.takes_back))
            for element in rule.elements:
                elements.extend((element.sort, _value(element, len(ranges))))
                if element.sort is Sort.DEEP:
                    elements.extend((lib.LS_RULE_INSIDE, element.in_line))
                if element.sort is Sort.CLASS:
                    ranges.extend((element.negated, len(element.ranges)))
                    ranges.extend(ord(letter) for pair in element.ranges for letter in pair)
            elements.extend((lib.LS_RULE_END, 0))
        if len(elements) > _LARGEST * 2:
            raise ValueError("too many patterns")
        self._kept = [ffi.from_buffer(data) if data else ffi.NULL for data in (firsts, elements, ranges)]
        self._rules = ffi.new("struct ls_rules *")
        self._rules.rules = ffi.cast("struct ls_rule *", self._kept[0])
        self._rules.count = len(rules)
        self._rules.elements = ffi.cast("struct ls_rule_element *", self._kept[1])
        self._rules.element_count = len(elements) // 2
        self._rules.ranges = ffi.cast("uint32_t *", self._kept[2])

    @property
    def pointer(self) -> object:
        """The `struct ls_rules *`, valid as long as this is."""
        return self._rules

    def leaves_out(self, path: str) -> bool:
        """Is this path left out, with or without those above it? It has no slash at its ends."""
        return self._judge(path)[0]

    def may_keep_below(self, path: str) -> bool:
        """Could a rule take back something in a folder of this name?"""
        return self._judge(path)[1]

    def _judge(self, path: str) -> tuple[bool, bool]:
        below = ffi.new("int *")
        answer = lib.ls_rules_judge(self._rules, os.fsencode(path), below)
        if answer < 0:
            raise MemoryError
        return bool(answer), bool(below[0])


def _value(element: Element, ranges: int) -> int:
    if element.sort is Sort.LETTER:
        return ord(element.letter)
    return ranges if element.sort is Sort.CLASS else int(element.in_line)
