"""What all steps of one build share: the store, what is remembered, who listens, when it is to end.

A step that makes a layer is done by `Work.layered`, whatever it is: looked for by its keys, done by one who does it
while others wait, and written down in the transaction in which its layer appears.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from attrs import field

from layerstore import ChainID, LayerSource, Store, StoredLayer, Transaction
from layerstore.build.cache import Cache, Entry, step_key
from layerstore.build.events import Doing, Teller
from layerstore.build.options import BuildOptions
from layerstore.build.steps.session import BuildSession
from layerstore.build.steps.state import moment
from layerstore.build.steps.stopping import Stop
from layerstore.build.steps.verifying import Unequal, compared
from layerstore.runtime import Runtime
from layerstore.values import define

if TYPE_CHECKING:
    from layerstore.build.steps.sources import Sources

__all__ = ["Key", "Make", "Record", "Work"]

Record = Callable[[Transaction, StoredLayer], object]
Make = Callable[[Record], StoredLayer | None]
"""Does a step, and gives `Record` to the store with the layer; None: it wrote nothing."""

Key = Callable[[], str]
"""A key of a step, found out when it is needed."""


@define
class Work:
    """See the module's text. Any thread of the build may use it."""

    store: Store
    options: BuildOptions
    cache: Cache
    session: BuildSession
    teller: Teller
    stop: Stop
    sources: Sources
    epoch: int | None
    """The time that is told for all that is made now, and the latest in new layers; seconds since 1970."""
    turns: threading.Semaphore
    """Held by whoever works: as many as there are cores."""
    unequal: list[Unequal] = field(factory=list, init=False)
    """The steps that did not do the same twice, where each is done twice."""
    _runtime: Runtime | None = field(default=None, init=False)
    _making: threading.Lock = field(factory=threading.Lock, init=False)

    @property
    def runtime(self) -> Runtime:
        """What runs programs; what is left of others' is put in order when it is asked for first."""
        with self._making:
            if self._runtime is None:
                self._runtime = Runtime(self.store)
            return self._runtime

    @property
    def latest(self) -> int | None:
        """The latest time of what a new layer has, in ns since 1970; None: there is no limit."""
        return None if self.epoch is None else self.epoch * 10**9

    @property
    def told_always(self) -> str | None:
        """The time that is told for everything; None: for each thing its own."""
        return None if self.latest is None else moment(self.latest)

    def told(self, made: int | None = None) -> str:
        """The time that is told for what was made then (ns since 1970), or now."""
        if self.latest is not None:
            return moment(self.latest)
        return moment(time.time_ns() if made is None else made)

    def layered(
        self, doing: Doing, keys: Sequence[Key], make: Make, *, parent: ChainID | None, anew: bool
    ) -> StoredLayer | None:
        """The layer of a step: as one of its keys says, or as it is made now, and known by all of them.

        The first key is the quickest to find out. None: it wrote nothing.
        """
        layer = self._found_or_made(doing, keys, make, parent=parent, anew=anew)
        if self.options.verify:
            with self.turns:
                self.stop.check()
                second = make(self.session.hold)
            differences = compared(self.store, layer, second)
            if differences:
                self.unequal.append(Unequal(doing.vertex.title, doing.vertex.place, differences))
        return layer

    def _found_or_made(
        self, doing: Doing, keys: Sequence[Key], make: Make, *, parent: ChainID | None, anew: bool
    ) -> StoredLayer | None:
        self.stop.check()

        def fits(entry: Entry) -> bool:
            """A cache elsewhere could give a layer that lies on something else, and is another tree then."""
            return entry.layer is None or entry.layer.parent == parent

        known: list[str] = []
        if not anew:
            for key in keys[:-1]:
                known.append(key())
                entry = self.cache.find(known[-1], fits=fits)
                if entry is not None:
                    doing.cached, doing.made = True, entry.made
                    return entry.layer
        last = keys[-1]()
        waits = partial(_waits, doing)
        with self.cache.claim(last, fits=fits, anew=anew, waits=waits, stop=self.stop.check) as entry:
            if entry is not None:
                doing.cached, doing.made = True, entry.made
                self._put_also(known, last, entry.layer, parent, doing)
                return entry.layer
            layer = self._make(
                doing, [*known, last] if not anew else [key() for key in keys[:-1]] + [last], make, parent
            )
        # The image tells the time that the cache has, so that a build in which all is known gives the same one.
        made = self.cache.find(last)
        doing.made = time.time_ns() if made is None else made.made
        return layer

    def moved(self, layer: StoredLayer, parent: ChainID | None) -> StoredLayer:
        """A layer that does not depend on what is below it, on something else. Only some drivers read it for that."""
        key = step_key(parent, "moved", {}, [layer.diff_id])

        def record(tx: Transaction, made: StoredLayer) -> None:
            self.cache.record(tx, key, made, description="COPY --link")

        source = LayerSource(lambda: self._spooled(layer), layer.diff_id, layer.size)
        return self.store.add_layer(source, parent, record=record)

    @contextmanager
    def _spooled(self, layer: StoredLayer) -> Iterator[io.FileIO]:
        """While inside: the tar of a layer, where the store lies: a small or full /tmp does not matter."""
        import tempfile

        with self.session.folder() as folder, tempfile.TemporaryFile(buffering=0, dir=folder) as file:
            self.store.write_layer(layer.chain_id, file.write)
            file.seek(0)
            yield file

    def _make(self, doing: Doing, keys: Sequence[str], make: Make, parent: ChainID | None) -> StoredLayer | None:
        title, began = doing.vertex.title, time.monotonic()

        def record(tx: Transaction, layer: StoredLayer) -> None:
            seconds = time.monotonic() - began
            if doing.altered:
                self.session.hold(tx, layer)
                return
            for key in keys:
                self.cache.record(tx, key, layer, description=title, seconds=seconds, exact=keys[-1])

        with self.turns:
            self.stop.check()
            layer = make(record)
            if layer is None and not doing.altered:
                seconds = time.monotonic() - began
                for key in keys:
                    self.cache.record_nothing(key, parent=parent, description=title, seconds=seconds, exact=keys[-1])
        return layer

    def _put_also(
        self, keys: Iterable[str], exact: str, layer: StoredLayer | None, parent: ChainID | None, doing: Doing
    ) -> None:
        """What is known by a key that took long to find out is known by the quicker ones from now on."""
        for key in keys:
            if layer is None:
                self.cache.record_nothing(key, parent=parent, description=doing.vertex.title, exact=exact)
            else:
                with self.cache.database.write(durable=False) as tx:
                    self.cache.record(tx, key, layer, description=doing.vertex.title, exact=exact)


def _waits(doing: Doing) -> None:
    doing.output("stderr", b"waiting for another build that does the same step\n")
