"""Alpine's: one file, a paragraph a package, a letter a line. `F:` is a folder, the `R:` after it are in it."""

from __future__ import annotations

from collections.abc import Sequence

from layerstore.looking.owners.values import Owner
from layerstore.looking.places import read_file

__all__ = ["NAME", "owners_of"]

NAME = "apk"
_PLACES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")


def owners_of(root: int, names: Sequence[bytes]) -> list[Owner] | str | None:
    """The packages that have a path, which is called by these names. None: there is no such database."""
    texts = [text for place in _PLACES if (text := read_file(root, place)) is not None]
    if not texts:
        return None
    owners = [_owner(paragraph) for paragraph in texts[0].split(b"\n\n") if _has(paragraph, set(names))]
    return [owner for owner in owners if owner.name]


def _has(paragraph: bytes, wanted: set[bytes]) -> bool:
    folder = b""
    for line in paragraph.split(b"\n"):
        if line.startswith(b"F:"):
            folder = line[2:]
            if folder in wanted:
                return True
        elif line.startswith(b"R:") and (folder + b"/" + line[2:] if folder else line[2:]) in wanted:
            return True
    return False


def _owner(paragraph: bytes) -> Owner:
    facts = {line[:2]: line[2:].decode(errors="replace") for line in paragraph.split(b"\n") if line[1:2] == b":"}
    return Owner(NAME, facts.get(b"P:", ""), facts.get(b"V:", ""), facts.get(b"A:", ""))
