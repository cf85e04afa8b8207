"""Images built from Dockerfiles: the language, what each instruction does, and what need not be done again.

It stands on the library's public names and on `layerstore.runtime`, as a builder of somebody else would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.build.building import Built, build
    from layerstore.build.errors import BuildError, Place
    from layerstore.build.events import Begun, Ended, Event, Output, Progress, Told, Vertex, Warned
    from layerstore.build.options import BuildOptions, Export, Secret, Ssh
    from layerstore.build.warnings import check

__all__ = [
    "Begun",
    "BuildError",
    "BuildOptions",
    "Built",
    "Ended",
    "Event",
    "Export",
    "Output",
    "Place",
    "Progress",
    "Secret",
    "Ssh",
    "Told",
    "Vertex",
    "Warned",
    "build",
    "check",
]

_HOMES = {
    "building": ("Built", "build"),
    "errors": ("BuildError", "Place"),
    "events": ("Begun", "Ended", "Event", "Output", "Progress", "Told", "Vertex", "Warned"),
    "options": ("BuildOptions", "Export", "Secret", "Ssh"),
    "warnings": ("check",),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"layerstore.build.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
