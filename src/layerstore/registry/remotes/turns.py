"""Who fetches a blob from where it is dear, and who has it from whom: decided for each blob at one place.

Pure. Stores that pull one image at once agree on an arbiter for each blob without talking, by `first_of`. The arbiter
answers in the order in which it is asked: who comes first fetches the blob, and each who comes later has it from one
who came before, `FAN_OUT` from each, while it is still on its way there. So a blob leaves the registry once, no store
sends it more than `FAN_OUT` times, and the last of N waits for about log N of them. Nobody has to believe the arbiter:
its word costs time at worst, for what comes is verified, and the registry can always be asked.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Final

from attrs import field

from layerstore.values import define

__all__ = ["FAN_OUT", "Turns", "first_of"]

FAN_OUT: Final = 2
"""To how many a store sends a blob that it is still receiving."""

FORGOTTEN_AFTER: Final = 300.0
MOST_BLOBS: Final = 4096
MOST_STORES: Final = 1024
"""Of one blob: as many as a rack has, and more."""

MOST_TAKERS: Final = 65_536
"""Of all blobs together, so that whoever asks for nothing's sake fills no memory."""


def first_of(digest: str, stores: Iterable[str]) -> list[str]:
    """The stores in the order in which they are asked about a blob: the same for all who know the same stores.

    By rendezvous hashing (Thaler and Ravishankar, 1998): one that joins or leaves moves only its own share of blobs.
    """
    return sorted(stores, key=lambda store: hashlib.sha256(f"{store} {digest}".encode()).digest(), reverse=True)


@define
class _Taker:
    """A store that wants a blob: from whom it has it, how many have it from this one, whether it was lost."""

    source: str | None
    takers: int = 0
    is_lost: bool = False


@define
class _Blob:
    at: float
    takers: dict[str, _Taker] = field(factory=dict)


class Turns:
    """What an arbiter knows. Any thread may use it; bounded, and forgotten when nobody has asked for a while."""

    def __init__(self, *, fan_out: int = FAN_OUT, clock: Callable[[], float] = time.monotonic) -> None:
        self._fan_out = fan_out
        self._clock = clock
        self._lock = threading.Lock()
        self._blobs: OrderedDict[str, _Blob] = OrderedDict()
        self._takers = 0

    def take(self, digest: str, store: str, *, lost: Collection[str] = (), gives: bool = True) -> str | None:
        """The store from which `store` is to have the blob; None: from the registry.

        `lost`: stores that it was sent to before and that gave it nothing. They are sent to nobody, until they ask.
        `gives`: others can have it from this one; False: it only takes.
        """
        with self._lock:
            takers = self._blob(digest).takers
            for name in lost:
                if name in takers and name != store:
                    takers[name].is_lost = True
            known = takers.get(store)
            if known is None:
                source = self._free(takers, list(takers), lost)
                if not gives or len(takers) >= MOST_STORES:
                    return source
                takers[store] = _Taker(source)
                self._takers += 1
            else:
                known.is_lost = False
                if known.source is not None and known.source not in lost:
                    return known.source
                # Only of those who came before it, so that nobody waits in a circle.
                names = list(takers)
                source = None if known.source is None else self._free(takers, names[: names.index(store)], lost)
                if known.source is not None:
                    takers[known.source].takers -= 1
                known.source = source
            if source is not None:
                takers[source].takers += 1
            return source

    def _blob(self, digest: str) -> _Blob:
        now = self._clock()
        while self._blobs:
            oldest = next(iter(self._blobs))
            is_room = len(self._blobs) < MOST_BLOBS and self._takers < MOST_TAKERS
            if is_room and now - self._blobs[oldest].at < FORGOTTEN_AFTER:
                break
            self._takers -= len(self._blobs.pop(oldest).takers)
        blob = self._blobs.setdefault(digest, _Blob(now))
        blob.at = now
        self._blobs.move_to_end(digest)
        return blob

    def _free(self, takers: dict[str, _Taker], names: list[str], lost: Collection[str]) -> str | None:
        """The first who came that has room; when none has, the one with the fewest, for waiting is dearer."""
        alive = [name for name in names if not takers[name].is_lost and name not in lost]
        for name in alive:
            if takers[name].takers < self._fan_out:
                return name
        return min(alive, key=lambda name: takers[name].takers, default=None)
