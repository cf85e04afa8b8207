"""What is wanted of a new container or a commit; that of a container is checked before anything is made.

Each check raises `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layerstore import options
from layerstore.errors import ConfigError
from layerstore.kernel.namespaces import IdMap, is_within
from layerstore.values import frozen

__all__ = ["CommitWish", "ids_of", "limit_of"]


@frozen
class CommitWish:
    """What is wanted of the image that a container becomes: see `Container.commit`."""

    tag: str | None
    message: str
    author: str | None
    created_by: str | None
    run_config: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None
    instructions: Sequence[str]


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
