"""What is sent, as files that are read: what something writes, what another registry has, counted and stoppable.

A request may have to be made twice, so each body can be opened again. What goes wrong with the bytes themselves, not
with the sending, is `Lost`: then the same layer may be sent in another form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import FileIO
from typing import BinaryIO, Protocol, TypeAlias, cast

from layerstore.errors import DigestMismatch, LayerstoreError
from layerstore.layers.relay import Write, relay
from layerstore.manifests import Descriptor
from layerstore.registry.tasks import Tasks
from layerstore.registry.transport.http import Body

_ALTERED = "It is damaged where it comes from, or was altered on the way. It was not passed on."

Counted: TypeAlias = Callable[[int], object]
"""Is told how many bytes have been read, from the beginning on."""


class Source(Protocol):
    """Bytes, one after the other."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the beginning of `buffer`; 0 at the end."""

    def close(self) -> None:
        """Let go of what the source holds."""


class Lost(Exception):
    """The bytes of a blob could not be had. `reason` says why."""

    def __init__(self, descriptor: Descriptor, reason: LayerstoreError) -> None:
        super().__init__(descriptor.digest)
        self.descriptor = descriptor
        self.reason = reason


def body_of(
    descriptor: Descriptor, open: Callable[[], Source], *, tasks: Tasks, counted: Counted | None = None
) -> Body:
    """The body that is the bytes of a blob, each time `open` is called from their beginning."""
    # As much of a file as a request needs.
    return Body(descriptor.size, lambda: cast(BinaryIO, _Reader(descriptor, open, tasks, counted)))


class _Reader:
    """A source, as a request reads it."""

    def __init__(
        self, descriptor: Descriptor, open: Callable[[], Source], tasks: Tasks, counted: Counted | None
    ) -> None:
        self._descriptor = descriptor
        self._tasks = tasks
        self._counted = counted
        self._done = 0
        with self._told():
            self._source = open()

    def readinto(self, buffer: memoryview, /) -> int:
        self._tasks.check()
        with self._told():
            count = self._source.readinto(memoryview(buffer).cast("B")) or 0
        self._done += count
        if self._counted is not None:
            self._counted(self._done)
        return count

    def read(self, size: int = -1, /) -> bytes:
        """As files have it: fewer bytes than asked for only at the end."""
        wanted = self._descriptor.size - self._done if size < 0 else size
        buffer = bytearray(wanted)
        view, filled = memoryview(buffer), 0
        while filled < wanted and (count := self.readinto(view[filled:])):
            filled += count
        return bytes(view[:filled])

    def close(self) -> None:
        self._source.close()

    def _told(self) -> _Telling:
        return _Telling(self._descriptor)


class _Telling:
    """While inside, an error is one of the bytes."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LayerstoreError):
            raise Lost(self._descriptor, error) from error


class Verified:
    """The bytes of a blob from somewhere else. Its last byte is given only if all of them are right."""

    def __init__(self, descriptor: Descriptor, open: Callable[[], Source]) -> None:
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._left = descriptor.size
        self._source = open()
        if not self._left:
            self._check()

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._left:
            return 0
        count = self._source.readinto(buffer[: self._left]) or 0
        self._hash.update(buffer[:count])
        self._left -= count
        if not self._left or not count:
            self._check()
        return count

    def _check(self) -> None:
        if (actual := f"sha256:{self._hash.hexdigest()}") != self._descriptor.digest:
            raise DigestMismatch("the blob", expected=self._descriptor.digest, actual=actual, remedy=_ALTERED)

    def close(self) -> None:
        self._source.close()


class Written:
    """What `produce` writes, to be read. Its errors come at the end of what it wrote."""

    def __init__(self, produce: Callable[[Write], object]) -> None:
        self._relay = relay(produce)
        self._stream: FileIO | None = self._relay.__enter__()

    def readinto(self, buffer: memoryview, /) -> int:
        if self._stream is None:
            return 0
        count = self._stream.readinto(buffer)
        if not count:
            self._stream = None
            self._relay.__exit__(None, None, None)
        return count

    def close(self) -> None:
        """Stop whoever writes."""
        if self._stream is not None:
            self._stream = None
            try:
                self._relay.__exit__(GeneratorExit, GeneratorExit(), None)
            except GeneratorExit:
                pass
