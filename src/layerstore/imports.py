"""Names of a package that are imported when they are first used: who wants one of them does not wait for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

__all__ = ["on_demand"]


def on_demand(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """The `__getattr__` of a package: `homes` says which of its modules has which of its names (`name as public`).

    No name may be that of a module: it would mean the one or the other, by what was imported before.
    """

    def __getattr__(name: str) -> object:
        for home, names in homes.items():
            for entry in names:
                own, _, public = entry.partition(" as ")
                if name == (public or own):
                    return getattr(import_module(f"{package}.{home}"), own)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
