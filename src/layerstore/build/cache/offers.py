"""Caches that lie elsewhere: in a registry, a folder, another store. They are asked for steps that nobody did here.

What one has is known at once; a layer is fetched when a step hits it, with those below it, and no other. What is wrong
with one is told, and it is not asked again: a build never fails for want of a cache.
"""

from __future__ import annotations

import fcntl
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore import ChainID, DiffID, LayerSource, NotFound, Store, StoredLayer
from layerstore.build.cache.documents import CacheDocument, Step, read
from layerstore.build.cache.specs import Spec
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.build.cache.cache import Cache

__all__ = ["Offer", "Offered", "Progress", "opened", "other_store", "sources", "stack"]

_PIPE = 1 << 20
Progress = Callable[[str, int, "int | None"], None]
"""Is told how much of a layer has come or gone: its name, bytes, and of how many."""


@frozen
class Offered:
    """What came of a step elsewhere: its layers, bottom to top; none if it wrote nothing."""

    step: Step
    layers: tuple[LayerSource, ...] = ()


class Offer(ABC):
    """A cache that lies elsewhere. Any thread may ask it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def find(self, key: str) -> Offered | None:
        """What came of the step of this key there."""


class Listed(Offer):
    """One with a document, and a source for each layer."""

    def __init__(self, name: str, document: CacheDocument, sources: Sequence[LayerSource]) -> None:
        super().__init__(name)
        self._document = document
        self._sources = {source.diff_id: source for source in sources}

    def find(self, key: str) -> Offered | None:
        step = self._document.steps.get(key)
        if step is None or step.layer is None:
            return None if step is None else Offered(step)
        stack = self._document.stack(step.layer)
        if stack is None or stack[-1] not in self._sources:
            return None
        return Offered(step, tuple(self._sources.get(diff) or _absent(diff) for diff in stack))


def _absent(diff_id: DiffID) -> LayerSource:
    """A layer of a base image, which whoever needs it has."""

    def opened() -> AbstractContextManager[FileIO]:
        raise NotFound(f"layer {diff_id} is neither here nor in the cache")

    return LayerSource(opened, diff_id=diff_id)


class Other(Offer):
    """The cache of another store."""

    def __init__(self, name: str, cache: Cache) -> None:
        super().__init__(name)
        self._cache = cache

    def find(self, key: str) -> Offered | None:
        entry = self._cache.find(key)
        if entry is None:
            return None
        top = None if entry.layer is None else entry.layer.chain_id
        step = Step(key, top, entry.description, entry.parent)
        return Offered(step, sources(self._cache.store, entry.layer))


@contextmanager
def opened(store: Store, spec: Spec, progress: Progress | None = None) -> Iterator[Offer]:
    """While inside: the cache that lies there. Raises `LayerstoreError` if there is none."""
    if spec.kind == "store":
        from layerstore.build.cache.cache import Cache

        if not Path(spec.place, "layerstore.db").is_file():
            raise NotFound(f"there is no store in {spec.place}", path=spec.place)
        with other_store(store, spec.place) as other, Cache(other) as cache:
            yield Other(str(spec), cache)
        return
    where = f"docker://{spec.place}" if spec.kind == "registry" else spec.place
    with store.look_into(where, progress=progress) as (config, layers):
        yield Listed(str(spec), read(config, spec.place), layers)


def other_store(store: Store, place: str) -> Store:
    """The store in that folder, made if there is none, with the settings of this one but for what keeps its layers."""
    import layerstore

    config = evolve(store.config, data_root=Path(place).absolute(), storage_driver=None, storage_opts=())
    return layerstore.open(config=config)


def sources(store: Store, top: StoredLayer | None) -> tuple[LayerSource, ...]:
    """A layer of a store and all below it, as another takes them in: bottom to top."""
    layers = () if top is None else stack(store, top).values()
    return tuple(LayerSource(partial(_tar, store, one.chain_id), diff_id=one.diff_id, size=one.size) for one in layers)


def stack(store: Store, top: StoredLayer) -> dict[ChainID, StoredLayer]:
    """A layer and all below it, bottom to top. Raises `NotFound`."""
    found = {top.chain_id: top}
    while top.parent is not None:
        top = store.layer(top.parent)
        found[top.chain_id] = top
    return dict(reversed(found.items()))


@contextmanager
def _tar(store: Store, chain: ChainID) -> Iterator[FileIO]:
    """While inside: the tar of a layer, to be read from a pipe that a thread fills."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    failed: list[BaseException] = []

    def fill() -> None:
        try:
            store.write_layer(chain, partial(_write, writer))
        except BrokenPipeError:
            pass  # nobody wants the rest
        except BaseException as error:
            failed.append(error)
        finally:
            os.close(writer)

    with suppress(OSError):  # it is too many pages in pipes for this user: it works as it is
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, _PIPE)
    try:
        stream = FileIO(reader)
    except BaseException:  # which leaves it open
        os.close(reader)
        os.close(writer)
        raise
    with stream:
        thread = threading.Thread(target=fill, name="layerstore-cache", daemon=True)
        try:
            thread.start()
        except Exception:  # there are too many, or there is no memory for one
            os.close(writer)
            raise
        try:
            yield stream
        finally:
            stream.close()
            thread.join()
            if failed:
                raise failed[0]


def _write(pipe: int, data: memoryview) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(pipe, view) :]
