"""Faults, as a tired programmer would write them: each a change of one place, with what has to find it out.

They are data, in the TOML files of this folder. `test_mutants.py` applies one at a time to a copy of the sources, runs
the kit on it, and expects the kit to fail. One that survives is a hole in the kit, unless `alive` gives the reason why
nobody could see it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from attrs import frozen

KINDS = (
    "durability",
    "not atomic",
    "failure leaves something",
    "changes compares too little",
    "seal does not make exact",
    "copies",
    "limits",
    "committed is not read-only",
    "told wrongly",
    "leaks",
    "mounts",
)


@frozen
class Mutant:
    """`old`, which is in `file` once, becomes `new`.

    The kit is run on `case` (see `testing.drivers`), first of all its tests that `tests` chooses, as pytest's `-k`.
    """

    name: str
    kind: str
    case: str
    file: str
    old: str
    new: str
    tests: str = ""
    alive: str = ""

    def __str__(self) -> str:
        return f"{self.case}: {self.name}"


def all_mutants() -> list[Mutant]:
    """Those of all files."""
    return [
        Mutant(**facts)
        for path in sorted(Path(__file__).parent.glob("*.toml"))
        for facts in tomllib.loads(path.read_text())["mutant"]
    ]
