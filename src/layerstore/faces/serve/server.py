"""The HTTP server: cheroot, with a bound on everything that a client can make it do.

Threads answer; one more accepts. A header has to come within a time, a body and its answer at a pace; a TLS handshake
is made by the thread that answers, so that a silent client keeps nobody else waiting.
"""

from __future__ import annotations

import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from cheroot import wsgi
from cheroot.makefile import MakeFile
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter

from layerstore.errors import ConfigError, KernelError, LayerstoreError
from layerstore.faces.serve.bodies import Body, Pace
from layerstore.values import frozen

_DRAINED: Final = 4 << 20
"""Bytes of a body that nobody wanted, which are read so that the client hears the answer."""

_LINGERED: Final = 32 << 20
_LINGERING: Final = 2.0
"""So many bytes more, and for so many seconds, before the connection is closed."""

_BUFFER: Final = 256 << 10


@frozen
class Timing:
    """How long a client may take. In seconds, and bytes a second."""

    silence: float = 30.0
    """For which nothing comes, or nothing is taken; and for which a connection stays open without a request."""
    header: float = 20.0
    """Until the header of a request is there."""
    grace: float = 30.0
    """After which the pace counts."""
    pace: float = 1024.0
    shutdown: float = 10.0
    """For requests that are being answered when the server ends."""
    tick: float = 0.5
    """How often is looked whether the server should end, and which connections are old."""


