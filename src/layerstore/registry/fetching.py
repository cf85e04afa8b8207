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
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Self

from layerstore.blobs import KnownBlob
from layerstore.compression import open_stream, open_tasted
from layerstore.compression.recipes import Taster
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, InvalidArchive, LayerstoreError, NotFound
from layerstore.registry.arriving import NOTHING, Blob, Fetch, Following, Given, Rest, the

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.layers import Progress
    from layerstore.registry.remotes import Hunt
    from layerstore.tar import Readable

__all__ = ["Blob", "Fetching", "Rest"]

_PIECE: Final = 256 << 10
"""What a death of the process loses at most, beside what the kernel has of the connection."""

_PATIENCE: Final = 1.0
"""Seconds that the end of a pull waits for threads whose servers are silent. They end by themselves later."""


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
        self._fetches: dict[Digest, Fetch] = {}
        self._waiting: deque[Fetch] = deque()
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
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))
        for fetch in self._fetches.values():
            fetch.close()

    # --- fetching ---

    def _begin(self, blob: Blob, *, is_alone: bool = False) -> Fetch:
        fetch = self._fetches[blob.digest] = Fetch(blob, is_alone=is_alone)
        with self._lock:
            self._waiting.append(fetch)
            if len(self._threads) < self._at_once:
                # A daemon: one that waits for a silent server must not keep the process from ending.
                thread = threading.Thread(target=self._run, name="layerstore-fetch", daemon=True)
                self._threads.add(thread)
                thread.start()
        return fetch

    def _run(self) -> None:
        buffer = memoryview(bytearray(_PIECE))
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads.discard(threading.current_thread())
                    return
                fetch = self._waiting.popleft()
            try:
                self._fetch(fetch, buffer)
            except BaseException as error:
                fetch.fail(error)
            finally:
                fetch.leave()

    def _fetch(self, fetch: Fetch, buffer: memoryview) -> None:
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
                    fetch.give(functools.partial(the, rest), bytes(buffer[file.size - before : count]))
                    rest = NOTHING
                    return
                fetch.grow()
                self._tell(blob, file.size)
            fetch.end()
        finally:
            rest.close()

    def _rest(self, fetch: Fetch, at: int) -> Rest:
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
        raw: Given | Following
        if blob.digest in self._plain:
            assert self._hunt is not None
            if (plain := self._hunt.plain(blob)) is not None:
                opened.callback(plain.close)
                return plain
            self._plain.discard(blob.digest)
        if blob.data is not None:
            raw = Given(blob.data)
        elif (fetch := self._fetches.get(blob.digest)) is not None:
            raw = Following(fetch)
        else:
            try:
                return opened.enter_context(self._blobs.opened(blob.digest))
            except NotFound:  # it went since
                raw = Following(self._begin(blob))
        opened.callback(raw.close)
        limits = self._blobs.limits
        # A plain blob's digest is its DiffID, which is verified in any case: once is enough.
        if blob.is_plain:
            return opened.enter_context(open_stream(raw, limits=limits))
        taster = self._tasters[blob.digest] = Taster()
        return opened.enter_context(open_tasted(raw, blob.digest, taster, limits))

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
