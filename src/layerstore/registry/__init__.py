"""Registries: images pulled, pushed and copied over the OCI distribution protocol.

Here are only the public names, imported when they are first used: with them comes an HTTP library.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from layerstore.registry.appending import append
    from layerstore.registry.copying import Copied, copy
    from layerstore.registry.logins import LoggedIn, login, logout
    from layerstore.registry.queries import Hit, manifest, search, tags

__all__ = ["Copied", "Hit", "LoggedIn", "append", "copy", "login", "logout", "manifest", "search", "tags"]

_HOMES = {
    "appending": ("append",),
    "copying": ("Copied", "copy"),
    "logins": ("LoggedIn", "login", "logout"),
    "queries": ("Hit", "manifest", "search", "tags"),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