class Server:
    """A server that listens from when it is made. `application`: a WSGI application."""

    def __init__(
        self,
        host: str,
        port: int,
        application: Callable[..., Iterable[bytes]],
        *,
        tls: tuple[Path, Path] | None = None,
        threads: int = 32,
        timing: Timing | None = None,
    ) -> None:
        """Listen. `tls`: files of the certificate (with its chain) and its key. Port 0 is any that is free."""
        self._timing = Timing() if timing is None else timing
        self._scheme = "http" if tls is None else "https"
        self._server = server = _Server((host, port), application, numthreads=threads, server_name="layerstore")
        server.timing = self._timing
        server.timeout = self._timing.silence
        server.shutdown_timeout = self._timing.shutdown
        server.expiration_interval = self._timing.tick
        server.request_queue_size = 128
        server.keep_alive_conn_limit = 512
        server.max_request_header_size = 64 << 10
        server.ConnectionClass = _Connection
        if tls is not None:
            server.ssl_adapter = _Tls(*tls)
        try:
            server.prepare()
        except OSError as error:
            raise _cannot_listen(host, port, error) from error
        self._thread = threading.Thread(target=server.serve, name="layerstore-serve", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:5000`."""
        host, port = self._server.bind_addr[:2]
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.bind_addr[1])

    def close(self) -> None:
        """Take no more requests, wait for those that are being answered, but not for ever."""
        self._server.stop()
        self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(wsgi.Server):
    """cheroot's, which knows which connections still owe a header."""

    timing: Timing

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads: dict[int, tuple[float, Any]] = {}
        self._heads_lock = threading.Lock()

    def prepare(self) -> None:
        super().prepare()
        threading.Thread(target=self._watch, name="layerstore-serve-watch", daemon=True).start()

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:
        """As cheroot's, which leaves a socket open that cannot be bound."""
        try:
            socket_.bind(bind_addr)
        except OSError:
            socket_.close()
            raise
        return socket_

    def expects_header(self, connection: _Connection) -> None:
        """A header has begun, or is awaited by a thread."""
        with self._heads_lock:
            self._heads[id(connection)] = (time.monotonic() + self.timing.header, connection.socket)

    def has_header(self, connection: _Connection) -> None:
        """It is there."""
        with self._heads_lock:
            self._heads.pop(id(connection), None)

    def _watch(self) -> None:
        while self.ready:
            time.sleep(min(1.0, self.timing.header / 4))
            now = time.monotonic()
            with self._heads_lock:
                for deadline, sock in self._heads.values():
                    if deadline < now:
                        try:
                            # Of the socket itself: TLS would want to say goodbye.
                            socket.socket.shutdown(sock, socket.SHUT_RDWR)
                        except OSError:
                            pass

    def error_log(self, *said: Any, **how: Any) -> None:
        """What cheroot finds worth telling: only its own defects, for clients break off all the time."""
        if how.get("traceback") and not isinstance(sys.exc_info()[1], OSError):
            import traceback

            print("layerstore:", *said, file=sys.stderr)
            traceback.print_exc(file=sys.stderr)


class _Request(HTTPRequest):
    """cheroot's, with bodies and limits of ours."""

    def parse_request(self) -> None:
        self.server.expects_header(self.conn)
        try:
            super().parse_request()
        finally:
            self.server.has_header(self.conn)

    def read_request_headers(self) -> bool:
        read: Callable[[], object] = super().read_request_headers
        if not read():
            return False
        length = self.inheaders.get(b"Content-Length")
        # Python reads numbers that HTTP does not have; and a body of two lengths is how requests are smuggled.
        if length is not None and (not length.isdigit() or len(length) > 18 or b"Transfer-Encoding" in self.inheaders):
            self.simple_response("400 Bad Request", "Malformed Content-Length Header.")
            return False
        return True

    def respond(self) -> None:
        timing = self.server.timing
        size = None if self.chunked_read else int(self.inheaders.get(b"Content-Length", 0))
        self._pace = Pace(rate=timing.pace, grace=timing.grace)
        self.rfile = Body(self.conn.rfile, size, Pace(rate=timing.pace, grace=timing.grace))
        self.server.gateway(self).respond()
        self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")

    def send_headers(self) -> None:
        # What is left of a body would be taken for the next request; and who still sends does not hear the answer.
        if not self.rfile.drain(_DRAINED):
            self.close_connection = True
            self.conn.is_sending = True
        super().send_headers()

    def write(self, chunk: bytes) -> None:
        if self.chunked_write:
            super().write(chunk)
            return
        rest = memoryview(chunk)
        while rest:
            began = time.monotonic()
            count = self.conn.socket.send(rest[:_BUFFER])
            self._pace.took(began, count)
            rest = rest[count:]


class _Connection(HTTPConnection):
    """cheroot's, with larger buffers."""

    RequestHandlerClass = _Request
    rbufsize = _BUFFER
    is_sending = False
    """Has the client more to say than anybody wants to hear?"""

    def close(self) -> None:
        if self.is_sending:
            self._linger()
        super().close()

    def _linger(self) -> None:
        """Take what comes for a little while: closed at once, the client would lose the answer with the connection."""
        try:
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
            self.socket.settimeout(_LINGERING)
            ended, left = time.monotonic() + _LINGERING, _LINGERED
            while left > 0 and time.monotonic() < ended and (data := self.socket.recv(_BUFFER)):
                left -= len(data)
        except OSError:
            pass

    def communicate(self) -> bool:
        try:
            communicate: Callable[[], object] = super().communicate
            return bool(communicate())
        except (ssl.SSLError, OSError):
            return False  # it broke while an error was told


class _Tls(Adapter):
    """TLS by Python's ssl; the handshake is made with the first read, by the thread that answers."""

    def __init__(self, certificate: Path, private_key: Path) -> None:
        super().__init__(str(certificate), str(private_key))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.context.load_cert_chain(certificate, private_key, password=_no_password)
        except FileNotFoundError as error:
            missing = certificate if not certificate.exists() else private_key
            raise KernelError("open", error.errno or 2, path=missing) from error
        except OSError as error:
            raise ConfigError(
                f"{certificate} and {private_key} are no certificate and its key: {error.strerror or error}",
                remedy="Both are PEM; the certificate's chain follows it in its file; the key has no password.",
            ) from error

    def bind(self, sock: socket.socket) -> socket.socket:
        return sock

    def wrap(self, sock: socket.socket) -> tuple[socket.socket, Mapping[str, str]]:
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, self.get_environ()

    def get_environ(self) -> Mapping[str, str]:
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: Any, mode: str = "r", bufsize: int = -1) -> Any:
        return MakeFile(sock, mode, bufsize)


def _no_password() -> str:
    raise ConfigError("the key is encrypted", remedy="Give a key without a password, in a file that only you may read.")


def _cannot_listen(host: str, port: int, error: OSError) -> LayerstoreError:
    # cheroot tells of the last address that it tried, in words of its own.
    found = re.search(r"\[Errno (-?\d+)\] ([^)]*)", str(error))
    name = f"[{host}]" if ":" in host else host
    if found is None or int(found[1]) < 0:  # the number is one of getaddrinfo(3)
        return ConfigError(
            f"cannot listen on {name}:{port}: {error if found is None else found[2]}",
            remedy="Name an address of this machine.",
        )
    return KernelError(
        "bind", int(found[1]), detail=f"{name}:{port}", remedy="Choose another port, or an address of this machine."
    )
