"""URLs that a registry sends, and which of them are followed. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from layerstore.errors import RegistryError
from layerstore.registry.transport.words import printable

__all__ = ["absolute", "check_realm", "is_loopback", "origin", "place", "redirected"]

_PORTS: Final = {"http": 80, "https": 443}
_NOT_FOLLOWED: Final = "Nothing was sent there. Tell those who run the registry."


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: URLs with the same are of one server. All empty for what is no URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", "", None


def place(url: str) -> str:
    """A URL fit for a message: without its query, which may be a signature, and without a user."""
    try:
        parts = urlsplit(url)
        return printable(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))
    except ValueError:
        return printable(url.partition("?")[0])


def absolute(base: str, target: str) -> str:
    """The URL of a path below `base`, or of a `Location`. Raises `RegistryError` for one that is not safe.

    A registry behind a proxy may not know that it is reached by HTTPS: a `Location` of its own host is.
    """
    if target.startswith("/"):
        return base + target
    (our_scheme, our_host, our_port), (scheme, host, port) = origin(base), origin(target)
    if scheme == "http" and our_scheme == "https" and host == our_host and port in (our_port, 80):
        return urlunsplit((*urlsplit(base)[:2], *urlsplit(target)[2:4], ""))
    if not _is_safe(target, our_scheme):
        words = f"{printable(urlsplit(base).netloc)} sends us to {place(target)}, {_fault(scheme)}"
        raise RegistryError(words, remedy=_NOT_FOLLOWED)
    return _without_user(target)


def redirected(url: str, location: str, registry: str) -> str:
    """Where a redirect from `url` leads. Raises `RegistryError` for what is not HTTP, or less safe than `url`."""
    try:
        following = urljoin(url, location)
    except ValueError:
        following = location
    if not _is_safe(following, origin(url)[0]):
        fault = _fault(origin(following)[0])
        words = f"{printable(registry)} sends us from {printable(urlsplit(url).netloc)} to {place(following)}, {fault}"
        raise RegistryError(words, remedy=_NOT_FOLLOWED)
    return _without_user(following)


def check_realm(realm: str, base: str, registry: str) -> None:
    """Raise `RegistryError` if the URL of a token service is none that credentials may be sent to."""
    if not _is_safe(realm, origin(base)[0]):
        fault = _fault(origin(realm)[0])
        words = f"{printable(registry)} names as its token service {place(realm) or 'nothing'}, {fault}"
        raise RegistryError(words, remedy=_NOT_FOLLOWED)


def is_loopback(url: str) -> bool:
    """Whether this machine itself is meant."""
    host = origin(url)[1]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_safe(url: str, from_scheme: str) -> bool:
    scheme, host, _ = origin(url)
    return scheme in _PORTS and bool(host) and not (scheme == "http" and from_scheme == "https")


def _fault(scheme: str) -> str:
    return "which is not encrypted" if scheme == "http" else "which is no URL of HTTP"


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
