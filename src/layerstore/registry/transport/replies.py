"""A reply of a registry: its head is there, its body is read by whoever asked, and an error status becomes words."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from layerstore.errors import (
    Denied,
    LayerstoreError,
    LimitExceeded,
    NotFound,
    RateLimited,
    RegistryError,
    Unauthorized,
    Unreachable,
)
from layerstore.registry.transport import retries
from layerstore.registry.transport.connections import incoming_of
from layerstore.registry.transport.settings import Settings
from layerstore.registry.transport.troubles import CAUSES, explained
from layerstore.registry.transport.words import Complaint, complaints, printable

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = ["Reply"]

_ERROR_BODY: Final = 64 << 10


class Reply:
    """What came back. A context manager: leaving it gives the connection back, or closes it."""

    def __init__(
        self, response: BaseHTTPResponse, url: str, settings: Settings, *, registry: str, account: str | None = None
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        """By name in any case; of a header that came more than once, all values with commas between."""
        self.url = url
        """Where it came from, after redirects: what a relative `Location` is relative to."""
        self.registry = registry
        self.account = account
        """Where the credentials are from that were shown, if any were."""
        self._response = response
        self._incoming = incoming_of(response)
        self._settings = settings
        self._release()

    def __enter__(self) -> Reply:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> int | None:
        """The `Content-Length`, where it is there and a number."""
        text = self.headers.get("Content-Length", "").strip()
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    def values(self, name: str) -> list[str]:
        """Each value of a header that may come more than once."""
        return list(self._response.headers.getlist(name))

    def readinto(self, buffer: memoryview | bytearray) -> int:
        """The next bytes of the body; 0 at its end. Raises `Unreachable` where it breaks off, is silent or too slow."""
        try:
            count = self._incoming.some(buffer)
            if not count and self._incoming.length:  # less came than was announced
                raise http.client.IncompleteRead(b"", self._incoming.length)
        except CAUSES as cause:
            self._response.close()
            raise explained(cause, self.url, self._settings).error from cause
        self._release()
        return count

    def document(self, limit: int, *, setting: str | None = None) -> bytes:
        """The whole body, which may have `limit` bytes. Raises `Unreachable`, or `RegistryError` for a larger one.

        `LimitExceeded`, where a `setting` says the limit.
        """
        watch = self._incoming.watch
        # A chunk may be of one byte, and its frame of six.
        watch.limit(2 * self._settings.read_timeout, 8 * limit + _ERROR_BODY)
        if (self.size or 0) > limit:
            raise self._too_large(limit, setting, self.size)
        parts, left = [], limit + 1
        buffer = bytearray(min(left, 64 << 10))
        while count := self.readinto(memoryview(buffer)[: min(left, len(buffer))]):
            parts.append(bytes(buffer[:count]))
            left -= count
            if left <= 0:
                raise self._too_large(limit, setting)
        watch.lift()
        return b"".join(parts)

    def failure(self, doing: str) -> LayerstoreError:
        """This status as an error. `doing` says what it was asked for: `reading the manifest of debian:12`."""
        body = self._error_body()
        told = complaints(body)
        words = f"{doing}: {printable(self.registry)} {self._said(told, body)}"
        codes = {entry.code.upper() for entry in told}
        if self.status in (401, 403) or codes & {"UNAUTHORIZED", "DENIED"}:
            return self._refused(words, is_denied=self.status == 403 or "DENIED" in codes)
        if self.status == 429 or "TOOMANYREQUESTS" in codes:
            return self.limited(doing, retries.retry_after(self.headers))
        if self.status == 404:
            remedy = (
                "Look whether the name is right: `layerstore tags` shows what a repository has. Some registries say "
                "so, too, where a login is missing."
            )
            return NotFound(words, remedy=remedy)
        if self.status >= 500:
            return Unreachable(words, remedy="The trouble is the registry's own: try later.", status=self.status)
        return RegistryError(words, status=self.status)

    def limited(self, doing: str | None, wait: float | None) -> RateLimited:
        """The error for a rate limit; `wait`: the seconds after which there will be answers again, if that is known."""
        import time

        limit = retries.limit_of(self.headers)
        count = ""
        if limit and limit.total and limit.window:
            count = f": {limit.total} are allowed in {limit.window / 3600:g} hours"
        why = "is out of service for now" if self.status == 503 else f"answers no more requests for now{count}"
        words = f"{f'{doing}: ' if doing else ''}{printable(self.registry)} {why}"
        if wait is None:
            remedy = "Try again later."
            until = None
        else:
            until = time.time() + wait
            remedy = f"It will again from {retries.clock(until)} on."
        if self.account is None and self.status != 503:
            remedy += f" Who is logged in may have more of them: `layerstore login {self._login_name}`."
        return RateLimited(words, until=until, remedy=remedy, status=self.status)

    def close(self) -> None:
        """Give the connection back if what is left of the body is short, else close it."""
        if not self._incoming.isclosed():
            left = self._incoming.length
            if left <= _ERROR_BODY if left is not None else self.status >= 300:
                self._error_body()
        if not self._incoming.isclosed():
            self._response.close()
        self._release()

    # ---- inside

    def _release(self) -> None:
        if self._incoming.isclosed():
            self._response.release_conn()

    def _error_body(self) -> bytes:
        """The beginning of a body that is short and comes soon, or what there is of it."""
        if self.status == 416:
            # Its Content-Length is that of the blob (docker-registry 2.8): one would wait for ever.
            self._response.close()
            return b""
        watch = self._incoming.watch
        watch.limit(self._settings.unrelated_timeout, 2 * _ERROR_BODY)
        parts: list[bytes] = []
        buffer = bytearray(8 << 10)
        try:
            while (count := self.readinto(buffer)) and len(parts) < _ERROR_BODY // len(buffer):
                parts.append(bytes(buffer[:count]))
        except LayerstoreError:
            pass
        if not self._incoming.isclosed():
            self._response.close()
        watch.lift()
        return b"".join(parts)

    def _said(self, told: list[Complaint], body: bytes) -> str:
        try:
            phrase = f" {HTTPStatus(self.status).phrase}"
        except ValueError:
            phrase = ""
        words = f"answered {self.status}{phrase}"
        if told:
            entries = [": ".join(part for part in (entry.code, entry.message) if part) for entry in told[:3]]
            return f"{words} ({'; '.join(filter(None, entries))})"
        is_page = "html" in self.headers.get("Content-Type", "").lower() or body.lstrip()[:1] == b"<"
        return f"{words} with a web page: it may be no registry, or something in between answers" if is_page else words

    def _refused(self, words: str, *, is_denied: bool) -> RegistryError:
        kind = Denied if is_denied else Unauthorized
        if self.account is None:
            return kind(words, remedy=f"Look whether the name is right, or log in: {self._login}", status=self.status)
        if is_denied and self.status == 403:
            remedy = f"The account from {self.account} may not do that: ask who runs it, or log in as another."
        else:
            remedy = f"Look whether the name is right, and whether the account from {self.account} may do that."
            remedy += f" Or log in again: {self._login}"
        return kind(words, remedy=remedy, status=self.status)

    @property
    def _login_name(self) -> str:
        return "" if self.registry == "docker.io" else printable(self.registry)

    @property
    def _login(self) -> str:
        return f"`{f'layerstore login {self._login_name}'.strip()}`."

    def _too_large(self, limit: int, setting: str | None, size: int | None = None) -> LayerstoreError:
        self._response.close()
        host = printable(urlsplit(self.url).netloc)
        if setting is not None:
            return LimitExceeded(f"a document of {host}", setting=setting, limit=limit, met=size)
        return RegistryError(
            f"{host} sends a document of more than {limit:,} bytes",
            remedy="No such document is that large: tell those who run it.",
        )
