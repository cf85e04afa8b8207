"""A relay before a server: slow, counting what passes, and cut off when a test says so."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Self

_PIECE = 4 << 10


class Relay:
    """Passes connections on to `upstream` (host:port) while the `with` lasts; answers come at `rate` bytes a second."""

    def __init__(self, upstream: str, *, rate: float) -> None:
        self.rate = rate
        self.passed = 0
        """Bytes that came from upstream and were passed on."""
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            # What is on its way when somebody dies is lost, and counted: as little as can be.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _PIECE)
            server = socket.create_connection(self._upstream)
            with self._lock:
                self._open |= {client, server}
            self._start(self._pass_on, client, server)
            self._start(self._pass_back, server, client)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_PIECE):
                server.sendall(data)
        self._end(client, server)

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        due = time.monotonic()
        with contextlib.suppress(OSError):
            while data := server.recv(_PIECE):
                due = max(due, time.monotonic() - 0.01) + len(data) / self.rate
                time.sleep(max(0.0, due - time.monotonic()))
                client.sendall(data)
                with self._lock:
                    self.passed += len(data)
        self._end(client, server)

    def _end(self, *connections: socket.socket) -> None:
        with self._lock:
            self._open -= set(connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
