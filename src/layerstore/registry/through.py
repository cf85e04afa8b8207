"""What was pulled or pushed is given to the first remote that can be written to (`push-through`), beside the command.

It never fails the command: what goes wrong is told in a line. What the remote has is not sent. Blobs come from what
was just downloaded, from the store, or from the registry; a name is given last, when all that it means is there.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

from layerstore.digest import Digest
from layerstore.errors import LayerstoreError, NotFound
from layerstore.manifests import Descriptor, Manifest, read
from layerstore.manifests.media_types import is_foreign
from layerstore.registry.client.bodies import Written
from layerstore.registry.remotes.health import HEALTH
from layerstore.registry.remotes.remote import RemoteFailed
from layerstore.registry.transport.http import Body
from layerstore.values import frozen

if TYPE_CHECKING:
    from types import TracebackType

    from layerstore.blobs import Blobs, Growing
    from layerstore.config import Config
    from layerstore.registry.client.repository import Repository
    from layerstore.registry.remotes.remote import Keeper
    from layerstore.registry.transport.settings import Settings

__all__ = ["Through", "giving"]


class _Source(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def close(self) -> None: ...


@frozen
class _Image:
    """What is to be given on. `documents`: from the one that the name means down to the image's own manifest."""

    name: str
    documents: Sequence[Manifest]
    config: bytes
    repository: Repository
    downloads: dict[Digest, Growing]


class Through:
    """Gives images to `keeper`. A context manager: its end waits for what is under way, unless there was an error."""

    def __init__(self, keeper: Keeper, blobs: Blobs, told: Callable[[str], None] | None) -> None:
        self._keeper = keeper
        self._blobs = blobs
        self._told = told
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    def give(self, name: str, documents: Sequence[Manifest], config: bytes, repository: Repository) -> None:
        """Begin to give an image on. What was downloaded for it may go when this returns."""
        downloads = {}
        for layer in read(documents[-1]).layers:
            if (growing := self._blobs.growing(layer.digest)) is not None:
                downloads[layer.digest] = growing
        image = _Image(name, documents, config, repository, downloads)
        thread = threading.Thread(target=self._run, args=(image,), name="layerstore-through", daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stop.set()
            return
        for thread in self._threads:
            thread.join()

    def _run(self, image: _Image) -> None:
        try:
            with ExitStack() as downloads:
                for growing in image.downloads.values():
                    downloads.callback(growing.close)
                self._give(image)
        except LayerstoreError as error:
            if isinstance(error, RemoteFailed) and not error.is_absent:
                HEALTH.failed(error.remote)
            if self._told is not None and not self._stop.is_set():
                self._told(f"{image.name} was not given to {self._keeper.name}: {error.message}")

    def _give(self, image: _Image) -> None:
        if HEALTH.is_paused(self._keeper.name):
            return
        contents = read(image.documents[-1])
        wanted = {part.digest: part for part in contents.blobs if not is_foreign(part.media_type)}
        there = self._keeper.has(list(wanted))
        for digest, part in wanted.items():
            if digest not in there:
                is_config = contents.config is not None and digest == contents.config.digest
                self._keeper.write(digest, Body.of(image.config) if is_config else self._body(part, image))
        *indexes, manifest = image.documents
        try:
            for document in (manifest, *reversed(indexes[1:])):
                self._keeper.put_manifest(document.data, document.media_type)
            top = indexes[0] if indexes else manifest
            self._keeper.publish(image.name, top.data, top.media_type)
        except RemoteFailed:
            if not indexes:
                raise
            # A registry takes no index of which it has only one image: then it has that.
            self._keeper.publish(image.name, manifest.data, manifest.media_type)

    def _body(self, part: Descriptor, image: _Image) -> Body:
        growing = image.downloads.get(part.digest)
        if growing is not None and growing.size == part.size:
            return self._of(part, lambda: _Download(growing))
        if self._blobs.size(part.digest) == part.size:
            return self._of(part, partial(Written, partial(self._blobs.write, part.digest)))
        return self._of(part, lambda: image.repository.blob(part.digest, part.size, urls=part.urls))

    def _of(self, part: Descriptor, source: Callable[[], _Source]) -> Body:
        return Body(part.size, lambda: io.BufferedReader(_Raw(source(), self._stop), 1 << 20))


@contextmanager
def giving(
    config: Config, settings: Settings, blobs: Blobs, told: Callable[[str], None] | None
) -> Iterator[Through | None]:
    """What gives images on, if daemon.json wants that and names a remote that can be written to."""
    if not (config.push_through and config.remotes):
        yield None
        return
    from layerstore.registry.remotes import Remotes

    with Remotes(config.remotes, settings=settings, store_id=blobs.store_id) as remotes:
        if remotes.keeper is None:
            yield None
            return
        with Through(remotes.keeper, blobs, told) as through:
            yield through


class _Download:
    """A blob that was downloaded just now; its file may have no name any more."""

    def __init__(self, growing: Growing) -> None:
        self._growing = growing
        self._at = 0

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._growing.readinto(buffer, self._at)
        self._at += count
        return count

    def close(self) -> None:
        """Nothing: it may be read again."""


class _Raw(io.RawIOBase):
    """A source, as Python's files are, until it is to stop."""

    def __init__(self, source: _Source, stop: threading.Event) -> None:
        self._source = source
        self._stop = stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._stop.is_set():
            raise NotFound("the command has ended", remedy="")
        return self._source.readinto(memoryview(buffer).cast("B")) or 0

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
