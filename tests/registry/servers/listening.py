"""An HTTP/1.1 server for tests that can do what servers should not, and remembers all that it was asked.

It has one connection a thread. What is answered is a value, `Answer`; how it is sent (cut short, reset, stalled,
slowly, without end) is part of that value.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import define, field, frozen

_PIECE = 64 << 10


@frozen
class Answer:
    """What is sent, and how. `body` belongs to a HEAD as well: its length is told, its bytes are not."""

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""
    length: str | None = ""
    """Content-Length as sent: "" is the true one. None is none: the body ends with the connection."""
    cut: int | None = None
    """After so many bytes of the body the connection ends."""
    reset: bool = False
    """It ends by a reset, with or without a `cut`, instead of cleanly."""
    stall: int | None = None
    """After so many bytes of the body nothing more comes, and the connection stays open. -1: not even headers."""
    rate: int | None = None
    """Bytes of the body in a second, at most."""
    delay: float = 0.0
    """Seconds before the first byte."""
    endless: bool = False
    """The body is sent again and again, until the client goes. Its length is told only if `length` says one."""
    close: bool = False
    """The connection is closed after it, whatever the client wants."""
    unread: int | None = None
    """The body of the request is read no further than this: the answer comes before, and the connection ends."""
    raw: bytes | None = None
    """Sent in place of all of it."""


@define
class Seen:
    """A request, as it came."""

    method: str
    target: str
    headers: Message
    connection: int
    """Which connection it came by, counted from 1."""
    at: float
    body: bytes = b""
    status: int = 0
    sent: int = 0
    """Bytes of the body that were sent."""

    @property
    def path(self) -> str:
        """The path without the query, decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, list[str]]:
        """What the query says."""
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def authorization(self) -> str | None:
        """The credentials that came with it."""
        return self.headers["Authorization"]

    def first(self, key: str) -> str | None:
        """The first value of the query by that name."""
        return self.query.get(key, [None])[0]


class Server(ABC):
    """A server in a thread of its own, while the `with` lasts. Whoever derives from it says `answer`."""

    scheme = "http"

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        """`port` 0: any that is free."""
        self.requests: list[Seen] = []
        self.connections = 0
        self.latency = 0.0
        """Seconds that each request waits before it is answered."""
        self._lock = threading.Lock()
        self._open: dict[socket.socket, tuple[Any, int]] = {}
        self._ending = threading.Event()
        server = self

        class Handler(_Handler):
            owner = server

        self._http = _Quiet(("127.0.0.1", port), Handler)
        self._http.owner = server
        self._tls = tls
        self.scheme = "http" if tls is None else "https"
        self.port: int = self._http.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{self.scheme}://{self.host}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @abstractmethod
    def answer(self, seen: Seen) -> Answer:
        """The answer to a request whose body is in `seen`."""

    def early(self, seen: Seen) -> Answer | None:
        """An answer before the body of the request is read; None: there is none."""
        return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._http.shutdown()
        self._http.server_close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._thread.join()

    # --- what was asked ---

    def asked(self, method: str | None = None, path: str = "") -> list[Seen]:
        """The requests so far by method and a regular expression that is looked for in the path."""
        with self._lock:
            return [
                seen
                for seen in self.requests
                if method in (None, seen.method) and re.search(path, seen.path) is not None
            ]

    def sent(self, path: str = "") -> int:
        """The bytes of bodies that were sent for such paths."""
        return sum(seen.sent for seen in self.asked(path=path))

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.requests.clear()
            self.connections = 0

    def settle(self) -> None:
        """Wait until all has been done that clients had asked for who are dead by now."""
        with socket.create_connection(("127.0.0.1", self.port)) as last:  # those before it were taken when it is
            while last.getsockname() not in self._peers() and not self._ending.wait(0.002):
                pass
        while self._open and not self._ending.wait(0.002):
            pass

    def _peers(self) -> list[Any]:
        with self._lock:
            return [peer for peer, _ in self._open.values()]

    # --- for the handlers ---

    def _came(self, connection: socket.socket, peer: Any) -> None:
        with self._lock:
            self.connections += 1
            self._open[connection] = peer, self.connections

    def _went(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.pop(connection, None)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: Server

    def process_request(self, request: Any, client_address: Any) -> None:
        self.owner._came(request, client_address)
        super().process_request(request, client_address)

    def handle_error(self, *_: object) -> None:
        """A client that went away in the middle is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        peer, self.number = self.owner._open[self.request]
        self.raw_socket = self.request
        if self.owner._tls is not None:
            self.request.settimeout(30)
            self.request = self.owner._tls.wrap_socket(self.request, server_side=True)
            self.request.settimeout(None)
            self.owner._went(self.raw_socket)
            self.owner._open[self.request] = peer, self.number
        super().setup()

    def finish(self) -> None:
        self.owner._went(self.request)
        super().finish()
        if self.owner._tls is not None:
            self.request.close()  # the server closes what it was, before it was wrapped

    def log_message(self, *_: object) -> None:
        """Nothing: what a test wants to know is in `requests`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._do
        raise AttributeError(name)

    def _do(self) -> None:
        seen = Seen(self.command, self.path, self.headers, self.number, time.monotonic())
        with self.owner._lock:
            self.owner.requests.append(seen)
        early = self.owner.early(seen)
        if early is None and self.headers["Expect"]:
            self.send_response_only(100)
            self.end_headers()
        seen.body = b"".join(self._body(None if early is None else early.unread))
        if early is not None and early.unread is not None:
            self.close_connection = True
        if self.owner.latency:
            self.owner._ending.wait(self.owner.latency)
        answer = self.owner.answer(seen) if early is None else early
        seen.status = answer.status
        try:
            self._send(seen, answer)
        except (BrokenPipeError, ConnectionError):
            self.close_connection = True

    def _body(self, limit: int | None) -> Iterator[bytes]:
        if self.headers["Transfer-Encoding"] == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers["Content-Length"] or 0)
        if limit is not None:
            left = min(left, limit)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                raise ConnectionError("the client went away in the middle of a body")
            left -= len(piece)
            yield piece

    def _send(self, seen: Seen, answer: Answer) -> None:
        ending = self.owner._ending
        if answer.delay:
            ending.wait(answer.delay)
        if answer.stall == -1:
            ending.wait()
        if answer.raw is not None:
            self.wfile.write(answer.raw)
            self.close_connection = True
            return
        if not (answer.reset and answer.cut is None):
            self._send_head(answer)
            if self.command != "HEAD":
                for piece in _pieces(answer):
                    seen.sent += len(piece)  # first: whoever has the last byte may look
                    self.wfile.write(piece)
                    if answer.rate:
                        ending.wait(len(piece) / answer.rate)
                if answer.stall is not None:
                    ending.wait()
        if answer.cut is not None or answer.reset or answer.length is None or answer.close or answer.unread is not None:
            self.close_connection = True
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _send_head(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        length = str(len(answer.body)) if answer.length == "" and not answer.endless else answer.length
        if length and answer.status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()


def _pieces(answer: Answer) -> Iterator[bytes]:
    """The body, as far as it is sent."""
    ends = [end for end in (answer.cut, answer.stall) if end is not None]
    left = min(ends) if ends else (1 << 62 if answer.endless else len(answer.body))
    step = min(_PIECE, max(1, answer.rate // 50)) if answer.rate else _PIECE
    while left:
        for start in range(0, len(answer.body), step):
            piece = answer.body[start : start + min(step, left)]
            yield piece
            left -= len(piece)
            if not left:
                return
        if not answer.endless:
            return
