"""One lazy layer, as the fetcher has it: what its index says, what is there, and how more of it comes.

What comes is asked for as a stream from somewhere on, and is there chunk by chunk: who waits for the first goes on
while the rest of a file comes behind it, and nobody asks for what is under way.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import field

from layerstore import reference
from layerstore.digest import Digest
from layerstore.driver import LayerKey
from layerstore.errors import DigestMismatch, InvalidArchive, NotFound, RegistryError, named
from layerstore.holding.passing import Watched
from layerstore.indexes import TAR
from layerstore.layers.lazy import Lazy, Present, note_wrong, order_of, wrong
from layerstore.limits import UNLIMITED, Limits
from layerstore.registry.client.blobs import NoRanges
from layerstore.seekable import LayerIndex, Ranges
from layerstore.values import define

if TYPE_CHECKING:
    from layerstore.reference import Reference
    from layerstore.registry.client.repository import Repository

__all__ = ["LazyLayer"]

_AHEAD: Final = 4 << 20
"""Bytes of a file that come behind what somebody waits for."""
_SOON: Final = 64
"""Reads of an order of which those are one stream that lie next to each other."""
_GAP: Final = 2
"""Chunks between them that cost less than another request."""
_JOINED: Final = 48
"""Chunks of such a stream."""
_PATIENT, _GLANCE = 5.0, 0.02
"""Seconds for which a stream that nobody waits for stands still at most, and after which it is looked again."""
_PIECE: Final = 64 << 10
_TOLD: Final = "Pull the image without --lazy."


@define
class _Stream:
    """Chunks that are under way, from `first` to `last`; `chunks`: those that nobody else has to ask for."""

    first: int
    last: int
    chunks: list[int] = field(factory=list)
    error: BaseException | None = None
    is_over: bool = False
    is_wanted: bool = True
    """Somebody waits for it: not for it to give way."""


class LazyLayer:
    """See the module's text. `open_repository` gives the client of the one that has the blob; `lanes` run streams."""

    def __init__(
        self,
        watched: Watched,
        open_repository: Callable[[Reference], Repository],
        limits: Limits,
        lanes: Executor,
        is_awaited: Callable[[], bool],
    ) -> None:
        """`is_awaited`: does anybody wait for anything? Then what nobody waits for stands still."""
        self.watched = watched
        self._lanes = lanes
        self._is_awaited = is_awaited
        packed, name = Lazy.of(watched.folder)
        self.index = LayerIndex.unpacked(packed, UNLIMITED)  # which it has passed with the limits there are
        self._name = reference.parse(name)
        self._open_repository = open_repository
        self.is_condemned = wrong(Path(f"/proc/self/fd/{watched.folder}")) is not None
        self._present = Present(watched.folder, self.index.chunks)
        self._pool = ThreadPoolExecutor(2, "layerstore-windows")
        self._ranges = Ranges(self.index, self._blob, self._windows, limits, self._pool)
        self._users = 0
        self._is_closed = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._coming: dict[int, _Stream] = {}
        self._order = deque(self._in_chunks(order_of(watched.folder)))
        self._is_finishing = False
        self._unsynced = 0
        self.is_gone = threading.Event()
        self.is_wanted = False
        """Somebody waits for all of it."""
        self.is_held = False
        """It is recorded what is read of it: nothing comes but that."""
        self.rest_until = 0.0
        """When it may be tried again, by the monotonic clock."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While inside, its file is open. Raises `NotFound` if it was let go."""
        with self._lock:
            if self._is_closed:
                raise NotFound(f"layer {self.key} is not lazy any more")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
            self._close_unused()

    def let_go(self) -> None:
        """It is whole, or gone: close it when nobody uses it any more."""
        self.is_gone.set()
        self._close_unused()

    def _close_unused(self) -> None:
        with self._lock:
            if self._users or self._is_closed or not self.is_gone.is_set():
                return
            self._is_closed = True
        self._present.close()
        self._pool.shutdown(wait=False)
        os.close(self.watched.tar)
        os.close(self.watched.folder)

    @cached_property
    def _repository(self) -> Repository:
        """Of its first use, for what is configured wrongly fails that, and is no fault of the layer's."""
        return self._open_repository(self._name)

    @property
    def key(self) -> LayerKey:
        """The layer's key, by which rows know it."""
        return LayerKey(Path(self.watched.path).name)

    def bring(self, first: int, last: int) -> None:
        """Have these chunks of the tar in its file, proved. Raises what a registry does, `DigestMismatch`.

        What comes after them in a file comes behind them, as far as `_AHEAD`.
        """
        while True:
            with self._lock:
                lacking = next((chunk for chunk in range(first, last + 1) if not self._present.has(chunk)), None)
                if lacking is None:
                    return
                stream = self._coming.get(lacking)
                if stream is None:
                    stream = self._begun(lacking, max(last, self._ahead_of(last)))
                    self._lanes.submit(self._run, stream)
            self._await(stream, lacking)

    def _await(self, stream: _Stream, chunk: int) -> None:
        with self._changed:
            stream.is_wanted = True
            self._changed.wait_for(lambda: stream.is_over or self._present.has(chunk))
            if stream.error is not None and not self._present.has(chunk):
                raise stream.error

    def _ahead_of(self, chunk: int) -> int:
        """The last chunk that is worth while to be had with this one: of the file that it is in, or begins in it."""
        at = min((chunk + 1) * self.index.chunk, self.index.tar_size) - 1
        end = min(self.index.file_end(at), at + _AHEAD, self.index.tar_size)
        return max(chunk, -(-end // self.index.chunk) - 1)

    def _begun(self, first: int, last: int) -> _Stream:
        """A stream from this chunk on, as far as no other has what comes next, or it is there. The lock is held."""
        end = first
        while end < last and end + 1 not in self._coming and not self._present.has(end + 1):
            end += 1
        made = _Stream(first, end)
        for chunk in self._ranges.coming(first, end):
            if chunk not in self._coming and not self._present.has(chunk):
                self._coming[chunk] = made
                made.chunks.append(chunk)
        return made

    def _in_chunks(self, order: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        """Reads in order, as places and chunks: the first, and the last. What the tar has not is nobody's."""
        for place, offset, size in order:
            if size and offset < self.index.tar_size:
                last = min(offset + size, self.index.tar_size) - 1
                yield place, offset // self.index.chunk, last // self.index.chunk

    def turn(self) -> int | None:
        """The place in the order of a first run of what lacks next; None: nothing does that is in one."""
        with self._lock:
            while self._order and self._lacking(*self._order[0][1:]) is None:
                self._order.popleft()
            return self._order[0][0] if self._order else None

    def bring_ordered(self) -> bool:
        """What is next in the order. Raises as `bring`."""
        with self._lock:
            found = self._lacking(*self._order[0][1:]) if self._order else None
            if found is None:
                return True
            last = self._order[0][2]
            soon = sorted((first, end) for _, first, end in itertools.islice(self._order, 1, _SOON))
            for first, end in soon:  # what lies next to it is the same stream
                if found <= first <= last + 1 + _GAP and last < end < found + _JOINED:
                    last = end
            stream = self._begun(found, last)
        self._run(stream)
        if stream.error is not None:
            raise stream.error
        return True

    def _lacking(self, first: int, last: int) -> int | None:
        chunks = range(first, last + 1)
        return next((one for one in chunks if one not in self._coming and not self._present.has(one)), None)

    def bring_next(self, most: int) -> bool:
        """Some chunks that lack, and that nobody else is at. False: there are none."""
        with self._lock:
            first = self._lacking(0, self.index.chunks - 1)
            if first is None:
                return False
            stream = self._begun(first, min(first + most, self.index.chunks) - 1)
            stream.is_wanted = self.is_wanted
        self._run(stream)
        if stream.error is not None:
            raise stream.error
        return True

    def _run(self, stream: _Stream) -> None:
        """Once may be the line's fault, or a proxy's: what is wrong is asked for once more."""
        try:
            with self.in_use():
                try:
                    self._take(stream)
                except (DigestMismatch, InvalidArchive):
                    self._take(stream)
        except BaseException as error:
            stream.error = error
        with self._changed:
            stream.is_over = True
            for chunk in stream.chunks:
                del self._coming[chunk]
            self._changed.notify_all()

    def is_all_there(self) -> bool:
        """Does nothing lack? True for one caller alone, until it has failed with what it does then (`failed`)."""
        with self._lock:
            if self._is_finishing or next(self._present.missing(self.index.chunks), None) is not None:
                return False
            self._is_finishing = True
            return True

    def failed(self) -> None:
        """What is done when all is there has to be done again."""
        with self._lock:
            self._is_finishing = False

    def _give_way(self, stream: _Stream) -> None:
        """Let others have the line, for a while."""
        until = time.monotonic() + _PATIENT
        with self._changed:
            while not stream.is_wanted and self._is_awaited() and time.monotonic() < until:
                self._changed.wait(_GLANCE)

    def _take(self, stream: _Stream) -> None:
        for chunk, data in self._ranges.chunks(stream.first, stream.last):
            self._give_way(stream)
            if self._present.has(chunk):
                continue
            with named("write", TAR):
                at = chunk * self.index.chunk
                while data:
                    count = os.pwrite(self.watched.tar, data, at)
                    data, at = data[count:], at + count
            with self._changed:
                self._present.add(chunk)
                self._unsynced += self.index.chunk
                self._changed.notify_all()

    def sync_after(self, size: int) -> None:
        """Have what came on the disk, if it is so much."""
        with self._lock:
            if self._unsynced <= size:
                return
            self._unsynced = 0
        self._present.sync(self.watched.tar)

    def condemn(self, text: str) -> None:
        """Remember for ever that what comes of it is not what it should be."""
        self.is_condemned = True
        note_wrong(self.watched.folder, text)

    def _blob(self, offset: int, count: int) -> Iterator[bytes]:
        return self._read(self.index.blob, self.index.size, offset, count)

    def _windows(self, offset: int, count: int) -> bytes:
        assert self.index.windows is not None
        return b"".join(self._read(self.index.windows, self.index.windows_size, offset, count))

    def _read(self, digest: Digest, size: int, offset: int, count: int) -> Iterator[bytes]:
        buffer = memoryview(bytearray(_PIECE))
        try:
            with self._repository.blob(digest, size, start=offset, end=offset + count) as reader:
                while got := reader.readinto(buffer):
                    yield bytes(buffer[:got])
        except NoRanges:
            raise RegistryError(f"{self._repository.registry} gives out no parts of blobs", remedy=_TOLD) from None
