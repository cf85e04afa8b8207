"""Who may ask. A browser asks for whatever page it shows, so where a request comes from says little.

- A name that another page's owner lets mean 127.0.0.1 (DNS rebinding) would make that page and this one the same: so
  what is asked for (`Host`) must be an address, localhost, or a name that was given.
- Other pages can have anything fetched, though not read: so the browser's word for where it comes from must be "here".
- Other users of this machine reach 127.0.0.1, too, and configs and containers have secrets in their variables: so who
  asks shows a token, which whoever started the server was told.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from layerstore.faces.serve.messages import Refused, Request

__all__ = ["require_here", "require_host", "require_token"]

_HERE = ("", "same-origin", "none")
"""What browsers say (Fetch Metadata, `Sec-Fetch-Site`) of a request of the page itself, or of its user; and who says
nothing is no browser of today."""


def require_host(request: Request, names: Collection[str]) -> None:
    """Raise `Refused` if it was meant for a host by another name than those of this one."""
    host = _name_of(request.header("Host"))
    if host is None or not (host == "localhost" or host in names or _is_address(host)):
        raise Refused(
            421,
            "DENIED",
            "the page is reached by an address or as localhost; `layerstore ui --name HOST` lets it have a name",
        )


def require_here(request: Request) -> None:
    """Raise `Refused` if another page than this one has asked."""
    origin = request.header("Origin")
    is_other = bool(origin) and urlsplit(origin).netloc.lower() != request.header("Host").lower()
    if is_other or request.header("Sec-Fetch-Site") not in _HERE:
        raise Refused(403, "DENIED", "another page has asked: what the store holds is told to this one alone")


def require_token(request: Request, token: str) -> None:
    """Raise `Refused` if who asks does not know the token."""
    kind, _, given = request.header("Authorization").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise Refused(
            401,
            "UNAUTHORIZED",
            "the token is missing or another: `layerstore ui` has printed the address with it",
            headers=[("WWW-Authenticate", 'Bearer realm="layerstore"')],
        )


def _name_of(header: str) -> str | None:
    """The host of a `Host`, without the port, and an address without brackets."""
    try:
        return urlsplit(f"//{header}").hostname if header and not set(header) & set("/\\@?#") else None
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
