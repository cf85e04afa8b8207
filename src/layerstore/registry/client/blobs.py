"""A blob as a stream that survives its connections: what broke off goes on from the byte that was reached.

A blob's size is known from its descriptor, so each range that is asked for has an end, and nothing is ever asked for at
the end. What a server answers is believed as far as it fits: 206 with the right beginning, else the blob comes from its
first byte again, and what was there before is read over. Whether it is the right blob only its digest says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from attrs import evolve

from layerstore.digest import Digest
from layerstore.errors import CertificateError, RegistryError, Unreachable
from layerstore.registry.transport.http import Reply
from layerstore.registry.transport.lines import Lines
from layerstore.registry.transport.words import printable
from layerstore.values import define, frozen

__all__ = ["Asking", "BlobReader", "NoRanges"]

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_PROGRESS: Final = 4 << 10
"""Bytes that a connection has to bring for its end not to count as a failed attempt."""
_SCRATCH: Final = 128 << 10


@frozen
class Asking:
    """How a blob is asked for: `request` with a Range or none, `wait` before the attempt of that number."""

    registry: str
    digest: Digest
    size: int
    attempts: int
    request: Callable[[Mapping[str, str]], Reply]
    wait: Callable[[int], None]
    lines: Lines | None = None
    """Where each connection that is open is counted."""
    doubt: Callable[[Reply], bool] = lambda reply: False
    """Told of a reply that was wrong, or brought nothing. True: it was a mirror's, and others will be asked now."""

    @property
    def uncounted(self) -> Asking:
        """The same, for who counts connections himself."""
        return evolve(self, lines=None)

    @property
    def title(self) -> str:
        """The blob, in errors."""
        return f"blob {self.digest} of {printable(self.registry)}"


class NoRanges(Exception):
    """The server does not give out a part alone."""


class _Elsewhere(Exception):
    """It was a mirror that answered so: another server is asked."""


@define(eq=False)
class _Open:
    """A reply with bytes of the blob. `skip`: those to be read over; `end`: the offset at which it ends."""

    reply: Reply
    skip: int
    end: int


class BlobReader:
    """The bytes of a blob from `start` to its end, or to `end`. A context manager.

    `at` is the offset of the next byte. Only the end of the bytes that were announced ends it: a connection that
    breaks, is silent or ends early is followed by another, and attempts count anew with each that brings something.
    `is_part`: nothing but this part is to be read; then `NoRanges` is raised where a server does not give it alone.
    """

    def __init__(self, asking: Asking, *, start: int = 0, end: int | None = None, is_part: bool = False) -> None:
        if not 0 <= start <= asking.size:
            raise ValueError(f"{start} is no offset in {asking.size} bytes")
        self.at = start
        self._asking = asking
        self._end = asking.size if end is None else end
        self._is_part = is_part or self._end < asking.size
        self._open: _Open | None = None
        self._failures = 0
        self._gained = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back, or close it."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.reply.close()
            if self._asking.lines is not None:
                self._asking.lines.give_back()

    def readinto(self, buffer: memoryview | bytearray, /) -> int:
        """The next bytes; 0 at the end. Raises what `Http.request` raises, `NotFound`, `RegistryError`."""
        view = memoryview(buffer)
        while view and self.at < self._end:
            opened = self._open
            if opened is None:
                try:
                    opened = self._open = self._opened()
                except _Elsewhere:
                    continue
                if self._asking.lines is not None:
                    self._asking.lines.take()
            try:
                count = self._read(opened, view)
            except CertificateError:
                raise
            except Unreachable as error:
                self._broke(opened, error)
                continue
            if count:
                return count
            if self.at < opened.end:
                self._broke(opened, None)
            else:
                self.close()  # a shorter range than was asked for
        return 0

    def _read(self, opened: _Open, view: memoryview) -> int:
        while opened.skip:
            scratch = memoryview(bytearray(min(opened.skip, _SCRATCH)))
            skipped = opened.reply.readinto(scratch)
            if not skipped:
                return 0
            opened.skip -= skipped
        count = opened.reply.readinto(view[: min(len(view), opened.end - self.at)])
        self.at += count
        self._gained += count
        if self.at == self._end:
            self.close()
        return count

    def _broke(self, opened: _Open, error: Unreachable | None) -> None:
        """Make ready for another connection, unless there were enough that brought nothing."""
        self.close()
        if self._gained < _PROGRESS and self._asking.doubt(opened.reply):
            self._failures = self._gained = 0
            return
        self._failures = 1 if self._gained >= _PROGRESS else self._failures + 1
        self._gained = 0
        if self._failures >= self._asking.attempts:
            raise error or Unreachable(
                f"{self._asking.title} breaks off after {self.at} of {self._asking.size} bytes",
                remedy="Try again; what has been transferred is kept.",
            )
        if self._failures > 1:
            self._asking.wait(self._failures - 1)

    # --- what a server answers ---

    def _opened(self) -> _Open:
        if self.at == 0 and not self._is_part:
            return self._whole()
        reply = self._asking.request({"Range": f"bytes={self.at}-{self._end - 1}"})
        if reply.status == 206 and (end := self._range_of(reply)) is not None:
            return _Open(reply, 0, end)
        if reply.status == 200:
            return self._from_the_first(reply)
        if reply.status not in (206, 416):
            raise self._failure(reply)
        reply.close()
        return self._whole()

    def _whole(self) -> _Open:
        if self._is_part:
            raise NoRanges
        reply = self._asking.request({})
        if reply.status != 200:
            raise self._failure(reply)
        return self._from_the_first(reply)

    def _from_the_first(self, reply: Reply) -> _Open:
        if self._is_part:
            reply.close()
            raise NoRanges
        self._check(reply, reply.size)
        return _Open(reply, self.at, self._asking.size)

    def _range_of(self, reply: Reply) -> int | None:
        """Where the range ends that a 206 has; None if it cannot be trusted to begin where it should."""
        match = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
        if match is None:
            return None
        first, last = int(match[1]), int(match[2])
        if match[3] != "*":
            self._check(reply, int(match[3]))
        if first != self.at or last < first or (reply.size is not None and reply.size != last + 1 - first):
            return None
        return min(last + 1, self._end)

    def _check(self, reply: Reply, size: int | None) -> None:
        if size is not None and size != self._asking.size:
            reply.close()
            if self._asking.doubt(reply):
                raise _Elsewhere
            raise RegistryError(
                f"{self._asking.title} has {size} bytes, not {self._asking.size} as its descriptor says",
                remedy="The image is damaged, or was altered: tell whoever pushed it.",
            )

    def _failure(self, reply: Reply) -> Exception:
        with reply:
            return reply.failure(f"reading {self._asking.title}")
