"""Stacks of segments are kept shallow, in the background, by whoever made the last of them.

Each segment whose number is a multiple of four gets a span: one layer that says what it and those below it say, as many
as the number's lowest bit tells. It is made of copies, which share blocks where the filesystem can, in staging; it
comes into the home in one rename, and gets its row after. So whoever dies at it loses nothing but the work, and the
next span is made of what there is. Nobody waits for it: a stack is right with a span and without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from layerstore.layers import Layers, Storage
from layerstore.layers import rows as layer_rows
from layerstore.segments import rows

if TYPE_CHECKING:
    from layerstore.database import Database
    from layerstore.driver import LayerKey
    from layerstore.session import Session

_DEEP = 32
"""Layers of segments in a stack. With all spans 1,000 of them have 10 at most, a million 20."""


class Merging:
    """The background of one store. Thread-safe."""

    def __init__(self, database: Database, session: Session, storage: Storage, layers: Layers) -> None:
        self._database = database
        self._session = session
        self._storage = storage
        self._layers = layers
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle = threading.Condition()
        self._waiting = 0

    def look_at(self, key: LayerKey) -> None:
        """A segment was made: give it a span, if it is to have one, soon."""
        with self._database.read() as tx:
            found = rows.find(tx, key)
        if found is None or found.complete or found.number % rows.STEP:
            return
        self.later(partial(self._catch_up, key))

    def later(self, deed: Callable[[], object]) -> None:
        """Do something soon, in the background. What it fails with is lost: the next `open` sees to what is left."""
        with self._idle:
            self._waiting += 1
        self._queue.put(deed)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="layerstore-merging", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until all of it is done, as far as it can be."""
        with self._idle:
            self._idle.wait_for(lambda: not self._waiting or self._session.closed)

    def close(self) -> None:
        """Finish what was begun."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            self._queue.put(None)
            thread.join()

    def require_shallow(self, key: LayerKey) -> None:
        """Merge now what should have been merged in the background, if a stack has got deep meanwhile."""
        with self._database.read() as tx:
            deep = rows.depth(tx, key) > _DEEP
        if deep:
            self._catch_up(key)

    def _catch_up(self, key: LayerKey) -> None:
        """Give a segment its span, and those below it that should have one, the lowest first."""
        with self._database.read() as tx:
            missing = rows.without_span(tx, key)
        for one in missing:
            self.merge(one)

    def merge(self, key: LayerKey) -> bool:
        """Give a segment its span, now. False: it needs none, cannot have one, or is gone."""
        with self._database.write(durable=False) as tx:
            found = rows.find(tx, key)
            if found is None or found.span is not None or found.complete or found.number % rows.STEP:
                return False
            end = found.number - (found.number & -found.number)
            parts = rows.between(tx, key, end)
            wanted = [("diff", str(part.key)) for part in parts]
            leases = layer_rows.add_leases(tx, self._session.name, wanted, "it is being merged")
        span = self._session.new_key()
        try:
            if not self._storage.driver.merge(parts, span):
                return False
            with self._database.write() as tx:
                return rows.set_span(tx, key, span, end)
        finally:
            self._layers.end_leases(leases)
            self._layers.drop([span], quietly=True)

    def _work(self) -> None:
        while (deed := self._queue.get()) is not None:
            # Without a span all is right, only deeper: whoever makes the next one tries again.
            with suppress(Exception):
                deed()
            with self._idle:
                self._waiting -= 1
                self._idle.notify_all()
