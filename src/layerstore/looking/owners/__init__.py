"""Which package a file of a tree belongs to, by the database of its package manager, read as files.

Nothing of the tree is run. What is read is a stranger's: it may be damaged, or made to harm.
"""

from __future__ import annotations

from layerstore import LayerstoreError
from layerstore.looking.owners import apk, dpkg, rpm
from layerstore.looking.owners.values import Owner
from layerstore.looking.places import spellings
from layerstore.values import frozen

__all__ = ["Answer", "Owner", "owners_of"]


@frozen
class Answer:
    """Who owns a path. A folder belongs to many. `databases` were asked; `unread` says which could not be, and why."""

    owners: tuple[Owner, ...]
    databases: tuple[str, ...]
    unread: tuple[str, ...]


def owners_of(root: int, path: bytes) -> Answer:
    """Who owns `path` (without a leading slash, no link on the way) in the tree `root`, a directory descriptor."""
    names = spellings(root, path)
    owners: list[Owner] = []
    asked: list[str] = []
    unread: list[str] = []
    for database in (dpkg, apk, rpm):
        try:
            found = database.owners_of(root, names)
        except LayerstoreError as error:
            found = error.message
        if found is None:
            continue
        asked.append(database.NAME)
        if isinstance(found, str):
            unread.append(f"{database.NAME}: {found}")
        else:
            owners += found
    return Answer(tuple(dict.fromkeys(owners)), tuple(asked), tuple(unread))
