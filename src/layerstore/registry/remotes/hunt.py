"""One pull's way to its layers: all remotes are asked at once who has which; each is read from one after another.

A layer is had, in this order: as a plain tar from a remote that has it so (and nobody has the blob); from the store
whose turn comes before ours, while it is still on its way there (`turns`); from a remote that has the blob; from the
registry. Whoever breaks off, or is slow, is left where it stopped, and the next goes on from there. Only the registry's
failures are failures of the pull.

What comes is not verified here: it is by whoever inflates it. If it is wrong, the layer is fetched once more, from the
registry alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol, Self

from attrs import field

from layerstore.digest import DiffID, Digest
from layerstore.errors import InvalidArchive
from layerstore.registry.remotes.health import HEALTH
from layerstore.registry.remotes.peer import Peer
from layerstore.registry.remotes.remote import SILENCE, SLOWEST, Reading, Remote, RemoteFailed
from layerstore.registry.remotes.turns import first_of
from layerstore.values import define, frozen

if TYPE_CHECKING:
    from layerstore.registry.remotes.remotes import Remotes

__all__ = ["Chase", "Hunt", "Sought", "Wanted"]

FRESH: Final = 1.0
"""Seconds for which it is believed who has what: others pull meanwhile."""

_LOST: Final = 4
"""So many stores may give nothing of a layer before no other is tried."""

Upstream = Callable[[int], Reading]
"""Reads a blob from its registry, from that byte on."""


class Sought(Protocol):
    """A layer that is wanted: the blob of its manifest, and the DiffID of its config."""

    @property
    def digest(self) -> Digest:
        """Of the blob."""

    @property
    def size(self) -> int:
        """Of the blob, in bytes."""

    @property
    def diff_id(self) -> DiffID:
        """Of the layer."""


@frozen
class Wanted:
    """See `Sought`."""

    digest: Digest
    size: int
    diff_id: DiffID


@define
class _Known:
    """What a remote said that it has, and when."""

    at: float
    there: dict[Digest, int] = field(factory=dict)


class Hunt:
    """The layers of one image, and who has them. Any thread may ask."""

    def __init__(self, remotes: Remotes, wanted: Sequence[Sought]) -> None:
        self._remotes = remotes
        self._digests = list(dict.fromkeys(digest for one in wanted for digest in (one.digest, Digest(one.diff_id))))
        self._asked: dict[str, Future[_Known]] = {}
        self._pool = ThreadPoolExecutor(max(1, len(remotes.all)), thread_name_prefix="layerstore-remotes")
        for remote in remotes.all:
            self._ask(remote)

    def close(self) -> None:
        """Wait for nobody any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has_plain(self, wanted: Sought) -> bool:
        """Is a layer's tar somewhere, and its blob nowhere?"""
        there = [known for _, known in self._there()]
        return any(Digest(wanted.diff_id) in known for known in there) and not any(
            wanted.digest in known for known in there
        )

    def plain(self, wanted: Sought) -> Reading | None:
        """A layer's tar, if anybody has it so. If reading it raises `InvalidArchive`, another has to give it."""
        plain = Digest(wanted.diff_id)
        sizes = {remote.name: known[plain] for remote, known in self._there() if plain in known}
        for remote in self.holders(plain):
            try:
                return _Plain(_Watched(remote, remote.read(plain, 0, sizes[remote.name]), sizes[remote.name]))
            except (RemoteFailed, KeyError) as error:
                if isinstance(error, RemoteFailed):
                    _note(error)
        return None

    def chase(self, wanted: Sought, upstream: Upstream, start: int = 0) -> Chase:
        """The bytes of a blob from `start` on, from whoever has it, or at last from its registry."""
        return Chase(self, wanted, upstream, start)

    # --- who has what

    def _ask(self, remote: Remote) -> None:
        self._asked[remote.name] = self._pool.submit(self._answer, remote)

    def _answer(self, remote: Remote) -> _Known:
        if HEALTH.is_paused(remote.name):
            return _Known(time.monotonic() + SILENCE)
        try:
            there = remote.has(self._digests)
        except RemoteFailed:
            HEALTH.failed(remote.name)
            return _Known(time.monotonic() + SILENCE)
        HEALTH.worked(remote.name)
        return _Known(time.monotonic(), there)

    def _there(self) -> list[tuple[Remote, dict[Digest, int]]]:
        """What each remote has, asked anew of those who said so a while ago."""
        others = [remote for remote in self._remotes.all if not self._remotes.is_me(remote)]
        for remote in others:
            asked = self._asked[remote.name]
            if asked.done() and time.monotonic() - asked.result().at > FRESH:
                self._ask(remote)
        return [(remote, self._asked[remote.name].result().there) for remote in others]

    def holders(self, digest: Digest) -> list[Remote]:
        """The remotes that have a blob, those first that this store should ask first."""
        return self._in_order(digest, [remote for remote, there in self._there() if digest in there])

    def offers(self, digests: Sequence[Digest]) -> Iterator[tuple[Remote, Digest, int]]:
        """Who says to have one of these: the remote, which, and its bytes. Those that come first are the first told."""
        for digest in digests:
            for remote, there in self._there():
                if digest in there:
                    yield remote, digest, there[digest]

    def _in_order(self, digest: Digest, remotes: Sequence[Remote]) -> list[Remote]:
        """Stores before others, so that these are spared; and not all of us ask the same store first."""
        mine = f"{self._remotes.store_id} {digest}"
        peers = first_of(mine, [remote.name for remote in remotes if isinstance(remote, Peer)])
        others = [remote for remote in remotes if not isinstance(remote, Peer)]
        return [next(remote for remote in remotes if remote.name == name) for name in peers] + others

    # --- from whom

    def places(self, wanted: Sought) -> Iterator[Callable[[int], tuple[Remote, Reading]]]:
        """The remotes to have a blob from, one after another: each is asked for only when the one before has failed."""
        self._there()  # so that all who live are known
        lost: list[str] = []
        while len(lost) < _LOST and (peer := self._remotes.whose_turn(wanted.digest, lost)) is not None:
            yield _opener(peer, wanted)
            lost.append(peer.id)
        for remote in self.holders(wanted.digest):
            if not (isinstance(remote, Peer) and remote.id in lost):
                yield _opener(remote, wanted)


