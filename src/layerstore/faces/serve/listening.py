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


def parse(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT`, `HOST` or `:PORT` (of this machine alone). Raises `ConfigError`."""
    default_host, _, default_port = DEFAULT.rpartition(":")
    match = _ADDRESS.fullmatch(address.strip())
    is_port_alone = match is not None and (match["host"] or "").isdecimal()
    if match is None or is_port_alone or int(match["port"] or default_port) >= 1 << 16:
        raise ConfigError(
            f"{address!r} is no address to listen on", remedy="Write HOST:PORT, as in 127.0.0.1:5000 or [::1]:5000."
        )
    host = match["six"] or match["bare"] or match["host"] or default_host
    return host, int(match["port"] or default_port)


def require_safe(host: str, *, tls: bool, passwords: bool, insecure: bool) -> None:
    """Raise `ConfigError` if others than this machine could reach the store without further ado."""
    if tls or passwords or insecure or is_loopback(host):
        return
    raise ConfigError(
        f"whoever reaches {host} could read all images and push their own",
        remedy="Give a certificate (--tls-cert, --tls-key) or passwords (--htpasswd), listen on 127.0.0.1, or say "
        "--insecure-listen if the network is yours alone.",
    )


def is_loopback(host: str) -> bool:
    """Does nobody else reach this address?"""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"
