"""Parts of a blob in a registry, counted as they come."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any, Final

from layerstore.errors import RegistryError
from layerstore.manifests import Descriptor
from layerstore.registry.client.blobs import NoRanges
from layerstore.registry.client.repository import Reader, Repository
from layerstore.registry.transport.words import printable

__all__ = ["Counter", "Incoming", "Parts", "Windowed"]

_PIECE: Final = 1 << 20


class Counter:
    """How many bytes came, of all layers of an image."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many more."""
        with self._lock:
            self.bytes += count


class Incoming:
    """A blob from its beginning, as far as somebody reads it."""

    def __init__(self, reader: Reader, counter: Counter) -> None:
        self._reader = reader
        self._counter = counter

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes; 0 at the end."""
        count = self._reader.readinto(buffer)
        self._counter.add(count)
        return count

    def close(self) -> None:
        """Give the connection up."""
        self._reader.close()


class Parts:
    """A layer's blob, and what of it is read."""

    def __init__(self, repository: Repository, layer: Descriptor, counter: Counter) -> None:
        self.layer = layer
        self.title = f"layer {layer.digest} of {printable(repository.name)}"
        self._repository = repository
        self._counter = counter

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`. Raises `RegistryError` where the registry gives no parts."""
        return b"".join(self.pieces(start, end))

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The same, as they come: what is asked for may be more than there is memory, or than there is."""
        layer, left = self.layer, end - start
        buffer = memoryview(bytearray(min(left, _PIECE)))
        try:
            with self._repository.blob(layer.digest, layer.size, start=start, end=end, urls=layer.urls) as reader:
                while left and (count := reader.readinto(buffer[:left])):
                    left -= count
                    self._counter.add(count)
                    yield bytes(buffer[:count])
        except NoRanges:
            raise RegistryError(
                f"the registry does not give out parts of {self.title}",
                remedy="Pull the image, and look into it in the store.",
            ) from None
        if left:
            raise RegistryError(f"{self.title} ends early", remedy="Try again.")

    def stream(self) -> Incoming:
        """All of it, from the first byte on."""
        layer = self.layer
        reader = self._repository.blob(layer.digest, layer.size, is_narrow=True, urls=layer.urls)
        return Incoming(reader, self._counter)


class Windowed(io.RawIOBase):
    """A blob that can be read anywhere; each read is a request, so it wants a buffer before it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = (0, self._at, self._parts.layer.size)[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._parts.layer.size)
        if end <= self._at:
            return 0
        data = self._parts.read(self._at, end)
        view[: len(data)] = data
        self._at = end
        return len(data)
