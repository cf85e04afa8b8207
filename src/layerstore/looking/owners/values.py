"""What a database of packages is asked for."""

from __future__ import annotations

from layerstore.values import frozen

__all__ = ["Owner"]


@frozen
class Owner:
    """A package, as its manager names it."""

    manager: str
    """`dpkg`, `apk`, `rpm`."""
    name: str
    version: str = ""
    architecture: str = ""
    note: str = ""
    """What else there is to know: that it diverts another package's file."""

    def __str__(self) -> str:
        known = " ".join(part for part in (self.name, self.version, self.architecture) if part)
        return f"{known} ({self.manager}{f', {self.note}' if self.note else ''})"
