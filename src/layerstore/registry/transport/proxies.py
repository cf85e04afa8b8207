"""Through which proxy a URL is reached: daemon.json's `proxies`, else the environment, as curl and Go read it."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from layerstore.config import Proxies
from layerstore.registry.transport.words import printable

__all__ = ["proxy_for", "without_secrets"]


def proxy_for(proxies: Proxies, url: str) -> str | None:
    """The URL of the proxy for `url`, or None for the direct way.

    `HTTP_PROXY` in capitals is not read where a CGI program would get it from a client (`REQUEST_METHOD` is set).
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host):
        return None
    if parts.scheme == "https":
        proxy = proxies.https or _environment("https_proxy")
    else:
        proxy = proxies.http or _environment("http_proxy")
    proxy = proxy or _environment("all_proxy")
    exempt = proxies.none_for if proxies.none_for is not None else _environment("no_proxy")
    if not proxy or _is_exempt(host, parts.port or (443 if parts.scheme == "https" else 80), exempt or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def without_secrets(proxy: str) -> str:
    """The URL of a proxy, fit for a message: without its user and password."""
    scheme, _, rest = proxy.partition("://")
    return printable(f"{scheme}://{rest.rpartition('@')[2].partition('/')[0]}")


def _environment(name: str) -> str | None:
    value = os.environ.get(name)
    if value is None and not (name == "http_proxy" and "REQUEST_METHOD" in os.environ):
        value = os.environ.get(name.upper())
    return value or None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_exempt(host: str, port: int, exempt: str) -> bool:
    """Whether no_proxy covers it: `*`, hosts with what is below them, `.domain`, addresses, networks, `host:port`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in exempt.lower().replace(",", " ").split():
        if entry == "*":
            return True
        name, colon, number = entry.rpartition(":")
        if colon and number.isdecimal() and (":" not in name or name.startswith("[")):
            if int(number) != port:
                continue
            entry = name
        if address is not None:
            try:
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
            except ValueError:
                pass
            continue
        domain = entry.removeprefix("*").removeprefix(".")
        if domain and ((host == domain and not entry.startswith(".")) or host.endswith(f".{domain}")):
            return True
    return False