def _opener(remote: Remote, wanted: Sought) -> Callable[[int], tuple[Remote, Reading]]:
    return lambda start: (remote, remote.read(wanted.digest, start, wanted.size))


def _note(error: RemoteFailed) -> None:
    if not error.is_absent:
        HEALTH.failed(error.remote)


class _Watched:
    """What a remote gives, as long as it is fast enough. Raises `RemoteFailed`, also when it ends too early."""

    def __init__(self, remote: Remote, reading: Reading, size: int) -> None:
        self._remote = remote
        self._reading = reading
        self._left = size
        self._since, self._came = time.monotonic(), 0

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._left:
            return 0
        count = self._reading.readinto(buffer[: self._left])
        if not count:
            raise RemoteFailed(self._remote.name, f"it ended {self._left} bytes too early", is_absent=True)
        self._left -= count
        self._came += count
        took = time.monotonic() - self._since
        if took > SILENCE:
            if self._left and self._came / took < SLOWEST:
                raise RemoteFailed(self._remote.name, f"it gave {self._came} bytes in {took:.0f} seconds")
            self._since, self._came = time.monotonic(), 0
        return count

    def close(self) -> None:
        self._reading.close()


class _Plain:
    """A layer's tar from a remote. What breaks off is wrong, as what is altered is: another has to give all of it."""

    def __init__(self, watched: _Watched) -> None:
        self._watched = watched

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._watched.readinto(buffer)
        except RemoteFailed as error:
            _note(error)
            raise InvalidArchive(error.message) from None

    def close(self) -> None:
        self._watched.close()


class Chase:
    """A blob from whoever has it, and at last from its registry: one reading of all. For one thread."""

    def __init__(self, hunt: Hunt, wanted: Sought, upstream: Upstream, start: int) -> None:
        self._wanted = wanted
        self._upstream = upstream
        self._places = hunt.places(wanted)
        self._reading: Reading | None = None
        self._remote: Remote | None = None
        self.at = start
        self.sources: list[str] = []
        """Who gave something of it: the names of remotes. What is wrong may be theirs."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer`; 0 at the end. Raises what the registry raises."""
        while self.at < self._wanted.size:
            if self._reading is None:
                self._reading = self._next()
            try:
                count = self._reading.readinto(buffer[: self._wanted.size - self.at])
            except RemoteFailed as error:
                if self._remote is None:
                    raise
                _note(error)
                self._drop()
                continue
            if self._remote is not None and (not self.sources or self.sources[-1] != self._remote.name):
                self.sources.append(self._remote.name)
            self.at += count
            return count
        return 0

    def accuse(self) -> bool:
        """What came was wrong. Leave whom it came from alone for a while; False: that was the registry only."""
        for name in self.sources:
            HEALTH.failed(name)
        return bool(self.sources)

    def close(self) -> None:
        """Let go of whom it is read from."""
        self._drop()

    def _next(self) -> Reading:
        for place in self._places:
            try:
                self._remote, reading = place(self.at)
            except RemoteFailed as error:
                _note(error)
                continue
            return _Watched(self._remote, reading, self._wanted.size - self.at)
        self._remote = None
        return self._upstream(self.at)

    def _drop(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()
