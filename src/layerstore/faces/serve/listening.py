"""Where it may listen: beyond this machine only with TLS or passwords, unless that is what is wanted."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from layerstore.errors import ConfigError

DEFAULT: Final = "127.0.0.1:5000"

_SIX: Final = r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(?:%[\w.-]+)?"
_ADDRESS: Final = re.compile(
    rf"(?P<bare>{_SIX})|(?:\[(?P<six>{_SIX})\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{{1,5}}))?"
)

_NAME: Final = re.compile(r"[0-9a-zA-Z_](?:[0-9a-zA-Z_.-]{0,251}[0-9a-zA-Z_.])?")
_KNOWN: Final = re.compile(r"localhost|[0-9]{1,3}(?:\.[0-9]{1,3}){3}", re.IGNORECASE)


def parse(address: str, *, default: str = DEFAULT) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT`, `:PORT` (of this machine alone), or an IP address or `localhost` alone.

    Raises `ConfigError`.
    """
    default_host, _, default_port = default.rpartition(":")
    match = _ADDRESS.fullmatch(address.strip())
    name = "" if match is None else match["host"] or ""
    is_wrong = name.isdecimal() or (name and not _NAME.fullmatch(name))
    # A word alone is more often a port, path or option that was meant than a machine's name.
    is_word = bool(name) and match is not None and match["port"] is None and not _KNOWN.fullmatch(name)
    if match is None or is_wrong or is_word or int(match["port"] or default_port) >= 1 << 16:
        raise ConfigError(
            f"{address!r} is no address to listen on",
            remedy=f"Write HOST:PORT, as in {default} or [::1]:{default_port}.",
        )
    host = match["six"] or match["bare"] or match["host"] or default_host
    return host, int(match["port"] or default_port)


def require_safe(
    host: str,
    *,
    tls: bool,
    passwords: bool,
    insecure: bool,
    could: str = "read all images and push their own",
    needs: str = "a certificate (--tls-cert, --tls-key) or passwords (--htpasswd)",
) -> None:
    """Raise `ConfigError` if others than this machine could reach the store without further ado.

    `could`: what they could; `needs`: what would keep them from it.
    """
    if tls or passwords or insecure or is_loopback(host):
        return
    raise ConfigError(
        f"whoever reaches {host} could {could}",
        remedy=f"Give {needs}, listen on 127.0.0.1, or say --insecure-listen if the network is yours alone.",
    )


def is_loopback(host: str) -> bool:
    """Does nobody else reach this address?"""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"
