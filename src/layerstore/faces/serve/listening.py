"""Where it may listen: beyond this machine only with TLS or passwords, unless that is what is wanted."""

from __future__ import annotations

import ipaddress
from typing import Final

from layerstore.errors import ConfigError

DEFAULT: Final = "127.0.0.1:5000"


def parse(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT`, `HOST` or `:PORT` (of this machine alone). Raises `ConfigError`."""
    default_host, _, default_port = DEFAULT.rpartition(":")
    text = address.strip()
    host, port = text, default_port
    if not (text.endswith("]") or (text.count(":") > 1 and not text.startswith("["))):
        before, colon, after = text.rpartition(":")
        if colon:
            host, port = before, after
    host = host.removeprefix("[").removesuffix("]") or default_host
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ConfigError(
            f"{address!r} is no address to listen on", remedy="Write HOST:PORT, as in 127.0.0.1:5000 or [::1]:5000."
        )
    return host, int(port)


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
