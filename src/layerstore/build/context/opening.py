"""A context by what it was called: a folder, a tar, standard input, a URL, a git repository.

A folder of this machine is read in place. A repository is checked out into a folder of the build. A tar becomes a layer
of its own, which nobody but the build needs, so that no entry of it leads anywhere; nothing is spooled.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from attrs import evolve

from layerstore import LayerSource, Store, StoredLayer, Transaction, open_stream
from layerstore.build.context.archives import begins_as_archive, is_tar
from layerstore.build.context.context import Context
from layerstore.build.context.digests import Digests
from layerstore.build.context.fetching import fetched, is_remote
from layerstore.build.context.git import checked_out, repository_of
from layerstore.build.context.ignore import Ignore
from layerstore.build.context.texts import DEFAULT, Text, decoded, find_dockerfile, find_ignore
from layerstore.build.context.tree import Tree
from layerstore.build.errors import BuildError
from layerstore.values import frozen

__all__ = ["Staging", "open_context"]

_HEAD = 4096


@frozen
class Staging:
    """Where a build keeps what it needs until its end: empty folders, and layers (`hold`, as a layer is recorded)."""

    folder: Callable[[], AbstractContextManager[Path]]
    hold: Callable[[Transaction, StoredLayer], object]
    check: Callable[[], object] = lambda: None
    """Called now and then by what takes long: it raises what ends it."""


@frozen
class _Wanted:
    """What `open_context` was told."""

    store: Store | None
    file: str | None
    name: str
    reads_dockerfile: bool
    ignores: bool
    staging: Staging | None

    def needs(self, what: str) -> tuple[Store, Staging]:
        if self.store is None or self.staging is None:
            raise BuildError(f"{self.name} cannot be {what} here", remedy="Name a folder.")
        return self.store, self.staging


@contextmanager
def open_context(
    source: str | os.PathLike[str],
    *,
    store: Store | None = None,
    file: str | None = None,
    name: str = "the build context",
    reads_dockerfile: bool = False,
    ignores: bool = True,
    staging: Staging | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[Context]:
    """While inside: the context that `source` names: a folder, a tar, `-`, a URL, a git repository (`URL#ref:folder`).

    Standard input (`stdin`) and what lies at a URL are a tar, compressed or not, or else a Dockerfile without a
    context. `store` keeps what is no folder, in the `staging` of a build, and remembers what was read.

    `file` is the Dockerfile: a path of this machine, or else one in the context, `-` for standard input; by default
    `Containerfile` in the context, else `Dockerfile`. It is read if `reads_dockerfile` says so. `FILE.containerignore`
    or `FILE.dockerignore` beside it, or else `.containerignore` or `.dockerignore` in the context, tells what is no
    part of it, unless `ignores` is false; both files may be left out by that themselves. `name` is what errors call
    the context. Raises `BuildError`.
    """
    text = os.fspath(source)
    wanted = _Wanted(store, file, name, reads_dockerfile, ignores, staging)
    with ExitStack() as after:
        yield _opened(text, wanted, stdin, after)


def _opened(source: str, wanted: _Wanted, stdin: BinaryIO | None, after: ExitStack) -> Context:
    if source == "-":
        if wanted.file == "-":
            raise BuildError(
                "standard input cannot be both the Dockerfile and the build context",
                remedy="Give one of them by its path, or leave out --file: a Dockerfile alone is understood there.",
            )
        return _stream(stdin or sys.stdin.buffer, "standard input", wanted, after)
    repository = repository_of(source)
    if repository is not None and not os.path.isdir(source):
        store, staging = wanted.needs("a git repository")
        folder, limits = after.enter_context(staging.folder()), store.config.limits
        place, _ = checked_out(repository, folder, limits=limits, check=staging.check)
        return _folder(str(place), wanted, after, shown=str(repository))
    if is_remote(source):
        store, staging = wanted.needs("a URL")
        folder, limits = after.enter_context(staging.folder()), store.config.limits
        found = fetched(source, None, folder, limits, check=staging.check, place=None)
        return _stream(after.enter_context(found.path.open("rb")), source, wanted, after)
    if os.path.isfile(source):
        store, _ = wanted.needs("a tar")
        path = Path(source)
        opened = after.enter_context(path.open("rb"))
        if not is_tar(opened, store.config.limits):
            raise BuildError(f"{wanted.name} {source} is neither a folder nor a tar", remedy="Name a folder or a tar.")
        opened.seek(0)
        return _tar(opened, source, wanted, after)
    return _folder(source, wanted, after)


def _folder(folder: str, wanted: _Wanted, after: ExitStack, *, shown: str | None = None) -> Context:
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BuildError(
            f"{wanted.name} {folder} cannot be read: {error.strerror}",
            remedy="Name a folder that is there, a tar, a URL, a git repository, or - for standard input.",
            path=folder,
        ) from None
    after.callback(os.close, root)
    dockerfile = find_dockerfile(root, shown or folder, wanted.file) if wanted.reads_dockerfile else None
    tree = Tree(root, wanted.name, ignore=_ignore(root, wanted, dockerfile))
    return Context(tree, Digests(wanted.store), folder=os.path.abspath(folder), dockerfile=dockerfile)


def _ignore(root: int, wanted: _Wanted, dockerfile: Text | None) -> Ignore | None:
    if not wanted.ignores:
        return None
    return find_ignore(root, wanted.file, DEFAULT if dockerfile is None else dockerfile.name)


def _stream(stream: BinaryIO, name: str, wanted: _Wanted, after: ExitStack) -> Context:
    """A tar, or a Dockerfile without a context."""
    head = b""
    while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
        head += more
    whole = _Chained(head, stream)
    if begins_as_archive(head):
        return _tar(whole, name, wanted, after)
    if not wanted.reads_dockerfile:
        raise BuildError(f"{wanted.name}: {name} is no tar", remedy="Give it a tar, compressed or not.")
    _, staging = wanted.needs("a Dockerfile alone")
    text = Text("Dockerfile", decoded(whole.rest(), name))
    empty = _folder(str(after.enter_context(staging.folder())), _without_file(wanted), after)
    return Context(empty.tree, Digests(), folder=empty.folder, dockerfile=text)


def _without_file(wanted: _Wanted) -> _Wanted:
    return evolve(wanted, file=None, reads_dockerfile=False, ignores=False)


def _tar(stream: BinaryIO | _Chained, name: str, wanted: _Wanted, after: ExitStack) -> Context:
    store, staging = wanted.needs("a tar")
    tar = LayerSource(lambda: open_stream(stream, limits=store.config.limits), label=name)
    layer = store.add_layer(tar, None, record=staging.hold)
    root = after.enter_context(store.open_layers(layer.chain_id))
    dockerfile = find_dockerfile(root, name, wanted.file) if wanted.reads_dockerfile else None
    tree = Tree(root, wanted.name, ignore=_ignore(root, wanted, dockerfile))
    return Context(tree, Digests(store), dockerfile=dockerfile, identity=str(layer.chain_id))


class _Chained:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, as far as there is something; 0 at the end."""
        if not self._head:
            data = self._stream.read(len(buffer))
        else:
            data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def rest(self) -> bytes:
        """All of it, up to more than any Dockerfile has."""
        return self._head + self._stream.read(64 << 20)
