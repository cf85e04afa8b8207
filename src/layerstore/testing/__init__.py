"""For the tests of driver authors, of programs that use layerstore, and of layerstore itself. Extra: `testing`.

Nothing in the library imports this package, and it imports what a driver author has: the public names, the interface
of drivers, and `kernel`; never the tar engine or the database, which it is there to judge. The names below are imported
when they are first used, for `ModelTree`, `tars` and `edits` need neither pytest nor Hypothesis. What Hypothesis draws
is in `layerstore.testing.strategies`; fixtures are in `layerstore.testing.plugin`, which pytest finds by itself.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from layerstore.testing.conformance import DriverConformance
    from layerstore.testing.editing import ModelTree
    from layerstore.testing.edits import MountedTree
    from layerstore.testing.limits import Limits
    from layerstore.testing.machine import StackMachine, machine_for
    from layerstore.testing.workbench import Workbench

__all__ = [
    "DriverConformance",
    "Limits",
    "ModelTree",
    "MountedTree",
    "StackMachine",
    "Workbench",
    "machine_for",
]

_HOMES = {
    "conformance": ("DriverConformance",),
    "editing": ("ModelTree",),
    "edits": ("MountedTree",),
    "limits": ("Limits",),
    "machine": ("StackMachine", "machine_for"),
    "workbench": ("Workbench",),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"layerstore.testing.{home}"), name)
    globals()[name] = value
    return value
