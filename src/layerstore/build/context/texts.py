"""The two files of a context that say something to the builder: the Dockerfile and what is ignored.

Both are looked for by podman's names first, which docker does not know, then by docker's: whoever has written a
Containerfile beside a Dockerfile means it for the builder that knows both.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Iterator

from layerstore import KernelError, open_beneath
from layerstore.build.context.ignore import Ignore
from layerstore.build.errors import BuildError
from layerstore.values import frozen

__all__ = ["DEFAULT", "Text", "decoded", "find_dockerfile", "find_ignore", "ignore_names"]

DEFAULT = "Dockerfile"
_NAMES = ("Containerfile", DEFAULT, "dockerfile")
_IGNORES = (".containerignore", ".dockerignore")
_LONGEST = 64 << 20
_PREPROCESSED = re.compile(r"^[ \t]*#[ \t]*(?:include|define|undef|if|ifdef|ifndef|elif|else|endif)\b", re.MULTILINE)
"""Lines that mean something to cpp, which podman runs for `FILE.in`. In a Dockerfile they are comments."""


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
            return _plain(Text(os.path.basename(file), decoded(opened.read(_LONGEST + 1), file)))
    for name in (file,) if file is not None else _NAMES:
        data = _read(root, name)
        if data is not None:
            return _plain(Text(name, decoded(data, name)))
    wanted = file or DEFAULT
    there = os.listdir(root)
    names = sorted(each for each in there if re.search("dockerfile|containerfile", each.lower()))[:5]
    remedy = f"Name it with --file: there is {', '.join(names)}." if names else "Name it with --file."
    if wanted in there:
        remedy = "It is a folder, or a link that leads out of the context: name the file itself with --file."
    raise BuildError(
        f"failed to read dockerfile: {posixpath.join(folder, wanted)}: no such file", remedy=remedy, path=wanted
    )


def find_ignore(root: int, file: str | None, found: str = DEFAULT) -> Ignore | None:
    """What is no part of a context; None if nothing says so.

    It may be said beside the Dockerfile: that is `file`, as it was named, or else `found` in the context.
    """
    for name, in_context in _ignores(file, found):
        if not in_context and os.path.isfile(name):
            with open(name, "rb") as opened:
                return Ignore(decoded(opened.read(_LONGEST + 1), name), os.path.basename(name))
        data = _read(root, name) if in_context else None
        if data is not None:
            return Ignore(decoded(data, name), name)
    return None


def _ignores(file: str | None, found: str) -> Iterator[tuple[str, bool]]:
    """Where that may be said, and whether it is a path in the context: what is beside the Dockerfile comes first."""
    beside = [f"{file or found}{ending}" for ending in _IGNORES]
    if file is not None:
        yield from ((name, False) for name in beside)
    yield from ((name, True) for name in (*beside, *_IGNORES))


def ignore_names(dockerfile: str) -> tuple[str, ...]:
    """What in a context says what is no part of it."""
    return tuple(name for name, _ in _ignores(None, dockerfile))


def _plain(text: Text) -> Text:
    """The text, unless it is one for a preprocessor. Raises `BuildError`."""
    found = _PREPROCESSED.search(text.text) if text.name.endswith(".in") else None
    if found is not None:
        plain = os.path.basename(text.name).removesuffix(".in")
        raise BuildError(
            f"{text.name} is a text for cpp ({found.group().strip()}), which podman would run: nothing does so here",
            remedy=f"Do it yourself (`cpp -E -P {text.name} >{plain}`), and name that with --file.",
            path=text.name,
        )
    return text


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
