"""Access tokens: from a registry's token service, kept while they last (distribution, docs/spec/auth).

One token for each set of scopes; many threads that want the same one make one request. Times are of the monotonic
clock: a token's `issued_at` is another machine's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Final, Protocol
from urllib.parse import urlencode, urlsplit

from attrs import field

from layerstore.errors import RegistryError
from layerstore.registry.transport.challenges import Challenge
from layerstore.registry.transport.credentials import Credentials
from layerstore.registry.transport.replies import Reply
from layerstore.registry.transport.words import printable
from layerstore.values import define, frozen

__all__ = ["Rights", "Tokens", "merged"]

_USUAL: Final = 60
"""Seconds that a token lasts where its service does not say (the specification's default)."""
_LARGEST: Final = 1 << 20
_CLIENT: Final = "layerstore"


@frozen
class Rights:
    """What is to be done with a repository: `pull`, `push`, `delete`. `kind`: `registry` for the catalog."""

    repository: str
    actions: tuple[str, ...]
    kind: str = "repository"

    @property
    def scope(self) -> str:
        """`repository:team/app:pull,push`."""
        return f"{self.kind}:{self.repository}:{','.join(self.actions)}"


def merged(scopes: Iterable[str]) -> tuple[str, ...]:
    """Each resource once, with all that is to be done with it, in a fixed order."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        found.setdefault((kind, name), {}).update(dict.fromkeys(actions.split(",")))
    return tuple(sorted(f"{kind}:{name}:{','.join(actions)}" for (kind, name), actions in found.items()))


class Sender(Protocol):
    """Makes one request to a token service, with what `Http` does for all: retries, redirects, limits."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply: ...


@define
class _Token:
    value: str = field(default="", repr=False)
    until: float = 0.0
    lock: Lock = field(factory=Lock)


class Tokens:
    """The tokens that one client has. Thread-safe."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self._refresh: dict[str, str] = {}
        self._lock = Lock()

    def identity_of(self, credentials: Credentials) -> str | None:
        """The identity token that a service gave in exchange for these."""
        return self._refresh.get(_secret_of(credentials))

    def get(
        self,
        challenge: Challenge,
        scopes: Sequence[str],
        credentials: Credentials | None,
        send: Sender,
        *,
        registry: str,
        refused: str | None = None,
    ) -> str:
        """A token that lasts for a while yet. `refused`: one that was not taken, whatever its time.

        Raises `Unauthorized` where the service does not know us, `RegistryError` where its answer is none.
        """
        if credentials is not None and credentials.registry_token:
            return credentials.registry_token
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        account = "" if credentials is None else f"{credentials.username}\0{credentials.source}"
        key = (realm, service, account, *scopes)
        with self._lock:
            token = self._tokens.setdefault(key, _Token())
        with token.lock:
            if not token.value or token.value == refused or time.monotonic() >= token.until:
                began = time.monotonic()
                request = _Request(realm, service, tuple(scopes), credentials, registry, send, self._refresh)
                token.value, lasts = request.answer()
                # What is asked with it has to arrive while it lasts.
                token.until = began + lasts - min(10.0, lasts / 10)
            return token.value


@frozen
class _Request:
    realm: str
    service: str
    scopes: tuple[str, ...]
    credentials: Credentials | None
    registry: str
    send: Sender
    refresh: dict[str, str]
    """Secret → the newest identity token that was given for it."""

    def answer(self) -> tuple[str, float]:
        identity = "" if self.credentials is None else self.credentials.identity_token
        if identity:
            reply = self._posted(identity)
            if reply.status not in (404, 405):
                return self._read(reply)
            reply.close()
        return self._read(self._got(identity))

    def _posted(self, identity: str) -> Reply:
        """OAuth's way (docs/spec/auth/oauth.md): the identity token is its refresh token."""
        form = {"grant_type": "refresh_token", "service": self.service, "client_id": _CLIENT}
        form["refresh_token"] = self.refresh.get(identity, identity)
        if self.scopes:
            form["scope"] = " ".join(self.scopes)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.send("POST", self.realm, headers, urlencode(form).encode())

    def _got(self, identity: str) -> Reply:
        query = [("service", self.service)] if self.service else []
        query += [("scope", scope) for scope in self.scopes]
        headers = {}
        basic = None
        if self.credentials is not None:
            basic = self.credentials.basic or Credentials(self.credentials.username or "<token>", identity).basic
            if self.credentials.username:
                query.append(("account", self.credentials.username))
            if self.credentials.wants_identity:
                query += [("offline_token", "true"), ("client_id", _CLIENT)]
        if basic is not None:
            headers["Authorization"] = basic
        joint = "&" if urlsplit(self.realm).query else "?"
        return self.send("GET", f"{self.realm}{joint}{urlencode(query)}" if query else self.realm, headers, None)

    def _read(self, reply: Reply) -> tuple[str, float]:
        with reply:
            if reply.status != 200:
                raise self._failed(reply)
            body = reply.document(_LARGEST)
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._strange("does not answer in JSON")
        value = next((document[key] for key in ("token", "access_token") if document.get(key)), None)
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
            raise self._strange("sends no token")
        renewed = document.get("refresh_token")
        credentials = self.credentials
        wants_it = credentials is not None and bool(credentials.identity_token or credentials.wants_identity)
        if credentials is not None and wants_it and isinstance(renewed, str) and renewed:
            self.refresh[_secret_of(credentials)] = renewed
        lasts = document.get("expires_in")
        is_number = isinstance(lasts, int | float) and not isinstance(lasts, bool) and 0 < lasts < 1e9
        return value, float(lasts) if is_number and isinstance(lasts, int | float) else _USUAL

    def _failed(self, reply: Reply) -> Exception:
        return reply.failure(f"asking for a token for {printable(self.registry)}")

    def _strange(self, what: str) -> RegistryError:
        host = printable(urlsplit(self.realm).netloc)
        words = f"the token service {host} of {printable(self.registry)} {what}"
        return RegistryError(words, remedy="Tell those who run it.")


def _secret_of(credentials: Credentials) -> str:
    return credentials.identity_token or f"{credentials.username}:{credentials.password}"
