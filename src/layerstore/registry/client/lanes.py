"""A large blob by several connections at once, in the connections that daemon.json allows and nobody else needs.

Its bytes are given out in order. What comes before its turn lies in pieces, files beside the partial download where
there is a place for them, so that it is there for the next attempt too; a few pieces are begun ahead, never more. A
server that gives out no ranges is read by one connection.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from layerstore.digest import Digest, hex_of, of_bytes
from layerstore.errors import LayerstoreError
from layerstore.registry.client.blobs import Asking, BlobReader, NoRanges
from layerstore.registry.transport.lines import Lines

__all__ = ["PIECE", "PieceFile", "Spare", "WideReader", "piece_name"]

PIECE: Final = 16 << 20
"""Bytes of a piece: at 50 ms and 20 MB/s, what a request costs before its first byte is 6 % of it."""
_AHEAD: Final = 1
"""Pieces that are begun beyond one for each connection."""
LOOK: Final = 0.25
"""Seconds that one connection is waited for before it is judged."""
FAST: Final = 64 << 20
"""Bytes in a second that one connection is fast enough with: to unpack takes as long, and more would only cost."""
_STEP: Final = 256 << 10


class PieceFile(Protocol):
    """Where a piece lies until its turn comes: a partial file. One thread appends, another reads what was appended."""

    @property
    def size(self) -> int: ...

    def append(self, data: memoryview, /) -> bool: ...

    def readinto(self, buffer: memoryview, offset: int, /) -> int: ...

    def truncate(self, size: int = 0, /) -> None: ...

    def discard(self) -> None: ...

    def close(self) -> None: ...


Spare = Callable[[int], PieceFile | None]
"""Gives the file for the piece that begins at an offset, with what it had from before; None: there is no place."""


def piece_name(digest: Digest, start: int) -> str:
    """What the partial file of a piece is called."""
    return hex_of(of_bytes(f"{digest} from {start}".encode()))


class _Piece:
    """A part of the blob that is fetched before its turn."""

    def __init__(self, start: int, end: int, store: PieceFile | None) -> None:
        self.start, self.end = start, end
        self.store = store
        self.filled = 0
        if store is not None:
            if store.size > end - start:
                store.truncate()
            self.filled = store.size
        self.memory = bytearray()
        """What the file has no room for."""
        self.in_file = self.filled
        self.error: BaseException | None = None
        self.is_busy = True

    def append(self, data: memoryview) -> None:
        if self.store is not None and not self.memory:
            fits = self.store.append(data)
            self.in_file = self.store.size
            data = data[self.in_file - self.filled :] if not fits else data[:0]
        self.memory += data
        self.filled = self.in_file + len(self.memory)

    def readinto(self, view: memoryview, offset: int) -> int:
        if offset < self.in_file and self.store is not None:
            return self.store.readinto(view[: self.in_file - offset], offset)
        data = self.memory[offset - self.in_file : offset - self.in_file + len(view)]
        view[: len(data)] = data
        return len(data)

    def drop(self) -> None:
        """It was read to its end."""
        if self.store is not None:
            self.store.discard()

    def let_go(self) -> None:
        """What it has stays for the next attempt."""
        if self.store is not None:
            self.store.close()


class WideReader:
    """The bytes of a blob from `start` to its end, as `BlobReader` gives them. For one thread at a time.

    It begins with one connection. If that is slow, those that are idle are taken for what lies ahead.
    """

    def __init__(self, asking: Asking, lines: Lines, *, start: int = 0, spare: Spare | None = None) -> None:
        self.at = start
        self._asking = asking
        self._lines = lines
        self._spare = spare
        self._main: BlobReader | None = None
        self._pieces: deque[_Piece] = deque()
        self._read: _Piece | None = None
        """The last that was read to its end: until now its bytes may not be on the disk in another place."""
        self._found: dict[int, PieceFile] = {}
        """What an attempt before this one has left, by its offset."""
        self._is_begun = False
        self._waited = 0.0
        self._gained = 0
        self._next: int | None = None
        """Where the piece begins that nobody has begun; None: it is read by one connection."""
        self._lanes = 0
        self._is_narrow = False
        """The server gives out no ranges."""
        self._is_closed = False
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections; those that wait for a silent server end a little later. Pieces stay."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            while self._pieces:
                piece = self._pieces.popleft()
                if not piece.is_busy:
                    piece.let_go()
            for store in self._found.values():
                store.close()
            self._found.clear()
            if self._read is not None:
                self._read.let_go()
                self._read = None
        if self._main is not None:
            self._main.close()
            self._main = None

    def readinto(self, buffer: memoryview | bytearray, /) -> int:
        """The next bytes; 0 at the end. Raises what `BlobReader.readinto` does."""
        view = memoryview(buffer)
        if not self._is_begun:
            self._is_begun = True
            self._find()
        while view and self.at < self._asking.size:
            began = time.monotonic()
            self._widen()
            piece = self._first()
            if piece is None or self.at < piece.start:
                count = self._by_main(view, self._boundary(piece))
            else:
                count = self._of_piece(view, piece)
            self._waited += time.monotonic() - began
            self._gained += count
            if count:
                return count
        return 0

    def _boundary(self, piece: _Piece | None) -> int | None:
        """How far the connection that reads in order may go."""
        if piece is not None:
            return piece.start
        return self._next if self._next is not None and self.at < self._next and not self._is_narrow else None

    def _by_main(self, view: memoryview, end: int | None) -> int:
        """The next bytes by the connection that reads in order."""
        if self._main is None:
            self._main = BlobReader(self._asking, start=self.at)
        count = self._main.readinto(view if end is None else view[: end - self.at])
        self.at = self._main.at
        if self.at == end:
            self._main.close()
            self._main = None
        return count

    def _of_piece(self, view: memoryview, piece: _Piece) -> int:
        """The next bytes out of a piece, as soon as they are there; 0 if it will not have them."""
        offset = self.at - piece.start
        with self._changed:
            while piece.filled <= offset and piece.is_busy and not self._is_narrow:
                self._changed.wait()
            has_more = piece.filled > offset
            if not has_more and not self._is_narrow and piece.error is not None:
                raise piece.error
        count = piece.readinto(view, offset) if has_more else 0
        self.at += count
        if self.at == piece.end:
            with self._changed:
                self._pieces.popleft()
                self._changed.notify_all()
            if self._read is not None:
                self._read.drop()
            self._read = piece
            if self.at == self._asking.size:
                piece.drop()
                self._read = None
        elif not has_more:
            self._give_up_pieces()
        return count

    def _give_up_pieces(self) -> None:
        """Read on by one connection: what lies ahead cannot be had for itself."""
        with self._changed:
            self._is_narrow = True
            while self._pieces:
                piece = self._pieces.popleft()
                if not piece.is_busy:
                    piece.drop()
            self._changed.notify_all()

    def _first(self) -> _Piece | None:
        """The piece whose turn comes next; it may have been begun in this moment."""
        with self._changed:
            while not self._pieces and self._lanes and self.at == self._next and not self._is_narrow:
                self._changed.wait()
            return self._pieces[0] if self._pieces else None

    # --- more connections ---

    def _find(self) -> None:
        """Go on with the pieces of an attempt before this one: they are where it stopped, or soon after."""
        here = self.at // PIECE * PIECE
        for start in range(max(here - PIECE, 0), here + (self._lines.most + _AHEAD + 1) * PIECE, PIECE):
            store = self._store(start) if start < self._asking.size else None
            if store is None:
                continue
            if store.size > max(self.at - start, 0):
                self._found[start] = store
                self._next = start
                return
            store.discard()

    def _widen(self) -> None:
        """Take what is idle, for what lies ahead."""
        if self._is_narrow:
            return
        is_slow = self._waited >= LOOK and self._gained < self._waited * FAST
        if self._next is None:
            # At a multiple of its size, so that the next attempt finds it again.
            start = (self.at // PIECE + 1) * PIECE
            if not is_slow or start + PIECE > self._asking.size or not self._lines.take_idle():
                return
            self._next = start
        elif self._next >= self._asking.size:
            return
        elif self._lanes == 0 and self.at >= self._next:
            self._lines.take()  # the connection that read in order has come to where the pieces begin
        elif not is_slow or not self._lines.take_idle():
            return
        with self._changed:
            self._lanes += 1
        threading.Thread(target=self._lane, name="layerstore-lane", daemon=True).start()

    def _lane(self) -> None:
        buffer = memoryview(bytearray(_STEP))
        try:
            while (piece := self._begun()) is not None:
                try:
                    self._fill(piece, buffer)
                except NoRanges:
                    with self._changed:
                        self._is_narrow = True
                except BaseException as error:
                    piece.error = error
                finally:
                    self._end(piece)
        finally:
            self._lines.give_back()
            with self._changed:
                self._lanes -= 1
                self._changed.notify_all()

    def _begun(self) -> _Piece | None:
        """The next piece, when there is room for it; None: this connection is not needed any more."""
        with self._changed:
            while len(self._pieces) >= self._lanes + _AHEAD and not self._is_closed and not self._is_narrow:
                self._changed.wait()
            is_over = self._next is None or self._next >= self._asking.size
            if is_over or self._is_closed or self._is_narrow or (self._lanes > 1 and self._lines.is_crowded):
                return None
            assert self._next is not None
            start, end = self._next, min(self._next + PIECE, self._asking.size)
            self._next = end
            piece = _Piece(start, end, self._found.pop(start, None) or self._store(start))
            self._pieces.append(piece)
            self._changed.notify_all()
            return piece

    def _store(self, start: int) -> PieceFile | None:
        try:
            return None if self._spare is None else self._spare(start)
        except LayerstoreError:
            return None  # whoever cannot write has other troubles, and tells of them

    def _fill(self, piece: _Piece, buffer: memoryview) -> None:
        with BlobReader(
            self._asking.uncounted, start=piece.start + piece.filled, end=piece.end, is_part=True
        ) as reader:
            while count := reader.readinto(buffer):
                with self._changed:
                    piece.append(buffer[:count])
                    self._changed.notify_all()
                    if self._is_closed or self._is_narrow:
                        return

    def _end(self, piece: _Piece) -> None:
        with self._changed:
            piece.is_busy = False
            if self._is_closed:
                piece.let_go()
            elif self._is_narrow and piece not in self._pieces:
                piece.drop()
            self._changed.notify_all()
