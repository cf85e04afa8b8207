"""Looking into images and containers: which layer and line a path is from, and what each line costs.

It stands on the library's public names, as a tool of somebody else would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.looking.advice import Advice, Cost, Finding, Subject, advise
    from layerstore.looking.builds import advise_build, unused
    from layerstore.looking.costs import Fate, Payload
    from layerstore.looking.lines import Line
    from layerstore.looking.origins import Deed, Step, Why, Written, why
    from layerstore.looking.owners import Answer, Owner
    from layerstore.looking.places import Found

__all__ = [
    "Advice",
    "Answer",
    "Cost",
    "Deed",
    "Fate",
    "Finding",
    "Found",
    "Line",
    "Owner",
    "Payload",
    "Step",
    "Subject",
    "Why",
    "Written",
    "advise",
    "advise_build",
    "unused",
    "why",
]

_HOMES = {
    "advice": ("Advice", "Cost", "Finding", "Subject", "advise"),
    "builds": ("advise_build", "unused"),
    "costs": ("Fate", "Payload"),
    "lines": ("Line",),
    "origins": ("Deed", "Step", "Why", "Written", "why"),
    "owners": ("Answer", "Owner"),
    "places": ("Found",),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"layerstore.looking.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
