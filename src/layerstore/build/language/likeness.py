"""What somebody may have meant by a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that is most like `word`, whatever its case, or None if none is like it."""
    import difflib

    lowered: dict[str, str] = {}
    for name in names:
        lowered.setdefault(name.lower(), name)
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None
