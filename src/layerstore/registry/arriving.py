"""One blob on its way: between the thread that fetches it into its partial file and the one that reads it from there.

The thread that fetches never waits for the one that reads. Where the file takes no more, the rest is handed over, and
whoever reads fetches it himself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from layerstore.digest import DiffID, Digest, short
from layerstore.patience import look_up
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.blobs import Partial
    from layerstore.registry.remotes import Chase

__all__ = ["NOTHING", "Blob", "Fetch", "Following", "Given", "Rest", "the"]


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


class Fetch:
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
        """More has come."""
        with self.changed:
            self.changed.notify_all()

    def end(self) -> None:
        """All has come."""
        with self.changed:
            self.is_whole = True
            self.changed.notify_all()

    def give(self, rest: Callable[[], Rest], pending: bytes = b"") -> None:
        """The rest does not go into the file: `pending` comes first, and then what `rest` opens."""
        with self.changed:
            self.rest, self.pending = rest, pending
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Nothing more comes, for this reason."""
        with self.changed:
            self.failure = self.failure or error
            self.changed.notify_all()

    def leave(self) -> None:
        """The thread has let go of the file."""
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


class Following:
    """The bytes of a blob while they come, as a stream."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._at = 0
        self._rest: Rest | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer` as soon as there is something; 0 at the end. Raises why no more comes."""
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
                fetch.changed.wait(look_up())
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
        """Let go of what is read beyond the file."""
        if self._rest is not None:
            self._rest.close()


class Given:
    """Bytes that are there."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer`; 0 at the end."""
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Nothing."""


NOTHING: Final = Given(b"")


def the(rest: Rest) -> Rest:
    """The same: `Fetch.give` wants a function."""
    return rest
