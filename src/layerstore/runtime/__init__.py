"""Containers that run: OCI bundles, engines from PATH, what outlives its command, and what all of them left behind.

It stands on the library's public names alone, as a container tool of somebody else would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.runtime.life import RunState, Runtime
    from layerstore.runtime.options import ExecOptions, RunOptions

__all__ = ["ExecOptions", "RunOptions", "RunState", "Runtime"]

_HOMES = {"ExecOptions": "options", "RunOptions": "options", "RunState": "life", "Runtime": "life"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"layerstore.runtime.{_HOMES[name]}"), name)
