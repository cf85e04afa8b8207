"""What is wanted of a new container, checked before anything is made for it. Each raises `ConfigError`."""

from __future__ import annotations

from layerstore import options
from layerstore.errors import ConfigError
from layerstore.kernel.namespaces import IdMap, is_within

__all__ = ["ids_of", "limit_of"]


def limit_of(size: int | str | None) -> int | None:
    """How many bytes can be written in it."""
    try:
        return options.size(size)
    except ValueError as error:
        raise ConfigError(f"{size!r} is not {error}") from None


def ids_of(idmap: IdMap | None) -> IdMap | None:
    """The IDs that it is mounted for: those of a namespace that has a root, and is made by the machine's."""
    if idmap is None:
        return None
    if is_within():
        raise ConfigError(
            "a container for other IDs can only be made by the machine's root, and this is a user namespace",
            remedy="Leave the IDs out: containers here are for the namespace's.",
        )
    if not idmap.has_root:
        raise ConfigError("a container for other IDs needs a map that has 0 within", remedy="Begin its ranges with 0.")
    return idmap
