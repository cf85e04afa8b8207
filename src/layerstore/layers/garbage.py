"""What lies in the home or beside it without a row, and belongs to nobody alive.

A session makes files first and rows after, and strikes out rows first and removes files after; between the two it is
the owner, and the names of its keys say so. What a dead one left there is garbage. What does not have a name as this
library gives them is not ours, whatever it is, and is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import session
from layerstore.driver import LayerKey
from layerstore.layers import rows
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Database
    from layerstore.layers.files import LayerFiles
    from layerstore.layers.layers import Layers

_KEY = re.compile(r"[0-9a-f]{32}(?:[a-z][0-9a-z]{0,23})?")
"""What a session calls its layers, and what a driver may add to it. docker's folders have 64 digits."""

_LENGTH = 32
"""Of a key without what a driver added."""


@frozen
class Garbage:
    """Keys in the home, and keys of what is kept beside it, that nothing refers to.

    `is_all`: no other was spared for the sake of somebody alive, in whose hands it may be.
    """

    home: tuple[LayerKey, ...]
    beside: tuple[LayerKey, ...]
    is_all: bool


def find(database: Database, staging: Path, files: LayerFiles) -> Garbage:
    """Look for garbage.

    The order decides: files are listed first, then it is asked who is alive, and the rows are read last. So what is
    listed, whose maker is dead, and which has no row by then, never gets one.
    """
    home = set(own_keys(files.driver.keys()))
    beside = set(own_keys(files.keys_beside()))
    makers = {_maker(key) for key in home | beside}
    alive = {maker for maker in makers if session.is_alive(staging, maker)}
    with database.read() as tx:
        diffs, containers, mounted, leased = rows.owned(tx)

    def is_spared(key: LayerKey) -> bool:
        # A driver may seal a container's layer into a new one, with a suffix to its key: leased by the beginning, and
        # made by whoever has the lease, not by the maker of the container.
        return (_maker(key) in alive and key[:_LENGTH] not in containers | mounted) or key.startswith(leased)

    home -= diffs | containers
    beside -= diffs
    spared = {key for key in home | beside if is_spared(key)} | (home & mounted)
    return Garbage(tuple(sorted(home - spared)), tuple(sorted(beside - spared)), not spared)


def own_keys(names: Iterable[str]) -> list[LayerKey]:
    """Those of the names that are keys of layers as this library makes them."""
    return [LayerKey(name) for name in names if _KEY.fullmatch(name)]


def sweep(layers: Layers, staging: Path) -> bool:
    """Remove the garbage. False if something was spared: it may be of the dead all the same, so look again later.

    For a key says who made what it began with: a removal by somebody else, or a seal, leaves others' keys behind.
    """
    found = find(layers.database, staging, layers.files)
    layers.drop(found.home)
    for key in found.beside:
        layers.drop_beside(key)
    return found.is_all


def _maker(key: LayerKey) -> str:
    """The session that made a key."""
    return key[: session.NAME_LENGTH]
