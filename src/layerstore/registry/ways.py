"""The places that may have a layer: a blob that is kept here, remotes, the registries where it was seen; in that order.

Used where one layer is wanted that is not being pulled: to mend it, or because an archive lacks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from layerstore.blobs import KnownBlob
from layerstore.compression import open_stream
from layerstore.digest import DiffID, Digest
from layerstore.errors import InvalidArchive, LayerstoreError
from layerstore.layers import LayerSource
from layerstore.limits import Limits
from layerstore.reference import Reference
from layerstore.registry.client.repository import Repository
from layerstore.registry.remotes import RemoteFailed, Remotes, Wanted
from layerstore.registry.remotes.remote import Reading
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.settings import Settings
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.config import Config
    from layerstore.tar import Readable
    from layerstore.transfer.incoming import Blob

__all__ = ["Way", "Ways", "source_of", "ways"]


@frozen
class Way:
    """A place that may have a layer, in words; and the layer's tar from there."""

    place: str
    open: Callable[[], AbstractContextManager[Readable]]


@frozen
class Ways:
    """The ways to layers of a store. See `ways`."""

    blobs: Blobs
    remotes: Remotes
    http: Http
    settings: Settings

    def of(self, diff_id: DiffID, more: Sequence[KnownBlob] = ()) -> Iterator[Way]:
        """Those to a layer, each looked for when the one before was of no use. `more`: blobs that may hold it."""
        known = {form.digest: form for form in (*self.blobs.forms_of(diff_id), *more)}
        for digest in known:
            yield Way("a blob that is kept", partial(self.blobs.opened, digest))
        plain = Wanted(Digest(diff_id), 0, diff_id)
        wanted = [Wanted(form.digest, form.size, diff_id) for form in known.values()]
        with self.remotes.hunt(wanted or [plain]) as hunt:
            for remote, digest, size in hunt.offers([*known, plain.digest]):
                yield Way(
                    remote.name, partial(_inflated, partial(remote.read, digest, 0, size), digest, self.blobs.limits)
                )
        for form in known.values():
            for place in self.blobs.all_places(form.digest):
                where = Reference(place.registry, place.repository, None, None)
                yield Way(
                    where.familiar_name,
                    partial(_inflated, partial(self._from, where, form), form.digest, self.blobs.limits),
                )

    def raw(self, digest: Digest) -> Iterator[Way]:
        """Those to a blob, as it is: remotes that have it, the registries where it was seen. It is for the reader to
        verify."""
        size = self.blobs.size_of_kept(digest) or 0
        wanted = [Wanted(digest, size, DiffID(digest))]
        with self.remotes.hunt(wanted) as hunt:
            for remote, found, there in hunt.offers([digest]):
                yield Way(remote.name, partial(_reading, partial(remote.read, found, 0, there), self.blobs.limits))
        for place in self.blobs.all_places(digest):
            where = Reference(place.registry, place.repository, None, None)
            client = Repository.of_blobs(self.http, self.settings, where)
            yield Way(where.familiar_name, partial(_reading, partial(client.blob, digest, size), self.blobs.limits))

    def _from(self, where: Reference, form: KnownBlob) -> Reading:
        return Repository.of_blobs(self.http, self.settings, where).blob(form.digest, form.size)


@contextmanager
def ways(config: Config, blobs: Blobs, remotes: Sequence[str] = ()) -> Iterator[Ways]:
    """The ways by a daemon.json; `remotes` are asked before its own."""
    settings = Settings.of(config)
    with (
        Remotes([*remotes, *config.remotes], settings=settings, store_id=blobs.store_id) as opened,
        Http(settings) as http,
    ):
        yield Ways(blobs, opened, http, settings)


def source_of(layer: Blob, config: Config, blobs: Blobs) -> LayerSource:
    """A layer that an archive lists and lacks. If what the first place gives is wrong, one more is tried."""
    used: list[str] = []
    more = []
    if layer.digest is not None and layer.size:
        more.append(KnownBlob(layer.digest, layer.diff_id, layer.size, ""))

    @contextmanager
    def opened() -> Iterator[Readable]:
        with ways(config, blobs) as all_ways, ExitStack() as stack:
            for way in all_ways.of(layer.diff_id, more):
                if way.place in used:
                    continue
                used.append(way.place)
                try:
                    stream = stack.enter_context(way.open())
                except LayerstoreError:
                    continue
                yield stream
                return
        raise InvalidArchive(
            f"layer {layer.diff_id} ({layer.member}) is not in the archive, and no remote has it as it should be",
            remedy="The archive is incomplete: get it again, or name a remote that has the layer.",
            layer=layer.diff_id,
            path=layer.member,
        )

    return LayerSource(open=opened, diff_id=layer.diff_id, instead=opened)


class _FromRemote:
    """What a remote gives. Where it breaks off, it is wrong: another has to give all of it.

    Nor is it larger than a layer: `LimitExceeded`.
    """

    def __init__(self, reading: Reading, limits: Limits) -> None:
        self._reading = reading
        self._limits = limits
        self._size = 0

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            count = self._reading.readinto(buffer)
        except RemoteFailed as error:
            raise InvalidArchive(error.message) from None
        self._size += count
        self._limits.check("max-layer-size", self._size, "the blob")
        return count


@contextmanager
def _reading(open: Callable[[], Reading], limits: Limits) -> Iterator[Readable]:
    reading = open()
    try:
        yield _FromRemote(reading, limits)
    finally:
        reading.close()


@contextmanager
def _inflated(open: Callable[[], Reading], digest: Digest, limits: Limits) -> Iterator[Readable]:
    reading = open()
    try:
        with open_stream(_FromRemote(reading, limits), expect=digest, limits=limits) as stream:
            yield stream
    finally:
        reading.close()
