"""The files that a build copies from, while they are looked at when a step asks, and each part of them once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from layerstore.build.context.digests import Digests
from layerstore.build.context.texts import Text
from layerstore.build.context.tree import Chosen, Tree
from layerstore.build.errors import Place

__all__ = ["Context"]


class Context:
    """An open context. Any thread may ask. `tree` is what is in it, `dockerfile` its Dockerfile if it was asked for.

    `folder` is the path on this machine at which all of it, and nothing else, is; None if there is no such path.
    `identity` is what it is known by if its files never alter (a ChainID).
    """

    def __init__(
        self,
        tree: Tree,
        digests: Digests,
        *,
        folder: str | None = None,
        dockerfile: Text | None = None,
        identity: str | None = None,
    ) -> None:
        self.tree = tree
        self.dockerfile = dockerfile
        self.folder = folder
        self._digests = digests
        self._identity = identity

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

    def digest_of(
        self, chosen: Sequence[Chosen], *, owners: bool = False, read: Callable[[int], object] = lambda size: None
    ) -> str:
        """The digest of what was chosen, without times: the same for equal content, wherever it lies.

        `read` is told the bytes of each file that has to be read for that. Raises `BuildError` when a file cannot be
        read.
        """
        return self._digests.of(self.tree.root, chosen, owners=owners, identity=self._identity, read=read)

    def altered(self, chosen: Sequence[Chosen]) -> list[bytes]:
        """The paths of what was chosen that are not what they were then, or not there, or new."""
        return [] if self._identity is not None else self.tree.altered(chosen)

    def digest(self, path: str) -> str:
        """The same of what is at a path and below it. Raises `BuildError` if nothing is."""
        return self.digest_of(self.choose([path]))
