"""Registries: images pulled, pushed and copied over the OCI distribution protocol.

Here are only the public names, imported when they are first used: with them comes an HTTP library.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from layerstore.manifests import Descriptor, Manifest
    from layerstore.registry.appending import append
    from layerstore.registry.browsing import RemoteTree, browse
    from layerstore.registry.copying import Copied, copy
    from layerstore.registry.lazily import Ahead
    from layerstore.registry.logins import LoggedIn, login, logout
    from layerstore.registry.pull import Pulled, PullOptions, PullWishes
    from layerstore.registry.pushed import Done, Pushed, PushOptions
    from layerstore.registry.queries import Hit, manifest, search, tags
    from layerstore.seekable import Order
    from layerstore.seekable.order import Read

__all__ = [
    "Ahead",
    "Copied",
    "Descriptor",
    "Done",
    "Hit",
    "LoggedIn",
    "Manifest",
    "Order",
    "PullOptions",
    "PullWishes",
    "Pulled",
    "PushOptions",
    "Pushed",
    "Read",
    "RemoteTree",
    "append",
    "browse",
    "copy",
    "login",
    "logout",
    "manifest",
    "search",
    "tags",
]

_HOMES = {
    "appending": ("append",),
    "browsing": ("RemoteTree", "browse"),
    "copying": ("Copied", "copy"),
    "logins": ("LoggedIn", "login", "logout"),
    "lazily": ("Ahead",),
    "pull": ("PullOptions", "PullWishes", "Pulled"),
    "pushed": ("Done", "PushOptions", "Pushed"),
    "queries": ("Hit", "manifest", "search", "tags"),
}

_ELSEWHERE = {
    "Descriptor": "layerstore.manifests",
    "Manifest": "layerstore.manifests",
    "Order": "layerstore.seekable",
    "Read": "layerstore.seekable.order",
}


def __getattr__(name: str) -> Any:
    home = next((f"{__name__}.{module}" for module, names in _HOMES.items() if name in names), None)
    home = _ELSEWHERE.get(name, home)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
