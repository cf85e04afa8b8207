"""Sockets: pools of connections to the hosts that are talked to, and a watch on what comes over them.

A server may be slow, silent, or never come to an end; each of these is an error here after a time that is known. The
only module that knows urllib3's classes, together with `http`.
"""

from __future__ import annotations

import errno
import http.client
import io
import socket
import ssl
import time
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from layerstore.errors import RegistryError
from layerstore.registry.transport.hosts import Trust, tls_context
from layerstore.registry.transport.proxies import proxy_for, without_secrets
from layerstore.registry.transport.settings import Settings

try:
    import urllib3
except ModuleNotFoundError as missing:
    if missing.name != "urllib3":
        raise
    raise RegistryError(
        "talking to registries needs the package urllib3, which is not installed",
        remedy="Install it with: pip install 'layerstore[registry]'",
    ) from None
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Connections", "Incoming", "TooSlow", "incoming_of"]

_BLOCK = 128 << 10
_HEAD = 1 << 20


class TooSlow(OSError):
    """A server sends, but so slowly that it would never end; or more than anybody asked for."""


class _Watched(io.RawIOBase):
    """The bytes of a connection, as they come. Only the time that is spent waiting for them counts.

    It is closed with the end of its reply. From then on the socket is that of the next request, perhaps of another
    thread, and is not touched.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, settings: Settings) -> None:
        self._raw = raw
        self._socket = sock
        self._settings = settings
        self.deadline: float | None = None
        self.allowance: int | None = None
        """How many bytes may still come, where that is limited."""
        self._waited = 0.0
        self._got = 0

    def readable(self) -> bool:
        return True

    def limit(self, seconds: float, size: int) -> None:
        """From now on, no more than `size` bytes and no longer than `seconds`."""
        self.deadline = time.monotonic() + seconds
        self.allowance = size

    def lift(self) -> None:
        """No limit but that it may not be silent or too slow."""
        if self.deadline is not None and not self.closed:
            self._socket.settimeout(self._settings.read_timeout)
        self.deadline = self.allowance = None

    def readinto(self, buffer: Any) -> int | None:
        """As the connection has it. Raises `TooSlow`, and `ConnectionAbortedError` if it was closed meanwhile."""
        try:
            return self._received(buffer)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
        raise ConnectionAbortedError(errno.ECONNABORTED, "it was closed while it was read")

    def _received(self, buffer: Any) -> int | None:
        before = time.monotonic()
        if self.deadline is not None:
            if before >= self.deadline:
                raise TooSlow("its reply takes too long")
            self._socket.settimeout(min(self._settings.read_timeout, self.deadline - before))
        try:
            got = self._raw.readinto(buffer)
        except TimeoutError:
            if self._got and self.deadline is not None and time.monotonic() >= self.deadline:
                raise TooSlow("its reply takes too long") from None
            raise
        now = time.monotonic()
        count = got or 0
        self._waited += now - before
        self._got += count
        if self._waited >= self._settings.read_timeout:
            if self._got < self._settings.slowest * self._waited and count:
                raise TooSlow(f"it sends less than {self._settings.slowest} bytes a second")
            self._waited, self._got = 0.0, 0
        if self.allowance is not None:
            self.allowance -= count
            if self.allowance < 0:
                raise TooSlow("its reply does not end")
        return got

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class Incoming(http.client.HTTPResponse):
    """A reply as it comes in; its head has to be there after `read_timeout`."""

    watch: _Watched

    def __init__(self, sock: socket.socket, *args: Any, settings: Settings, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        raw = self.fp.detach()
        self.watch = _Watched(raw, sock, settings)
        # The head of a reply to CONNECT is read without `begin`.
        self.watch.limit(settings.read_timeout, _HEAD)
        self.fp = io.BufferedReader(self.watch, _BLOCK)

    def begin(self) -> None:
        super().begin()
        self.watch.lift()

    def some(self, buffer: memoryview | bytearray) -> int:
        """The bytes that have come, at least one; 0 at the end.

        `readinto` waits until the buffer is full, and what had come is lost if the connection breaks meanwhile.
        """
        if self.chunked or self.fp is None:
            data = self.read1(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        # Of more than its own buffer a BufferedReader reads on until that is full, in readinto1, too.
        view = memoryview(buffer)[: _BLOCK if self.length is None else min(_BLOCK, self.length)]
        count = self.fp.readinto1(view) if view else 0
        if self.length is not None:
            self.length -= count
        if not self.length and (not count or self.length is not None):
            self.close()
        return count


def _made_for(settings: Settings, *, verify: bool) -> tuple[type[HTTPConnection], type[HTTPSConnection]]:
    """The classes of connections that follow `settings`."""

    reply = cast(Any, partial(Incoming, settings=settings))

    class Plain(HTTPConnection):
        response_class = reply

        def connect(self) -> None:
            super().connect()
            # From here on it is the time for one piece of a body to be sent.
            self.sock.settimeout(settings.read_timeout)

    class Secure(HTTPSConnection):
        response_class = reply

        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(settings.read_timeout)
            if not verify:
                # Who has switched that off knows it: urllib3 need not warn of it at each connection.
                self.is_verified = True

        def send(self, data: Any) -> None:
            try:
                super().send(data)
            except ssl.SSLEOFError as broken:
                # As urllib3 knows it of plain HTTP: why the server hung up may be there to be read, a 413 or an alert.
                raise BrokenPipeError(errno.EPIPE, "it hung up while it was sent something") from broken

    return Plain, Secure


def _pools(settings: Settings, *, verify: bool) -> dict[str, type[HTTPConnectionPool]]:
    plain, secure = _made_for(settings, verify=verify)
    return {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


def incoming_of(response: urllib3.BaseHTTPResponse) -> Incoming:
    """The reply below urllib3's: reading from it copies each byte once less, and it can be watched."""
    return cast(Incoming, cast(Any, response)._fp)


