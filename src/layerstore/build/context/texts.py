"""The two files of a context that say something to the builder: the Dockerfile and what is ignored."""

from __future__ import annotations

import os
import posixpath
import sys

from layerstore import KernelError, open_beneath
from layerstore.build.context.ignore import Ignore
from layerstore.build.errors import BuildError
from layerstore.values import frozen

__all__ = ["Text", "decoded", "find_dockerfile", "find_ignore"]

_NAMES = ("Dockerfile", "dockerfile", "Containerfile")
_IGNORE = ".dockerignore"
_LONGEST = 64 << 20


@frozen
class Text:
    """A Dockerfile: what errors call it, and what it says."""

    name: str
    text: str


def find_dockerfile(root: int, folder: str, file: str | None) -> Text:
    """The Dockerfile of a context, whose root is a descriptor and whose name is `folder`. See `open_context`."""
    if file == "-":
        return Text("-", decoded(sys.stdin.buffer.read(_LONGEST + 1), "-"))
    if file is not None and os.path.isfile(file):
        with open(file, "rb") as opened:
            return Text(os.path.basename(file), decoded(opened.read(_LONGEST + 1), file))
    for name in (file,) if file is not None else _NAMES:
        data = _read(root, name)
        if data is not None:
            return Text(name, decoded(data, name))
    wanted = file or _NAMES[0]
    there = os.listdir(root)
    names = sorted(each for each in there if "dockerfile" in each.lower())[:5]
    remedy = f"Name it with --file: there is {', '.join(names)}." if names else "Name it with --file."
    if wanted in there:
        remedy = "It is a folder, or a link that leads out of the context: name the file itself with --file."
    raise BuildError(
        f"failed to read dockerfile: {posixpath.join(folder, wanted)}: no such file", remedy=remedy, path=wanted
    )


def find_ignore(root: int, file: str | None) -> Ignore | None:
    """What is no part of a context; None if nothing says so."""
    beside = None if file is None else f"{file}{_IGNORE}"
    if beside is not None and os.path.isfile(beside):
        with open(beside, "rb") as opened:
            return Ignore(decoded(opened.read(_LONGEST + 1), beside), os.path.basename(beside))
    for name in (beside or f"{_NAMES[0]}{_IGNORE}", _IGNORE):
        data = _read(root, name)
        if data is not None:
            return Ignore(decoded(data, name), name)
    return None


def _read(root: int, path: str) -> bytes | None:
    """What a file of the context says; None if there is no such file."""
    try:
        descriptor = open_beneath(root, "/" + path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return file.read(_LONGEST + 1)
    except (KernelError, IsADirectoryError):
        return None


def decoded(data: bytes, name: str) -> str:
    """The text of a file, whatever its bytes are. Raises `BuildError` if it is absurdly long."""
    if len(data) > _LONGEST:
        raise BuildError(f"{name} is larger than {_LONGEST >> 20} MiB", path=name)
    return data.decode("utf-8-sig", errors="surrogateescape")
