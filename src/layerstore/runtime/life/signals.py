"""Signals by the names that people and images give them."""

from __future__ import annotations

import re
from signal import SIGRTMAX, SIGRTMIN, Signals

from layerstore import ConfigError

__all__ = ["number_of"]

_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d+))?")


def number_of(signal: str | int) -> int:
    """The number of a signal: `SIGTERM`, `term`, `15`, `RTMIN+3`. Raises `ConfigError`, in docker's words."""
    text = str(signal).strip()
    name = text.upper().removeprefix("SIG")
    if name.isdecimal():
        number = int(name)
    elif (match := _REAL_TIME.fullmatch(name)) is not None:
        base, sign, step = match.groups()
        number = (SIGRTMIN if base == "MIN" else SIGRTMAX) + int(f"{sign or '+'}{step or 0}")
    else:
        number = Signals.__members__.get(f"SIG{name}", 0)
    if not 0 < number <= SIGRTMAX:
        raise ConfigError(
            f"invalid signal: {text}", remedy="Give its name, as SIGTERM, or its number: `kill -l` has them."
        )
    return number