class Connections:
    """Pools of connections: each way to a host has one, as many wide as there are threads. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout = urllib3.Timeout(connect=settings.connect_timeout, read=settings.read_timeout)
        self._width = settings.downloads + settings.uploads
        self._managers: dict[tuple[str, str, str, bool], urllib3.PoolManager] = {}
        self._contexts: dict[Trust, ssl.SSLContext] = {}
        self._lock = Lock()
        self._pools = {verify: _pools(settings, verify=verify) for verify in (False, True)}

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: io.RawIOBase | None,
        *,
        registry_host: str,
        verify: bool,
    ) -> urllib3.BaseHTTPResponse:
        """Make one request, and return with the head of the reply. Raises what `troubles.CAUSES` lists.

        `registry_host` is whom it serves in the end: what is known of its certificates holds.
        """
        return self._manager(url, registry_host, verify=verify).urlopen(
            method,
            url,
            body=cast(Any, body),
            headers=headers,
            redirect=False,
            retries=False,
            timeout=self._timeout,
            preload_content=False,
            decode_content=False,
        )

    def close(self) -> None:
        """Close what is not in use."""
        with self._lock:
            managers = list(self._managers.values())
            self._managers.clear()
        for manager in managers:
            manager.clear()

    def _manager(self, url: str, registry_host: str, *, verify: bool) -> urllib3.PoolManager:
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc, registry_host, verify)
        with self._lock:
            manager = self._managers.get(key)
            if manager is None:
                manager = self._managers[key] = self._new(url, registry_host, verify=verify)
            return manager

    def _new(self, url: str, registry_host: str, *, verify: bool) -> urllib3.PoolManager:
        options: dict[str, Any] = {"num_pools": 2, "maxsize": self._width, "blocksize": _BLOCK}
        parts = urlsplit(url)
        if parts.scheme == "https":
            trust = Trust.of(self._settings, parts.netloc, registry_host, verify=verify)
            if trust not in self._contexts:
                self._contexts[trust] = tls_context(trust)
            options["ssl_context"] = self._contexts[trust]
            if not verify:
                options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        proxy = proxy_for(self._settings.proxies, url)
        manager = urllib3.PoolManager(**options) if proxy is None else _proxied(proxy, options)
        manager.pool_classes_by_scheme = self._pools[verify]
        return manager


def _proxied(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    from urllib.parse import unquote

    if proxy.startswith("socks"):
        return _socks(proxy, options)
    try:
        parts = urlsplit(proxy)
        headers = None
        if parts.username is not None:
            account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers = urllib3.make_headers(proxy_basic_auth=account)
        return urllib3.ProxyManager(without_secrets(proxy), proxy_headers=headers, **options)
    except (ValueError, urllib3.exceptions.HTTPError):
        raise _bad_proxy(proxy) from None


def _socks(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    from importlib.util import find_spec

    if find_spec("socks") is None:
        raise RegistryError(
            f"the proxy {without_secrets(proxy)} needs the package PySocks, which is not installed",
            remedy="Install it with: pip install pysocks",
        )
    from urllib3.contrib.socks import SOCKSProxyManager

    try:
        return SOCKSProxyManager(proxy, **options)
    except (ValueError, urllib3.exceptions.HTTPError):
        raise _bad_proxy(proxy) from None


def _bad_proxy(proxy: str) -> RegistryError:
    return RegistryError(
        f"the proxy {without_secrets(proxy)} cannot be used",
        remedy="It looks like http://host:3128, in daemon.json (proxies) or the environment (https_proxy).",
    )
