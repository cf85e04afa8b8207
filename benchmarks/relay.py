"""A long and bad way to a server on this machine: a TCP relay with latency, a bandwidth, resets, and a tap.

It says how many bytes of the server's the clients were sent, and can stop at a given one of them.
"""

from __future__ import annotations

import fcntl
import queue
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

PIECE: Final = 64 << 10
_PIECES: Final = 64
"""What is under way in one direction of a connection at most: 4 MiB."""
_RESET: Final = b"reset"
"""In the place of a piece: what was sent before it arrives, as over a real line."""
_SIOCOUTQNSD: Final = 0x894B
"""linux/sockios.h: bytes in a socket's queue that were not sent yet; those that were are the client's already."""


class Relay:
    """While the `with` lasts, `host` leads to the server `target`.

    `delay`: seconds of a round trip, half of it in each direction, and a whole one before the first byte of a
    connection, as TCP's handshake takes. `rate`: bytes a second from the server, of all connections together.
    `resets`: the share of the pieces of 64 KiB from the server at which their connection is reset, both ends of it.
    """

    def __init__(
        self, target: str, *, delay: float = 0.0, rate: float | None = None, resets: float = 0.0, seed: int = 0
    ) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._delay = delay
        self._rate = rate
        self._resets = resets
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._links: set[_Link] = set()
        self._stop_at: int | None = None
        self._free_at = 0.0
        self.carried = 0
        """Bytes of the server's that clients were sent."""
        self.connections = 0
        self.requests = self.turns = 0
        """What was asked for by GET and HEAD; and how often that was a round trip or more after what was before."""
        self._turned_at = 0.0
        self.broken = 0
        """Connections that were reset."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.go_on()
        self.drop()

    def count_anew(self) -> None:
        """From here on."""
        with self._changed:
            self.requests = self.turns = 0

    def heard(self, data: bytes) -> None:
        """A piece of a client's came."""
        if data.startswith((b"GET ", b"HEAD ")):
            with self._changed:
                self.requests += 1
                if time.monotonic() - self._turned_at >= self._delay:
                    self.turns += 1
                    self._turned_at = time.monotonic()

    def stop_at(self, count: int) -> None:
        """Carry nothing of the server's any more from the moment when `carried` has reached this."""
        with self._changed:
            self._stop_at = count

    def has_stopped(self, timeout: float) -> bool:
        """Wait until it has stopped, for so many seconds at most."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopped, timeout)

    def go_on(self) -> None:
        """Carry again."""
        with self._changed:
            self._stop_at = None
            self._changed.notify_all()

    def drop(self) -> None:
        """Reset all connections."""
        with self._changed:
            links = list(self._links)
        for link in links:
            link.reset()

    @property
    def _is_stopped(self) -> bool:
        return self._stop_at is not None and self.carried >= self._stop_at

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._changed:
                self.connections += 1
                self._links.add(_Link(self, client, server))

    # By the links.

    def is_reset(self, size: int) -> bool:
        """Does this piece meet with a reset?"""
        with self._changed:
            return self._random.random() < self._resets * size / PIECE

    def pace(self, size: int) -> None:
        """Wait until so many bytes may go."""
        if self._rate is None:
            return
        with self._changed:
            start = max(self._free_at, time.monotonic())
            self._free_at = start + size / self._rate
        time.sleep(max(0.0, start - time.monotonic()))

    def carry(self, target: socket.socket, data: bytes) -> None:
        """Send a piece of the server's, and count what is taken; when it is to stop, not before it goes on."""
        rest = memoryview(data)
        while rest:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_stopped)
            count = target.send(rest)
            rest = rest[count:]
            with self._changed:
                self.carried += count
                self._changed.notify_all()

    def due(self, *, is_first: bool) -> float:
        """When a piece that comes in now arrives."""
        return time.monotonic() + self._delay / 2 + (self._delay if is_first else 0.0)

    def gone(self, link: _Link, *, was_reset: bool, unsent: int) -> None:
        """A connection has ended; so many bytes that were sent did not leave this machine's memory."""
        with self._changed:
            self._links.discard(link)
            self.broken += was_reset
            self.carried -= unsent


class _Link:
    """A connection of a client's and the one to the server that belongs to it."""

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._server = server
        self._lock = threading.Lock()
        self._open_ends = 2
        self._is_over = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._begin(client, server, socket.socket.sendall, is_down=False)
        self._begin(server, client, relay.carry, is_down=True)

    def _begin(
        self,
        source: socket.socket,
        target: socket.socket,
        send: Callable[[socket.socket, bytes], None],
        *,
        is_down: bool,
    ) -> None:
        pieces: queue.Queue[tuple[float, bytes]] = queue.Queue(_PIECES)
        threading.Thread(target=self._read, args=(source, pieces), kwargs={"is_down": is_down}, daemon=True).start()
        threading.Thread(target=self._write, args=(target, pieces, send), daemon=True).start()

    def _read(self, source: socket.socket, pieces: queue.Queue[tuple[float, bytes]], *, is_down: bool) -> None:
        relay, is_first = self._relay, not is_down
        while True:
            try:
                data = source.recv(PIECE)
            except OSError:
                data = b""
            if not is_down:
                relay.heard(data)
            if is_down and data:
                relay.pace(len(data))
                if relay.is_reset(len(data)):
                    pieces.put((relay.due(is_first=False), _RESET))
                    return
            pieces.put((relay.due(is_first=is_first), data))
            is_first = False
            if not data:
                return

    def _write(
        self,
        target: socket.socket,
        pieces: queue.Queue[tuple[float, bytes]],
        send: Callable[[socket.socket, bytes], None],
    ) -> None:
        is_whole = True
        while True:
            due, data = pieces.get()
            if is_whole:
                time.sleep(max(0.0, due - time.monotonic()))
            if data is _RESET:
                self.reset()
                break
            if not data:
                break
            if not is_whole:
                continue  # or who reads would wait for ever for room
            try:
                send(target, data)
            except OSError:
                is_whole = False
                self.reset()
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        with self._lock:
            self._open_ends -= 1
            is_last = self._open_ends == 0
        if is_last:
            self._end(was_reset=False)

    def reset(self) -> None:
        """End both connections without a word."""
        self._end(was_reset=True)

    def _end(self, *, was_reset: bool) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        unsent = 0
        if was_reset:
            with suppress(OSError):
                unsent = struct.unpack("i", fcntl.ioctl(self._client, _SIOCOUTQNSD, b"\0" * 4))[0]
        for end in (self._client, self._server):
            if was_reset:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RD)  # wakes who reads, and tells nobody
            end.close()
        self._relay.gone(self, was_reset=was_reset, unsent=unsent)
