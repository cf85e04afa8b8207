"""Where COPY and `--mount=type=bind` read from: the layers of a stage or an image, or the files of a context."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from attrs import frozen

from layerstore import ChainID, Store
from layerstore.build.errors import Place
from layerstore.build.steps.choosing import Skip, choose
from layerstore.build.steps.files import digest_of
from layerstore.build.steps.laying import Chosen
from layerstore.gathering import Piece, layer_of

__all__ = ["FolderOfHost", "Layers", "Origin"]


class Origin(Protocol):
    """One of them."""

    @property
    def folder(self) -> str | None:
        """The path on this machine at which all of it, and nothing else, is; None if there is no such path."""
        ...

    def open_tree(self) -> AbstractContextManager[int]:
        """While inside: a descriptor of its root."""
        ...

    def layers(self) -> ChainID | None:
        """All of it as layers, which are made if there are none."""
        ...

    def quick_key(self) -> str | None:
        """What it is known by without reading anything of it; None if it has to be read."""
        ...

    def choose(self, sources: Sequence[str], *, parents: bool, exclude: Sequence[str], place: Place) -> list[Chosen]:
        """What sources of a COPY mean in it. Raises `BuildError` for one that means nothing."""
        ...

    def digest(self, chosen: Sequence[Chosen]) -> str:
        """What was chosen, without times: the same for equal content, wherever it is."""
        ...


@frozen
class Layers:
    """The layers of a stage or an image."""

    store: Store
    top: ChainID | None

    @property
    def folder(self) -> None:
        """They are mounted for who reads them, and nowhere else."""
        return None

    def open_tree(self) -> AbstractContextManager[int]:
        """See `Origin`."""
        return self.store.open_layers(self.top)

    def layers(self) -> ChainID | None:
        """See `Origin`."""
        return self.top

    def quick_key(self) -> str:
        """See `Origin`."""
        return f"layers {self.top}"

    def choose(self, sources: Sequence[str], *, parents: bool, exclude: Sequence[str], place: Place) -> list[Chosen]:
        """See `Origin`."""
        with self.open_tree() as root:
            return choose(root, sources, parents=parents, skip=None, exclude=skip_of(exclude), place=place)

    def digest(self, chosen: Sequence[Chosen]) -> str:
        """See `Origin`."""
        with self.open_tree() as root:
            return digest_of(root, entries_of(chosen))


@frozen
class FolderOfHost:
    """A folder of this machine, read in place, without what its .dockerignore leaves out."""

    store: Store
    path: str
    ignored: tuple[str, ...] = ()

    @property
    def folder(self) -> str | None:
        """See `Origin`."""
        return None if self.ignored else os.path.realpath(self.path)

    @contextmanager
    def open_tree(self) -> Iterator[int]:
        """See `Origin`."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def layers(self) -> ChainID | None:
        """See `Origin`."""
        place = Place(self.path, 0, 0, "")
        with self.open_tree() as root:
            chosen = self.choose(["/"], parents=False, exclude=(), place=place)
            entries = [(path, path) for one in chosen for path, _ in one.below]
            return self.store.add_layer(layer_of([Piece(root, entries)])).chain_id

    def quick_key(self) -> None:
        """See `Origin`."""
        return

    def choose(self, sources: Sequence[str], *, parents: bool, exclude: Sequence[str], place: Place) -> list[Chosen]:
        """See `Origin`."""
        with self.open_tree() as root:
            skip = skip_of(self.ignored)
            return choose(root, sources, parents=parents, skip=skip, exclude=skip_of(exclude), place=place)

    def digest(self, chosen: Sequence[Chosen]) -> str:
        """See `Origin`."""
        with self.open_tree() as root:
            return digest_of(root, entries_of(chosen))


def entries_of(chosen: Sequence[Chosen]) -> list[tuple[bytes, bytes]]:
    """What was chosen, by its path and the name that counts."""
    found: list[tuple[bytes, bytes]] = []
    for number, one in enumerate(chosen):
        name = b"%d/" % number + (one.path.rpartition(b"/")[2] if one.keeps is None else one.keeps)
        if not one.is_folder or one.keeps is not None:
            found.append((one.path, name))
        start = len(one.path) + 1 if one.path else 0
        found += [(path, b"%d/%b" % (number, path[start:])) for path, _ in one.below]
    return found


def skip_of(patterns: Sequence[str]) -> Skip | None:
    """What patterns as those of .dockerignore leave out."""
    if not patterns:
        return None
    from e2b_dockerfile_utils import PatternMatcher

    matcher = PatternMatcher(list(patterns))
    again = any(pattern.startswith("!") for pattern in patterns)

    def skip(path: str, is_folder: bool) -> bool:  # noqa: FBT001
        if path.endswith("/"):  # is there nothing to be looked for below?
            return not again and bool(matcher.matches(path.rstrip("/")))
        return bool(matcher.matches(path))

    return skip
