"""What came of steps, by their keys: found, claimed so that one does the work and the others wait, written down.

A result is a layer of the store, kept by a lasting lease (owner `build`, name: the key) that is written in the same
transaction as the row. So whatever is killed, a row's layer is there, and a step that was done is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Self

from layerstore import ChainID, LayerstoreError, NotFound, Store, StoredLayer, Transaction
from layerstore.build.cache import claims, offers, rows
from layerstore.build.cache.documents import Step
from layerstore.build.cache.mounts import CacheMounts
from layerstore.build.cache.offers import Offer, Offered, Progress
from layerstore.build.cache.specs import Spec
from layerstore.values import frozen

__all__ = ["OWNER", "Cache", "Entry"]

OWNER = "build"
"""Who leases the layers that are results of steps."""


def _unheard(_: str) -> None:
    pass


@frozen
class Entry:
    """What came of a step."""

    key: str
    exact: str
    """The key of the same step by content; it may have a quicker one, which says how its inputs lie here."""
    layer: StoredLayer | None
    """The layer that it made; None if it wrote nothing."""
    parent: ChainID | None
    """What it stood on when it was done."""
    description: str
    seconds: float
    """That it took when it was done."""
    made: int
    """When that was, in ns since the epoch."""
    used: int
    """When it last spared somebody the work; when it was made if it never did."""


Fits = Callable[[Entry], bool]


def any_entry(entry: Entry) -> bool:
    """Whatever it is."""
    return True


class Cache:
    """What builds of one store remember. A context manager: a build that goes on, whose results nobody prunes.

    Any number of threads may use it, and any number of processes have one.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.database = store.tables(rows.TABLES)
        self.mounts = CacheMounts(store)
        """The folders that steps share."""
        self._own = ExitStack()
        self._offers: list[Offer] = []
        self._warn: Callable[[str], object] = _unheard
        self._known: dict[str, Step] = {}
        """The steps that this build has had to do with."""

    def find(self, key: str, *, fits: Fits = any_entry) -> Entry | None:
        """What came of the step of this key; None if nobody knows, or the layer is gone or found damaged.

        What a cache elsewhere has (`use`) is taken in. That may lie: what does not fit is not there.
        """
        found = self._find(key) or self._found_elsewhere(key)
        if found is not None and not fits(found):
            return None
        if found is not None:
            top = None if found.layer is None else found.layer.chain_id
            self._known[found.exact] = Step(found.exact, top, found.description, found.parent)
        return found

    def _find(self, key: str) -> Entry | None:
        with self.database.read() as tx:
            row = rows.find(tx, key)
        if row is None:
            return None
        try:
            layer = None if row.layer is None else self.store.layer(row.layer)
        except NotFound:
            return None
        if layer is not None and layer.damaged:
            return None
        now = time.time_ns()
        with self.database.write(durable=False) as tx:
            if not rows.touch(tx, row, now):
                return None
        return Entry(key, row.exact, layer, row.parent, row.description, row.seconds, row.made, now)

    @contextmanager
    def claim(
        self,
        key: str,
        *,
        fits: Fits = any_entry,
        anew: bool = False,
        waits: Callable[[], object] | None = None,
        stop: Callable[[], object] | None = None,
    ) -> Iterator[Entry | None]:
        """What came of the step; or, with None, be the one who does it while inside, and writes down what comes of it.

        If somebody else does it, in this process or in another, that is waited for: `waits` is called once then, and
        what `stop` raises ends the waiting. If they fail or die, it is this one's to do. `anew`: do it in any case.
        """
        found = None if anew else self.find(key, fits=fits)
        if found is not None:
            yield found
            return
        with claims.held(self.store, claims.of_key(key), waits=waits, stop=stop):
            yield None if anew else self.find(key, fits=fits)

    def record(
        self,
        tx: Transaction,
        key: str,
        layer: StoredLayer,
        *,
        description: str,
        inputs: Sequence[str] = (),
        seconds: float = 0.0,
        exact: str | None = None,
    ) -> None:
        """Write down, in the transaction in which the layer is, that it is what comes of the step.

        `exact` is the key of the same step by content, where this is a quicker one: caches elsewhere get that alone.
        """
        row = self._put(tx, key, exact, layer.chain_id, layer.parent, description, inputs, seconds)
        self.store.lease(tx, layer.chain_id, owner=OWNER, name=row.lease)

    def record_nothing(
        self,
        key: str,
        *,
        parent: ChainID | None = None,
        description: str = "",
        inputs: Sequence[str] = (),
        seconds: float = 0.0,
        exact: str | None = None,
    ) -> None:
        """Write down that the step writes nothing. `parent`: what it stood on; it is of no use when that is gone."""
        with self.database.write() as tx:
            self._put(tx, key, exact, None, parent, description, inputs, seconds)

    def _put(
        self,
        tx: Transaction,
        key: str,
        exact: str | None,
        layer: ChainID | None,
        parent: ChainID | None,
        description: str,
        inputs: Sequence[str],
        seconds: float,
    ) -> rows.Row:
        now = time.time_ns()
        before = rows.find(tx, key)
        # Where it came to the same once more, the lease goes on: the former one would have no row.
        made = now if before is None or before.layer != layer else before.made
        row = rows.Row(key, exact or key, layer, parent, description, tuple(inputs), seconds, made, now)
        rows.put(tx, row)
        self._known[row.exact] = Step(row.exact, layer, description, parent)
        return row

    # --- caches that lie elsewhere ---

    def use(self, spec: Spec, *, warn: Callable[[str], object] = _unheard, progress: Progress | None = None) -> None:
        """Ask a cache that lies elsewhere, too, for steps that nobody did here; within `with`, until its end.

        If there is none, or something is wrong with it then or later, `warn` is told, and it is not asked again.
        """
        self._warn = warn
        try:
            self._offers.append(self._own.enter_context(offers.opened(self.store, spec, progress)))
        except LayerstoreError as error:
            warn(f"{spec} is not used: {error.message}")

    def _found_elsewhere(self, key: str) -> Entry | None:
        for offer in list(self._offers):
            try:
                offered = offer.find(key)
                if offered is None:
                    continue
                self.take(offered)
            except NotFound:
                continue  # it stands on what is not here, or is not here any more
            except LayerstoreError as error:
                self._warn(f"{offer.name} is not used any more: {error.message}")
                with suppress(ValueError):
                    self._offers.remove(offer)  # unless another thread has
                continue
            if (found := self._find(key)) is not None:
                return found
        return None

    def take(self, offered: Offered) -> None:
        """Take in what came of a step elsewhere: what this store lacks of its layers is read."""
        step = offered.step
        if not offered.layers:
            self.record_nothing(step.key, parent=step.parent, description=step.description)
            return
        lease = f"{step.key} is taken in by {os.urandom(8).hex()}"
        try:
            *below, top = offered.layers
            parent: ChainID | None = None
            for source in below:
                # The lease moves upwards; should somebody who tidies up end it, the step is not found, and is done.
                parent = self.store.add_layer(source, parent, record=partial(self._lease, lease)).chain_id
            self.store.add_layer(top, parent, record=partial(self._record_taken, step))
        finally:
            self.store.end_leases(OWNER, [lease])

    def _lease(self, name: str, tx: Transaction, layer: StoredLayer) -> None:
        self.store.lease(tx, layer.chain_id, owner=OWNER, name=name)

    def _record_taken(self, step: Step, tx: Transaction, layer: StoredLayer) -> None:
        self.record(tx, step.key, layer, description=step.description)

    def steps(self, top: ChainID | None = None) -> dict[str, Step]:
        """The steps that this build has found or done; with `top`, those that the image of this layer is made of."""
        if top is None:
            return dict(self._known)
        layers = offers.stack(self.store, self.store.layer(top))
        # What `COPY --link` has made is known as a layer on nothing, whose ChainID is its DiffID.
        own = {*layers, *(layer.diff_id for layer in layers.values())}
        return {
            key: step for key, step in self._known.items() if (step.parent if step.layer is None else step.layer) in own
        }

    def __enter__(self) -> Self:
        name = os.urandom(16).hex()
        with ExitStack() as own:
            own.enter_context(self.store.lock(claims.of_build(name)))
            with self.database.write(durable=False) as tx:
                rows.begin(tx, name, time.time_ns())
            own.callback(self._end, name)
            self._own = own.pop_all()
        return self

    def _end(self, name: str) -> None:
        """Write down that it is over; where that cannot be, its lock, which is free from here on, says so."""
        for _ in range(2):  # a disk that is full has given up what was set aside by the second time
            with suppress(LayerstoreError):
                with self.database.write(durable=False) as tx:
                    rows.end(tx, [name])
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own.close()
