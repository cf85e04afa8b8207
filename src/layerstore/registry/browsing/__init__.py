"""The tree of an image that is in a registry: read there, and no more of it than is asked for.

`blobs` reads parts of blobs and counts them. A layer with a table of contents (`manifests.tables`) is read by ranges
(`tabled`), one with an index that was pushed beside it (`indexed`) too, any other in one pass (`passing`); what each of
them means the unpacker says, as of layers in a store (`listing`). `spooling` puts files where they can be read in any
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final

from layerstore import manifests, platforms, reference
from layerstore.config import Config
from layerstore.digest import Digest
from layerstore.limits import Limits
from layerstore.manifests import Descriptor
from layerstore.manifests.tables import place_of
from layerstore.reference import DEFAULT_TAG
from layerstore.registry.browsing.blobs import Counter, Parts
from layerstore.registry.browsing.indexed import IndexedReader
from layerstore.registry.browsing.passing import PassReader, Room
from layerstore.registry.browsing.tabled import TableReader
from layerstore.registry.client.manifests import image_in
from layerstore.registry.client.repository import Repository
from layerstore.registry.indexing import indexes_of
from layerstore.registry.queries import settings_of
from layerstore.registry.transport.http import Http
from layerstore.trees import Tree
from layerstore.trees.readers import SliceReader

__all__ = ["RemoteTree", "browse"]

_KEPT: Final = 256 << 20
"""Bytes of tars that are kept in temporary files, so that their files need no second reading."""


class RemoteTree(Tree):
    """The tree of an image in a registry. Files that were opened have to be read before it is closed."""

    def __init__(self, slices: Sequence[SliceReader], counter: Counter) -> None:
        super().__init__(slices)
        self._counter = counter

    @property
    def fetched(self) -> int:
        """Bytes of its layers that were asked for and came, so far."""
        return self._counter.bytes


@contextmanager
def browse(
    name: str, *, platform: str | None = None, config: Config | str | Path | None = None, indexes: bool = False
) -> Iterator[RemoteTree]:
    """While inside: the tree of the image that a name in a registry means, for this machine or for `platform`.

    Neither root nor a store is needed. Of a layer with a table of contents whose digest the manifest names (eStargz,
    zstd:chunked) the table is read and what is asked for, by ranges, and each piece is proved by its digest. Of a plain
    tar the headers are read. Any other layer that is asked is read whole, and proved by its digest; up to 256 MiB of
    what is inflated are kept in temporary files, and beyond that files are read from the front once more. What the
    store would refuse is refused, and in the same words. `config` is a daemon.json. Raises `NotFound`, `RegistryError`,
    `InvalidArchive`.

    `indexes`: such a layer is read by ranges, too, if `push --with-index` has attached its index to the image. That
    says what each piece has to be, and no digest of the image covers it: it is believed as whoever may push there is.
    """
    settings, parsed = settings_of(config), reference.parse(name.removeprefix("docker://"))
    wanted = None if platform is None else platforms.parse(platform)
    with Http(settings) as http:
        repository = Repository.of_images(http, settings, parsed)
        top = repository.manifest(parsed.digest or parsed.tag or DEFAULT_TAG)
        way = image_in(top, wanted, lambda one: repository.manifest(one.digest, expected=one.digest), what=name)
        manifests.check_layers(way.contents.layers)
        counter, room = Counter(), Room(_KEPT)
        layers: list[SliceReader] = []
        attached = _Attached(repository, way.documents[-1].digest, counter)
        for one in way.contents.layers:
            below = Tree(layers) if layers else None
            reader = _reader(Parts(repository, one, counter), below, settings.limits, room)
            if indexes and isinstance(reader, PassReader):
                reader = attached.reader(one, below, reader)
            layers = [reader, *layers]
        with RemoteTree(layers, counter) as tree:
            yield tree


class _Attached:
    """The indexes that are attached to an image, asked for when the first of them is needed."""

    def __init__(self, repository: Repository, image: Digest, counter: Counter) -> None:
        self._repository = repository
        self._image = image
        self._counter = counter
        self._lock = Lock()
        self._indexes: Mapping[Digest, Descriptor] | None = None

    def reader(self, layer: Descriptor, below: Tree | None, otherwise: PassReader) -> SliceReader:
        """Of a layer, which `otherwise` reads if it has no index."""
        limits = self._repository.limits
        find = partial(self._find, layer.digest)
        return IndexedReader(self._parts(layer), below, limits, find, self._parts, otherwise)

    def _parts(self, blob: Descriptor) -> Parts:
        return Parts(self._repository, blob, self._counter)

    def _find(self, blob: Digest) -> bytes | None:
        with self._lock:
            if self._indexes is None:
                self._indexes = indexes_of(self._repository, self._image)
        found = self._indexes.get(blob)
        return None if found is None else self._repository.small_blob(found, "index of a layer")


def _reader(parts: Parts, below: Tree | None, limits: Limits, room: Room) -> SliceReader:
    place = place_of(parts.layer)
    return PassReader(parts, below, limits, room) if place is None else TableReader(parts, below, place, limits)
