"""Where COPY and `--mount=type=bind` read from: the layers of a stage or an image, or the files of a context."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from attrs import field

from layerstore import ChainID, Store, StoredLayer, Transaction
from layerstore.build.context import Chosen, Context, Digests, Tree
from layerstore.build.errors import Place
from layerstore.gathering import Piece, layer_of
from layerstore.values import define, frozen

__all__ = ["Files", "LayerOrigin", "Origin"]

Record = Callable[[Transaction, StoredLayer], object]


class Origin(Protocol):
    """One of them."""

    @property
    def has_owners(self) -> bool:
        """Do its files belong to users of an image? Those of a context belong to people of some machine."""
        ...

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

    def digest_of(self, chosen: Sequence[Chosen]) -> str:
        """What was chosen, without times, and without owners that mean nothing here: the same for equal content."""
        ...

    def altered(self, chosen: Sequence[Chosen]) -> Sequence[bytes]:
        """The paths of what was chosen that are not what they were then."""
        ...


@frozen
class LayerOrigin:
    """The layers of a stage or an image; `name` is what errors call it."""

    store: Store
    top: ChainID | None
    name: str

    @property
    def has_owners(self) -> bool:
        """See `Origin`."""
        return True

    @property
    def folder(self) -> None:
        """They are mounted for who reads them, and nowhere else."""
        return

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
            return Tree(root, self.name).choose(sources, parents=parents, exclude=exclude, place=place)

    def digest_of(self, chosen: Sequence[Chosen]) -> str:
        """See `Origin`."""
        with self.open_tree() as root:
            return Digests(self.store).of(root, chosen, owners=True, identity=str(self.top))

    def altered(self, chosen: Sequence[Chosen]) -> Sequence[bytes]:
        """None: layers never are."""
        return ()


@define
class Files:
    """A context that is open for as long as the build goes on."""

    store: Store
    context: Context
    hold: Record
    """Keeps a layer until the end of the build."""
    looked: Callable[[Tree], object] = lambda tree: None
    """Told when something was looked at."""
    reading: Callable[[], AbstractContextManager[Callable[[int], object]]] = lambda: nullcontext(lambda size: None)
    """Around what reads it: what is given is told the bytes of each file that has to be read."""
    _layers: ChainID | None = field(default=None, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    @property
    def has_owners(self) -> bool:
        """See `Origin`."""
        return False

    @property
    def folder(self) -> str | None:
        """See `Origin`."""
        return self.context.folder if self.context.tree.ignore is None else None

    def open_tree(self) -> AbstractContextManager[int]:
        """See `Origin`."""
        return self.context.open_tree()

    def layers(self) -> ChainID | None:
        """See `Origin`."""
        with self._lock:
            if self._layers is None:
                [whole] = self.context.choose(["/"])
                self.looked(self.context.tree)
                entries = [(path, path) for path, _ in whole.below]
                source = layer_of([Piece(self.context.root, entries)])
                self._layers = self.store.add_layer(source, record=self.hold).chain_id
            return self._layers

    def quick_key(self) -> None:
        """See `Origin`."""
        return

    def choose(self, sources: Sequence[str], *, parents: bool, exclude: Sequence[str], place: Place) -> list[Chosen]:
        """See `Origin`."""
        chosen = self.context.choose(sources, parents=parents, exclude=exclude, place=place)
        self.looked(self.context.tree)
        return chosen

    def digest_of(self, chosen: Sequence[Chosen]) -> str:
        """See `Origin`."""
        with self.reading() as read:
            return self.context.digest_of(chosen, read=read)

    def altered(self, chosen: Sequence[Chosen]) -> Sequence[bytes]:
        """See `Origin`."""
        return self.context.altered(chosen)
