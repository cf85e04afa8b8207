"""Which kinds of stores can be attached, and what reads each."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from layerstore.attached.root import Root
from layerstore.errors import ConfigError

if TYPE_CHECKING:
    from layerstore.attached.values import AttachedStore

__all__ = ["peer"]

_KINDS: Final = {
    "containerd": "layerstore.attached.containerd:Containerd",
    "docker": "layerstore.attached.docker:Docker",
    "layerstore": "layerstore.attached.layerstores:Layerstore",
    "podman": "layerstore.attached.storage:Storage",
}


def peer(spec: str) -> AttachedStore:
    """What reads the store that is named so. Raises `ConfigError`. Whether it is there is not looked at."""
    kind, _, path = spec.partition(":")
    if kind not in _KINDS:
        raise ConfigError(
            f"attach {spec}: there is no kind of store {kind!r}", remedy=f"The kinds are {', '.join(_KINDS)}."
        )
    module, _, name = _KINDS[kind].partition(":")
    made: AttachedStore = getattr(import_module(module), name)(Root(kind, Path(path)))
    return made
