"""Bytes as people read them. Pure."""

from __future__ import annotations

__all__ = ["size_in_words"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size_in_words(number: int, gap: str = " ") -> str:
    """Bytes in decimal units, with three digits: `1.5 MB`. `gap` stands before the unit."""
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}{gap}{_UNITS[unit]}"
