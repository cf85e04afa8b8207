"""Where images lie, as people write it: `docker://debian:12`, `oci:FOLDER:TAG`, `docker-archive:FILE`, or a path.

The words are those of skopeo and podman (containers-transports(5)). What begins with none of them is a path, and stays
what it is: `./oci:x` is a file of that name. Nothing is opened here, and no host is asked.
"""

from __future__ import annotations

import os
import re
from typing import Final, TypeAlias

from layerstore import reference
from layerstore.errors import ConfigError, InvalidReference
from layerstore.reference import Reference
from layerstore.values import frozen

FORMS: Final = (
    "docker://NAME[:TAG|@DIGEST], oci:FOLDER[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], or a path"
)

_WORD: Final = re.compile(
    r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*"
)
"""What an image may be called in an OCI layout (OCI image spec, annotations.md, "…image.ref.name")."""

_KINDS: Final = ("docker-archive", "oci", "oci-archive")
_OTHERS: Final = ("containers-storage:", "dir:", "docker-daemon:", "docker:", "ostree:", "registry:", "tarball:")
"""What skopeo knows beside these, or is written when one of them is meant."""


@frozen
class InRegistry:
    """An image of a registry, by name."""

    reference: Reference


@frozen
class InArchive:
    """An image of an archive, or all that it has.

    `form` is "oci" (a folder), "oci-archive" or "docker-archive". `name` is what the image is called there: in full for
    a docker-archive, any word for an OCI layout; `index` is its place in the list of a docker-archive, from 0.
    """

    form: str
    path: str
    name: str | None = None
    index: int | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """What to ask an archive for: a name, or its number as `choosing` knows it; nothing for all that it has."""
        if self.index is not None:
            return (f"@{self.index}",)
        return () if self.name is None else (self.name,)

    def only_name(self, count: int) -> str | None:
        """The name for what is written there, of which there are `count`. Raises `ConfigError`."""
        if self.index is not None:
            raise ConfigError(f"@{self.index} is no name for an image that is written", remedy="Name it.")
        if self.name is not None and count != 1:
            raise ConfigError(
                f"there is one name, {self.name}, for {count} images",
                remedy="Save one of them, or leave the name away.",
            )
        return self.name


@frozen
class AtPath:
    """A path, or "-". What lies there has to be looked at."""

    path: str


Place: TypeAlias = InRegistry | InArchive | AtPath


def parse(text: str) -> Place:
    """The place that `text` means. Raises `InvalidReference` for a name, `ConfigError` for the rest."""
    form, colon, rest = text.partition(":")
    if not colon:
        return AtPath(text)
    match form:
        case "docker" if rest.startswith("//"):
            return InRegistry(reference.parse(rest[2:]))
        case "oci" | "oci-archive":
            path, named = _split(text, rest)
            if named and not _WORD.fullmatch(named):
                raise ConfigError(
                    f"{text!r}: an image of an OCI layout cannot be called {named!r}",
                    remedy="A name there is letters and digits, with '-', '.', '_', ':', '@', '+', '/' between.",
                )
            return InArchive(form, path, named or None)
        case "docker-archive":
            return _docker_archive(text, rest)
    return AtPath(text)


def require_known(place: Place) -> Place:
    """`place`, unless it is a path that is not there and looks like a place of another kind: `ConfigError`.

    One that nearly begins as a place does is mistyped: a folder of that name would be made without a word.
    """
    path = place.path if isinstance(place, AtPath) else ""
    word, colon, rest = path.partition(":")
    is_word = bool(colon) and "/" not in word
    near = next((kind for kind in _KINDS if is_word and _is_nearly(word, kind)), None)
    if near is not None and not os.path.lexists(path):
        raise ConfigError(
            f"{path!r} is no place that is known, did you mean {near}:{rest}?",
            remedy=f"An image is at {FORMS}. A file of that name is ./{path}.",
        )
    if (path.startswith(_OTHERS) or "://" in path) and not os.path.lexists(path):
        raise ConfigError(f"{path!r} is no place that is known", remedy=f"An image is at {FORMS}.")
    return place


def _is_nearly(word: str, kind: str) -> bool:
    """Is it that word but for one letter, or for two of a long one? `archive` and `doc` are words of their own."""
    most = 1 if len(kind) < 8 else 2
    if abs(len(word) - len(kind)) > most:
        return False
    row = list(range(len(kind) + 1))  # how many letters the word's beginning is from each beginning of the other
    for number, letter in enumerate(word, 1):
        above, row = row, [number]
        for at, other in enumerate(kind):
            row.append(min(above[at] + (letter != other), above[at + 1] + 1, row[at] + 1))
    return row[-1] <= most


def _docker_archive(text: str, rest: str) -> InArchive:
    path, named = _split(text, rest)
    if not named:
        return InArchive("docker-archive", path)
    if named.startswith("@"):
        # What int() takes beyond digits ("+1", "1_0") is not meant.
        if not re.fullmatch("[0-9]{1,9}", named[1:]):
            raise ConfigError(f"{text!r}: {named!r} is no number of an image", remedy="The first is @0.")
        return InArchive("docker-archive", path, index=int(named[1:]))
    if "@" in named:
        raise InvalidReference(
            f"{text!r}: a docker-archive knows no digests of manifests", remedy="Name a tag, or the number: @0."
        )
    return InArchive("docker-archive", path, reference.normalise(named))


def _split(text: str, rest: str) -> tuple[str, str]:
    """Path and name: as in skopeo the first colon parts them, so a path has none."""
    path, _, named = rest.partition(":")
    if not path:
        raise ConfigError(f"{text!r} names no path", remedy=f"An image is at {FORMS}.")
    return path, named
