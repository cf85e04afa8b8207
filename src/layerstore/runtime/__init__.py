"""Containers that run: OCI bundles, engines from PATH, what outlives its command, and what all of them left behind.

It stands on the library's public names alone, as a container tool of somebody else would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.runtime.errors import EngineNotFound, NotRunning
    from layerstore.runtime.life import RunState, Runtime
    from layerstore.runtime.options import (
        Device,
        ExecOptions,
        HealthCheck,
        Isolation,
        MountOption,
        Port,
        RunOptions,
        Ulimit,
    )
    from layerstore.runtime.streams import Streams
    from layerstore.runtime.streams.logs import Entry
    from layerstore.runtime.streams.stats import Stats
    from layerstore.runtime.streams.top import Table

__all__ = [
    "Device",
    "EngineNotFound",
    "Entry",
    "ExecOptions",
    "HealthCheck",
    "Isolation",
    "MountOption",
    "NotRunning",
    "Port",
    "RunOptions",
    "RunState",
    "Runtime",
    "Stats",
    "Streams",
    "Table",
    "Ulimit",
]

_HOMES = {
    "errors": ("EngineNotFound", "NotRunning"),
    "life": ("RunState", "Runtime"),
    "options": (
        "Device",
        "ExecOptions",
        "HealthCheck",
        "Isolation",
        "MountOption",
        "Port",
        "RunOptions",
        "Ulimit",
    ),
    "streams": ("Streams",),
    "streams.logs": ("Entry",),
    "streams.stats": ("Stats",),
    "streams.top": ("Table",),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"layerstore.runtime.{home}"), name)
