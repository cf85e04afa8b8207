"""Seconds, bytes and ratios as people read them: three digits, and the unit that suits. Pure."""

from __future__ import annotations

__all__ = ["ratio_in_words", "seconds_in_words", "size_in_words"]


def seconds_in_words(seconds: float) -> str:
    """`1.23 ms`, `45.6 s`; `0` for none."""
    if seconds == 0:
        return "0"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if abs(seconds) < limit * 0.9995:
            return f"{_three(seconds * factor)} {unit}"
    return f"{_three(seconds)} s"


def size_in_words(size: float) -> str:
    """`1.23 MB`, in decimal units; `0` for none."""
    if round(size) == 0:
        return "0"
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB")):
        if abs(size) < limit * 0.9995:
            return f"{_three(size / limit * 1e3)} {unit}"
    return f"{_three(size / 1e9)} GB"


def ratio_in_words(ratio: float) -> str:
    """`1.5×`, `0.02×`, `1,050×`."""
    if ratio >= 999.5:
        return f"{float(f'{ratio:.3g}'):,.0f}×"
    if ratio >= 9.95:
        return f"{ratio:.0f}×"
    return f"{ratio:.1f}×" if ratio >= 0.95 else f"{ratio:.2g}×" if ratio >= 0.0995 else f"{ratio:.1g}×"


def _three(value: float) -> str:
    size = abs(value)
    return f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f}"
