"""Durations as Go writes them: `1m30s`. In nanoseconds, as image configs have them."""

from __future__ import annotations

import re

__all__ = ["duration", "shown_duration"]

_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_LONGEST = 2**63 - 1


def duration(text: str) -> int:
    """Its nanoseconds. Raises `ValueError` for what is no duration."""
    if text == "0":
        return 0
    parts = list(_PART.finditer(text))
    if not parts or len(text) > 100 or "".join(part[0] for part in parts) != text:
        raise ValueError(f"not a duration: {text}")
    total = sum(_nanoseconds(part[1], _UNITS[part[2]]) for part in parts)
    if total > _LONGEST:
        raise ValueError(f"too long a duration: {text}")
    return total


def _nanoseconds(number: str, unit: int) -> int:
    whole, _, part = number.partition(".")
    return int(whole or "0") * unit + int(part or "0") * unit // int("1" + "0" * len(part))


def shown_duration(nanoseconds: int) -> str:
    """As Go writes it: `0s`, `500ms`, `1m30s`, `1h0m0s`."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        unit = "ns" if nanoseconds < 10**3 else "µs" if nanoseconds < 10**6 else "ms"
        return _decimal(nanoseconds, _UNITS[unit]) + unit
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = _decimal(rest, _UNITS["s"]) + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"
