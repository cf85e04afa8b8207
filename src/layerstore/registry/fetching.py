"""Blobs on their way from a registry: a few threads fetch each into its partial file, and others read it from there.

What is read follows what was written, so the network never waits for the disk or for the layers below, and what came is
there for the next attempt, whatever happens to this one. Nothing that comes is believed: whoever has read a blob to its
end knows that it has the digest that the manifest states.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol, Self

from attrs import frozen

from layerstore.blobs import KnownBlob
from layerstore.compression import open_stream
from layerstore.compression.recipes import Taster
from layerstore.digest import DiffID, Digest, short
from layerstore.errors import DigestMismatch, InvalidArchive, LayerstoreError, NotFound

if TYPE_CHECKING:
    from layerstore.blobs import Blobs, Partial
    from layerstore.layers import Progress
    from layerstore.registry.remotes import Chase, Hunt
    from layerstore.tar import Readable

__all__ = ["Blob", "Fetching", "Rest"]

_PIECE: Final = 256 << 10
"""What a death of the process loses at most, beside what the kernel has of the connection."""
_SECONDS_AT_RISK: Final = 0.05
_PART_AT_RISK: Final = 1000
_BYTES_AT_RISK: Final = 128 << 10
"""What came is put on the disk when it is this part of its blob, or so many bytes, but no more often than that: it may
be lost when the power fails."""

_PATIENCE: Final = 1.0
"""Seconds that the end of a pull waits for threads whose server is silent. They end by themselves later."""


class Rest(Protocol):
    """The rest of a blob, as it comes over the line. It ends where the blob does, or raises."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer`; 0 at the end of the blob."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


@frozen
class Blob:
    """A layer's blob as a manifest has it. `data`: the bytes, if the manifest has them; `urls`: where else they are."""

    digest: Digest
    size: int
    diff_id: DiffID
    media_type: str
    urls: tuple[str, ...] = ()
    data: bytes | None = None

    @property
    def is_plain(self) -> bool:
        """Is it the layer's tar itself?"""
        return DiffID(self.digest) == self.diff_id

    @property
    def label(self) -> str:
        """What its progress is called."""
        return short(self.digest)


