"""The files that a build copies from: a folder of this machine, which is read in place.

A context is opened once a build. What is in it is looked at when a step asks, and each part of it once.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from attrs import frozen

from layerstore import KernelError, Store, open_beneath
from layerstore.build.context.digests import Digests
from layerstore.build.context.ignore import Ignore
from layerstore.build.context.tree import Chosen, Tree
from layerstore.build.errors import BuildError, Place

__all__ = ["Context", "Text", "open_context"]

_NAMES = ("Dockerfile", "dockerfile", "Containerfile")
_IGNORE = ".dockerignore"
_LONGEST = 64 << 20


@frozen
class Text:
    """A Dockerfile: what errors call it, and what it says."""

    name: str
    text: str


class Context:
    """An open context. Any thread may ask. `tree` is what is in it, `dockerfile` its Dockerfile if it was asked for.

    `folder` is the path on this machine at which all of it, and nothing else, is; None if there is no such path.
    """

    def __init__(
        self, tree: Tree, digests: Digests, *, folder: str | None = None, dockerfile: Text | None = None
    ) -> None:
        self.tree = tree
        self.dockerfile = dockerfile
        self.folder = folder
        self._digests = digests

    @property
    def root(self) -> int:
        """A descriptor of its root directory, open as long as the context is."""
        return self.tree.root

    def open_tree(self) -> AbstractContextManager[int]:
        """While inside: the same."""
        return nullcontext(self.tree.root)

    def quick_key(self) -> None:
        """Nothing is known of it before it is read."""
        return

    def choose(
        self, sources: Sequence[str], *, parents: bool = False, exclude: Sequence[str] = (), place: Place | None = None
    ) -> list[Chosen]:
        """What the sources of COPY or ADD mean. Raises `BuildError`, with `place`."""
        return self.tree.choose(sources, parents=parents, exclude=exclude, place=place)

    def digest_of(self, chosen: Sequence[Chosen], *, owners: bool = False) -> str:
        """The digest of what was chosen, without times: the same for equal content, wherever it lies.

        Raises `BuildError` when a file cannot be read.
        """
        return self._digests.of(self.tree.root, chosen, owners=owners)

    def digest(self, path: str) -> str:
        """The same of what is at a path and below it. Raises `BuildError` if nothing is."""
        return self.digest_of(self.choose([path]))


@contextmanager
def open_context(
    source: str | os.PathLike[str],
    *,
    store: Store | None = None,
    file: str | None = None,
    name: str = "the build context",
    reads_dockerfile: bool = False,
) -> Iterator[Context]:
    """While inside: the context at `source`, a folder of this machine.

    `file` is the Dockerfile: a path of this machine, or else one in the context; by default `Dockerfile` in the
    context. It is read if `reads_dockerfile` says so. `FILE.dockerignore` beside it, or else `.dockerignore` in the
    context, tells what is no part of it; both files may be left out by that themselves. `name` is what errors call the
    context. `store` remembers what was read. Raises `BuildError`.
    """
    folder = os.fspath(source)
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BuildError(
            f"{name} {folder} cannot be read: {error.strerror}", remedy="Name a folder that is there.", path=folder
        ) from None
    try:
        dockerfile = _dockerfile(root, folder, file) if reads_dockerfile else None
        ignore = _ignore(root, file)
        tree = Tree(root, name, ignore=ignore)
        yield Context(tree, Digests(store), folder=os.path.abspath(folder), dockerfile=dockerfile)
    finally:
        os.close(root)


def _dockerfile(root: int, folder: str, file: str | None) -> Text:
    if file is not None and os.path.isfile(file):
        with open(file, "rb") as opened:
            return Text(os.path.basename(file), _decoded(opened.read(_LONGEST + 1), file))
    for name in (file,) if file is not None else _NAMES:
        data = _read(root, name)
        if data is not None:
            return Text(name, _decoded(data, name))
    wanted = file or _NAMES[0]
    names = sorted(each for each in os.listdir(root) if "dockerfile" in each.lower())[:5]
    raise BuildError(
        f"failed to read dockerfile: {posixpath.join(folder, wanted)}: no such file",
        remedy=f"Name it with --file: there is {', '.join(names)}." if names else "Name it with --file.",
        path=wanted,
    )


def _ignore(root: int, file: str | None) -> Ignore | None:
    beside = None if file is None else f"{file}{_IGNORE}"
    if beside is not None and os.path.isfile(beside):
        with open(beside, "rb") as opened:
            return Ignore(_decoded(opened.read(_LONGEST + 1), beside), os.path.basename(beside))
    for name in (beside or f"{_NAMES[0]}{_IGNORE}", _IGNORE):
        data = _read(root, name)
        if data is not None:
            return Ignore(_decoded(data, name), name)
    return None


def _read(root: int, path: str) -> bytes | None:
    """What a file of the context says; None if there is no such file."""
    try:
        descriptor = open_beneath(root, "/" + path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return file.read(_LONGEST + 1)
    except (KernelError, IsADirectoryError):
        return None


def _decoded(data: bytes, name: str) -> str:
    if len(data) > _LONGEST:
        raise BuildError(f"{name} is larger than {_LONGEST >> 20} MiB", path=name)
    return data.decode("utf-8-sig", errors="surrogateescape")
