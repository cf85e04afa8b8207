"""Layers that are pulled lazily: where an image has indexes, these come instead of its blobs.

A layer without an index, or in a registry that gives out no parts of blobs, comes whole, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self

from attrs import evolve

from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, LayerstoreError
from layerstore.layers.lazy import Lazy
from layerstore.manifests import Descriptor
from layerstore.manifests.media_types import is_foreign
from layerstore.registry.client.blobs import NoRanges
from layerstore.registry.forms import compression_of
from layerstore.registry.indexing import AttachedIndexes, attached_to
from layerstore.registry.transport.words import printable
from layerstore.seekable import LayerIndex, Order
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.layers import LayerSource
    from layerstore.registry.arriving import Blob
    from layerstore.registry.client.repository import Repository
    from layerstore.tar import Readable

__all__ = ["Ahead", "Lazily"]

_TABLED = "it has no index, and its table of contents does not say what its tar is to the byte (push it --with-index)"


@frozen
class Ahead:
    """What is done before anybody reads. `begin` has who fetches layers ready.

    `order`: what is wanted first; else, if it is to be `recorded`, the order that is attached to the image.
    """

    begin: Callable[[], object]
    order: Order | None = None
    recorded: bool = True


class Lazily:
    """The lazy layers of one image, whose manifest is `image`. `told` is given lines for a person. A context manager.

    What is needed is asked for at once, as far as it is known.
    """

    def __init__(
        self,
        repository: Repository,
        image: Digest,
        told: Callable[[str], None] | None,
        ahead: Ahead,
        tabled: Collection[Digest] = (),
    ) -> None:
        """`tabled`: the blobs that have a table of contents."""
        self._tabled = tabled
        self._repository = repository
        self._image = image
        self._told = told
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(4, "layerstore-lazily")
        self._asked = self._pool.submit(self._ask)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def sources(self, blobs: Sequence[Blob], sources: Sequence[LayerSource]) -> list[LayerSource]:
        """The same sources, of which those can be lazy that have an index."""
        return [
            evolve(
                source,
                lazily=partial(self._layer, blob),
                open=partial(self._opened, blob, source.open),
                expect=None,
            )
            for blob, source in zip(blobs, sources, strict=True)
        ]

    def _ask(self) -> AttachedIndexes:
        """While the config comes: what is attached to the image, and who is going to fetch its layers begins."""
        try:
            found = attached_to(self._repository, self._image)
        except LayerstoreError as error:
            self._say(f"whether the image has indexes cannot be told: {error.message}")
            return AttachedIndexes({}, None)
        if found.indexes:
            self._pool.submit(self._begin)
            self._order = self._pool.submit(self._read_order, found.order)
        return found

    def _begin(self) -> None:
        with suppress(LayerstoreError):  # which is told when it is needed
            self._ahead.begin()

    def _read_order(self, found: Descriptor | None) -> Order | None:
        """The order in which the image's layers are wanted."""
        if self._ahead.order is not None or not self._ahead.recorded or found is None:
            return self._ahead.order
        try:
            what = "order of a first run"
            return Order.unpacked(self._repository.small_blob(found, what), f"the image's {what}")
        except LayerstoreError as error:
            self._say(f"in which order its layers are wanted cannot be told: {error.message}")
            return None

    @cached_property
    def _reasons(self) -> dict[Digest, str]:
        """Why layers are not lazy, by their blobs."""
        return {}

    def _layer(self, blob: Blob) -> Lazy | None:
        """The layer, if it can be lazy."""
        found = self._asked.result().indexes.get(blob.digest)
        if found is None or is_foreign(blob.media_type) or blob.data is not None:
            self._reasons[blob.digest] = _TABLED if blob.digest in self._tabled else "it has no index"
            return None
        try:
            gives_parts = self._pool.submit(self._try_part, blob)
            packed = self._repository.small_blob(found, "index of a layer")
            index = LayerIndex.unpacked(packed, self._repository.limits)
            _require_of(index, blob)
            gives_parts.result()
        except LayerstoreError as error:
            self._reasons[blob.digest] = error.message
            return None
        except NoRanges:
            self._reasons[blob.digest] = f"{self._repository.registry} gives out no parts of blobs"
            return None
        wanted = self._order.result()
        reads = () if wanted is None else wanted.of_layer(index.diff_id)
        return Lazy(packed, self._repository.wanted.complete, index.chunk, index.tar_size, reads)

    def _try_part(self, blob: Blob) -> None:
        with self._repository.blob(blob.digest, blob.size, start=0, end=1) as reader:
            reader.readinto(bytearray(1))

    def _opened(
        self, blob: Blob, open: Callable[[], AbstractContextManager[Readable]]
    ) -> AbstractContextManager[Readable]:
        self._say(f"{blob.label}: pulled whole, for {self._reasons.get(blob.digest, 'it cannot be lazy')}")
        return open()

    def _say(self, words: str) -> None:
        if self._told is not None:
            self._told(printable(words))


def _require_of(index: LayerIndex, blob: Blob) -> None:
    """Raise `InvalidArchive` for an index of another layer: nothing of it would ever be right."""
    is_its = (index.blob, index.size, index.diff_id) == (blob.digest, blob.size, blob.diff_id)
    if not is_its or index.compression != compression_of(blob.media_type):
        raise InvalidArchive("its index is that of another layer")
