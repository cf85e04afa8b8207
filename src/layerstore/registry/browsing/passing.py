"""A layer without a table: its tar is read from the front, and listed.

A compressed one is read as a stream, whole; of a plain one the headers alone, and the files that are asked for. What a
compressed one has is kept in a temporary file where it is not too large: else files are read from the front once more.
"""

from __future__ import annotations

import io
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from layerstore.compression import HEAD, open_stream, sniff
from layerstore.digest import DiffID
from layerstore.errors import InvalidArchive, named
from layerstore.limits import Limits
from layerstore.registry.browsing.blobs import Parts, Windowed
from layerstore.registry.browsing.listing import ListedLayer
from layerstore.registry.browsing.spooling import spooled
from layerstore.tar import Lying, Unpacked, take_listing
from layerstore.trees import Tree

__all__ = ["PassReader", "Room"]

_WINDOW: Final = 128 << 10
"""What is asked for at once of a plain tar: in it most headers of a folder follow each other."""
_PIECE: Final = 1 << 20


class Room:
    """How many bytes of tars the layers of an image may keep in temporary files, together."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Is there room for so many more?"""
        with self._lock:
            self._left -= count
            return self._left >= 0

    def give_back(self, count: int) -> None:
        """So many are kept no more."""
        with self._lock:
            self._left += count


class PassReader(ListedLayer):
    """See `ListedLayer`."""

    def __init__(self, parts: Parts, below: Tree | None, limits: Limits, room: Room) -> None:
        super().__init__(parts, below)
        self._limits = limits
        self._kept = _Kept(room)
        self._source: _Plain | _Stream | None = None
        """Where files are read: it is at some place of the tar."""

    def close(self) -> None:
        """See `SliceReader`."""
        with self._lock:
            self._end()
            self._kept.drop()

    def list_into(self, listing: Path, below: int | None) -> Unpacked:
        """See `ListedLayer`."""
        source = self._opened()
        if isinstance(source, _Plain):
            return take_listing(
                source,
                listing,
                below=below,
                bottom=self.is_bottom,
                limits=self._limits,
                claimed=DiffID(self._parts.layer.digest),
                skip=source.skip,
            )
        return take_listing(source, listing, below=below, bottom=self.is_bottom, limits=self._limits)

    def open_file(self, size: int, payload: int | None, lying: Lying | None) -> io.BufferedReader:
        """See `ListedLayer`."""

        def fill(spool: Any) -> None:
            if lying is not None:
                with self._lock:
                    self._copy(lying, spool)
            with named("write"):
                spool.truncate(size)

        return spooled(fill)

    def _copy(self, lying: Lying, spool: Any) -> None:
        """The bytes of a file, each where it belongs."""
        file = self._kept.whole
        if file is None:
            if self._source is None or self._source.at > lying.place:
                self._source = self._opened()
            file = self._source
        file.seek(lying.place)
        for offset, left in lying.payload.extents or ((0, lying.payload.size),):
            with named("write"):
                spool.seek(offset)
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    raise InvalidArchive(f"{self._parts.title} is not what it was", remedy="Try again.")
                left -= len(piece)
                with named("write"):
                    spool.write(piece)

    # --- the tar ---

    def _end(self) -> None:
        ended, self._source = self._source, None
        if ended is not None:
            ended.close()

    def _opened(self) -> _Plain | _Stream:
        """The tar from its beginning. What was opened before is closed."""
        self._end()
        if self._parts.layer.media_type.endswith((".tar", ".tar.none")):
            plain = _Plain(self._parts)
            if sniff(plain.head()) is None:
                self._source = plain
                return plain
        self._source = _Stream(self._parts, self._limits, self._kept)
        return self._source


class _Plain:
    """A tar that is no stream: what is not wanted is not fetched."""

    def __init__(self, parts: Parts) -> None:
        self._title = parts.title
        self._size = parts.layer.size
        self._window = io.BufferedReader(Windowed(parts), _WINDOW)
        self.at = 0

    def head(self) -> bytes:
        """What it begins with."""
        return self._window.peek(HEAD)[:HEAD]

    def skip(self, count: int) -> None:
        """Leave out so many bytes."""
        self.seek(self.at + count)

    def seek(self, place: int) -> None:
        """Go on at a place."""
        if place > self._size:
            raise InvalidArchive(f"{self._title} is cut short")
        self.at = self._window.seek(place)

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes; 0 at the end."""
        count = self._window.readinto(buffer)
        self.at += count
        return count

    def read(self, count: int) -> bytes:
        """So many bytes at most; none at the end."""
        data = self._window.read(count)
        self.at += len(data)
        return data

    def close(self) -> None:
        """Give the buffer back."""
        self._window.close()


class _Stream:
    """A tar that was compressed: it goes forward only."""

    def __init__(self, parts: Parts, limits: Limits, kept: _Kept) -> None:
        self._kept = kept
        self.at = 0
        with ExitStack() as undo:
            incoming = parts.stream()
            undo.callback(incoming.close)
            self._stream = undo.enter_context(open_stream(incoming, expect=parts.layer.digest, limits=limits))
            self._undo = undo.pop_all()
        kept.begin()

    def seek(self, place: int) -> None:
        """Go on at a place, which is none before `at`."""
        while self.at < place and self.read(min(place - self.at, _PIECE)):
            pass

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes; 0 at the end."""
        count = self._stream.readinto(buffer) or 0
        self._kept.add(buffer[:count], self.at)
        self.at += count
        return count

    def read(self, count: int) -> bytes:
        """So many bytes at most; none at the end."""
        buffer = bytearray(count)
        got = self.readinto(memoryview(buffer))
        return bytes(buffer[:got])

    def close(self) -> None:
        """Give the connection up."""
        self._undo.close()


class _Kept:
    """The tar as it came, in a temporary file, if there is room for it. What disk there is not is no error."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._undo = ExitStack()
        self._file: Any = None
        self._size = 0
        self.whole: Any = None
        """The file, when all of it is there."""

    def begin(self) -> None:
        """It is read from the front."""
        if self.whole is None:
            self.drop()
            try:
                with ExitStack() as undo:
                    self._file = undo.enter_context(tempfile.TemporaryFile())
                    self._undo = undo.pop_all()  # closed when it is dropped
            except OSError:
                self._file = None

    def add(self, data: memoryview, at: int) -> None:
        """The bytes from a place on; none: that was all."""
        if self._file is None or self.whole is not None or at != self._size:
            return
        if not len(data):
            self.whole = self._file
            return
        self._size += len(data)
        is_kept = self._room.take(len(data))
        try:
            if is_kept:
                self._file.write(data)
        except OSError:
            is_kept = False
        if not is_kept:
            self.drop()

    def drop(self) -> None:
        """Keep nothing."""
        self._undo.close()
        self._room.give_back(self._size)
        self._file, self.whole, self._size = None, None, 0