class Fetching:
    """The blobs of one image. A context manager: at its end nothing is fetched any more.

    `source` gives the bytes of a blob from an offset on; `title` is the repository, in errors. What came stays in
    `partial/` until `finish`, for the image may fail yet, and the machine; till then other stores may read it along.
    `keep`: what was fetched and is right becomes a kept blob. `hunt` finds blobs elsewhere, before the registry is
    asked; if what came from there is wrong, the registry gives it.
    """

    def __init__(
        self,
        source: Callable[[Blob, int], Rest],
        blobs: Blobs,
        title: str,
        *,
        at_once: int,
        keep: bool = False,
        progress: Progress | None = None,
        hunt: Hunt | None = None,
    ) -> None:
        self.verified: list[KnownBlob] = []
        """Those that were read to their end, and hold what the image's config says."""
        self._tasters: dict[Digest, Taster] = {}
        self._source = source
        self._blobs = blobs
        self._title = title
        self._at_once = at_once
        self._keep = keep
        self._progress = progress
        self._hunt = hunt
        self._plain: set[Digest] = set()
        self._wrong: dict[Digest, InvalidArchive] = {}
        self._fetches: dict[Digest, _Fetch] = {}
        self._waiting: deque[_Fetch] = deque()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def expect(self, blob: Blob) -> None:
        """Begin to fetch a blob, as soon as a thread is free."""
        if blob.data is not None or blob.digest in self._fetches or self._blobs.size(blob.digest) == blob.size:
            return
        if self._hunt is not None and self._hunt.has_plain(blob):
            self._plain.add(blob.digest)
        else:
            self._begin(blob)

    def is_expected(self, blob: Blob) -> bool:
        """Was it to be fetched?"""
        return blob.digest in self._fetches

    @contextmanager
    def opened(self, blob: Blob) -> Iterator[Readable]:
        """The uncompressed content of a blob. Its digest is checked at the end, its size on the way.

        Raises `DigestMismatch`, which names the blob, `InvalidArchive`, and whatever the registry's failure is.
        """
        try:
            with ExitStack() as opened:
                yield self._open(blob, opened)
        except InvalidArchive as error:
            fetch = self._fetches.get(blob.digest)
            self._plain.discard(blob.digest)
            is_old = fetch is None or bool(fetch.had) or fetch.is_of_others()
            if fetch is not None:
                fetch.fail(error)
                fetch.throw_away()
            told = self._explained(blob, error)
            if not is_old or blob.data is not None:
                self._wrong[blob.digest] = told
            if told is error:
                raise
            raise told from error
        if blob.digest not in self._plain:  # of that only the DiffID is known to be right
            self._verified(blob)

    @contextmanager
    def again(self, blob: Blob) -> Iterator[Readable]:
        """The same, from the registry and its first byte, where what was wrong came from before, or from elsewhere.

        Else the error once more.
        """
        if (error := self._wrong.get(blob.digest)) is not None:
            raise error
        self._begin(blob, is_alone=True)
        with self.opened(blob) as stream:
            yield stream

    def finish(self) -> None:
        """The image is in the store: what was fetched for it is of no use any more."""
        for fetch in self._fetches.values():
            fetch.throw_away()

    def abandon(self) -> None:
        """Let nothing be fetched any more, and tell whoever waits for it."""
        for fetch in list(self._fetches.values()):
            fetch.fail(LayerstoreError("stopped, for another layer could not be had"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()
        with self._lock:
            self._waiting.clear()
            threads = list(self._threads)
        for thread in threads:
            thread.join(timeout=_PATIENCE)
        for fetch in self._fetches.values():
            fetch.close()

    # --- fetching ---

    def _begin(self, blob: Blob, *, is_alone: bool = False) -> _Fetch:
        fetch = self._fetches[blob.digest] = _Fetch(blob, is_alone=is_alone)
        with self._lock:
            self._waiting.append(fetch)
            if len(self._threads) < self._at_once:
                # A daemon: one that waits for a silent server must not keep the process from ending.
                thread = threading.Thread(target=self._run, name="layerstore-fetch", daemon=True)
                self._threads.add(thread)
                thread.start()
        return fetch

    def _run(self) -> None:
        buffer, dirty = memoryview(bytearray(_PIECE)), _Dirty()
        while True:
            with self._lock:
                if self._waiting:
                    fetch = self._waiting.popleft()
                elif dirty.is_empty:
                    self._threads.discard(threading.current_thread())
                    return
                else:
                    fetch = None
            if fetch is None:
                dirty.sync()
                continue
            try:
                self._fetch(fetch, buffer, dirty)
            except BaseException as error:
                fetch.fail(error)
            finally:
                fetch.leave()

    def _fetch(self, fetch: _Fetch, buffer: memoryview, dirty: _Dirty) -> None:
        blob = fetch.blob
        file = self._blobs.partial(blob.digest)
        if file is None:
            fetch.give(lambda: self._rest(fetch, 0))
            return
        if file.size > blob.size:
            file.truncate()
        if not fetch.enter(file):
            file.close()
            return
        self._tell(blob, file.size)
        if file.size == blob.size:
            fetch.end()
            return
        rest = self._rest(fetch, file.size)
        try:
            while count := rest.readinto(buffer):
                if fetch.failure is not None:
                    return
                before = file.size
                if not file.append(buffer[:count]):
                    # There is no room for it: what follows goes straight to whoever reads.
                    fetch.give(functools.partial(_the, rest), bytes(buffer[file.size - before : count]))
                    rest = _NOTHING
                    return
                fetch.grow()
                self._tell(blob, file.size)
                dirty.written(file, count, blob)
            fetch.end()
        finally:
            rest.close()

    def _rest(self, fetch: _Fetch, at: int) -> Rest:
        upstream = functools.partial(self._source, fetch.blob)
        if self._hunt is None or fetch.is_alone:
            return upstream(at)
        fetch.chase = self._hunt.chase(fetch.blob, upstream, at)
        return fetch.chase

    def _tell(self, blob: Blob, done: int) -> None:
        if self._progress is not None:
            self._progress(blob.label, done, blob.size)

    # --- reading ---

    def _open(self, blob: Blob, opened: ExitStack) -> Readable:
        raw: _Given | _Following
        if blob.digest in self._plain:
            assert self._hunt is not None
            if (plain := self._hunt.plain(blob)) is not None:
                opened.callback(plain.close)
                return plain
            self._plain.discard(blob.digest)
        if blob.data is not None:
            raw = _Given(blob.data)
        elif (fetch := self._fetches.get(blob.digest)) is not None:
            raw = _Following(fetch)
        else:
            try:
                return opened.enter_context(self._blobs.opened(blob.digest))
            except NotFound:  # it went since
                raw = _Following(self._begin(blob))
        opened.callback(raw.close)
        # A plain blob's digest is its DiffID, which is verified in any case: once is enough.
        if blob.is_plain:
            return opened.enter_context(open_stream(raw))
        taster = self._tasters[blob.digest] = Taster()
        return opened.enter_context(open_stream(raw, expect=blob.digest, taster=taster))

    def _explained(self, blob: Blob, error: InvalidArchive) -> InvalidArchive:
        title = f"blob {blob.digest} of {self._title}"
        if not isinstance(error, DigestMismatch) or error.expected != blob.digest:
            error.message = f"{title}: {error.message}"
            return error
        told = DigestMismatch(title, expected=error.expected, actual=error.actual, layer=blob.diff_id)
        told.remedy = "The registry, or something on the way, sent other bytes. They were thrown away: pull again."
        return told

    def _verified(self, blob: Blob) -> None:
        fetch = self._fetches.get(blob.digest)
        if self._keep and fetch is not None and (partial := fetch.taken()) is not None:
            self._blobs.put_partial(partial, blob.digest, is_verified=True)
        taster = self._tasters.pop(blob.digest, None)
        recipe = None if taster is None else taster.recipe()
        is_proved = taster is not None and taster.is_certain and recipe is not None
        known = KnownBlob(blob.digest, blob.diff_id, blob.size, blob.media_type, recipe, is_proved)
        with self._lock:
            self.verified.append(known)


class _Dirty:
    """The partial files of a thread that are not on the disk yet: of no matter to this pull, but to the next."""

    def __init__(self) -> None:
        self._files: list[Partial] = []
        self._bytes = 0
        self._synced = time.monotonic()

    @property
    def is_empty(self) -> bool:
        return not self._files

    def written(self, file: Partial, count: int, blob: Blob) -> None:
        """So much was written to a file: put all on the disk if it is time to."""
        if file not in self._files:
            self._files.append(file)
        self._bytes += count
        is_much = self._bytes >= max(_BYTES_AT_RISK, blob.size // _PART_AT_RISK)
        if is_much and time.monotonic() - self._synced > _SECONDS_AT_RISK:
            self.sync()

    def sync(self) -> None:
        """Put all on the disk. What cannot be, or is gone by now, is fetched again at the worst."""
        files, self._files, self._bytes = self._files, [], 0
        for file in files:
            with suppress(LayerstoreError, ValueError):  # the latter of one that is closed
                file.sync()
        self._synced = time.monotonic()


class _Fetch:
    """One blob between the thread that fetches it and the one that reads it: how much there is, and how it ended."""

    def __init__(self, blob: Blob, *, is_alone: bool) -> None:
        self.blob = blob
        self.is_alone = is_alone
        """Is it fetched from the registry, and from nowhere else?"""
        self.chase: Chase | None = None
        self.changed = threading.Condition()
        self.partial: Partial | None = None
        self.had = 0
        """The bytes that were there from before."""
        self.is_whole = False
        self.failure: BaseException | None = None
        self.rest: Callable[[], Rest] | None = None
        """Where the rest comes from, if it does not go into the partial file; `pending` comes before it."""
        self.pending = b""
        self._is_busy = False
        self._after: Callable[[Partial], object] | None = None

    # By the thread that fetches.

    def enter(self, partial: Partial) -> bool:
        """Begin. False if nobody wants it any more."""
        with self.changed:
            if self.failure is not None:
                return False
            self.partial, self.had, self._is_busy = partial, partial.size, True
            self.changed.notify_all()
        return True

    def grow(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.is_whole = True
            self.changed.notify_all()

    def give(self, rest: Callable[[], Rest], pending: bytes = b"") -> None:
        with self.changed:
            self.rest, self.pending = rest, pending
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self.changed:
            self.failure = self.failure or error
            self.changed.notify_all()

    def leave(self) -> None:
        with self.changed:
            self._is_busy = False
            if self._after is not None:
                self._let_go(self._after)

    # By whoever reads it, or wants it no more.

    def is_of_others(self) -> bool:
        """What came is wrong: did any of it come from elsewhere than the registry?"""
        return self.chase is not None and self.chase.accuse()

    def taken(self) -> Partial | None:
        """The partial file, if it has the whole blob: it is the caller's from here on."""
        with self.changed:
            partial = self.partial
            if partial is None or not self.is_whole:
                return None
            self.partial = None
            return partial

    def throw_away(self) -> None:
        """Remove the partial file, at once or when the thread that fetches has let go of it."""
        self._settle(lambda partial: partial.discard())

    def close(self) -> None:
        """Let the partial file go, and stay."""
        self._settle(lambda partial: partial.close())

    def _settle(self, how: Callable[[Partial], object]) -> None:
        with self.changed:
            if not self._is_busy:
                self._let_go(how)
            elif self._after is None:
                self._after = how

    def _let_go(self, how: Callable[[Partial], object]) -> None:
        partial, self.partial = self.partial, None
        if partial is not None:
            how(partial)


class _Following:
    """The bytes of a blob while they come."""

    def __init__(self, fetch: _Fetch) -> None:
        self._fetch = fetch
        self._at = 0
        self._rest: Rest | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        fetch = self._fetch
        if self._rest is not None:
            count = self._rest.readinto(buffer)
            self._at += count
            return count
        with fetch.changed:
            while True:
                if fetch.failure is not None:
                    raise fetch.failure
                partial = fetch.partial
                if partial is not None and self._at < partial.size:
                    break
                if fetch.is_whole:
                    return 0
                if fetch.rest is not None:
                    return self._go_on(buffer)
                fetch.changed.wait()
        # One thread appends meanwhile: what it has written before is not touched again.
        count = partial.readinto(buffer, self._at)
        self._at += count
        return count

    def _go_on(self, buffer: memoryview) -> int:
        fetch = self._fetch
        if fetch.pending:
            count = min(len(buffer), len(fetch.pending))
            buffer[:count] = fetch.pending[:count]
            fetch.pending = fetch.pending[count:]
        else:
            assert fetch.rest is not None
            self._rest = fetch.rest()
            count = self._rest.readinto(buffer)
        self._at += count
        return count

    def close(self) -> None:
        if self._rest is not None:
            self._rest.close()


class _Given:
    """Bytes that are there."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        pass


_NOTHING: Final = _Given(b"")


def _the(rest: Rest) -> Rest:
    return rest
