"""Images as filesystems of fsspec: what reads `s3://` and `zip://` reads `layerstore://debian:12/etc/os-release`, too.

Nothing is mounted. It stands on the library's public names, as a tool of somebody else would. Extra: `fs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.fs.images import ImageFileSystem
    from layerstore.fs.registries import RegistryFileSystem

__all__ = ["ImageFileSystem", "RegistryFileSystem"]

_HOMES = {"ImageFileSystem": "images", "RegistryFileSystem": "registries"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"layerstore.fs.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
