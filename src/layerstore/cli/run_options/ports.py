"""`-p`: which ports of a container are published, and where. Pure.

The form is `[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]`, as docker's go-connections reads it; either port may be a range.
"""

from __future__ import annotations

from typing import Final

from layerstore.runtime.options import Port

_PROTOCOLS: Final = ("tcp", "udp", "sctp")


def ports(text: str) -> tuple[Port, ...]:
    """The ports that one `-p` publishes. Raises `ValueError`."""
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    before, _, container = rest.rpartition(":")
    address, _, host = before.rpartition(":")
    if not container:
        raise ValueError(f"no port specified: {text or '<empty>'}")
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    inside = _range(container, "containerPort")
    outside = _range(host, "hostPort") if host else None
    if outside is not None and len(outside) != len(inside):
        raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    where = _address(address)
    return tuple(
        Port(port, None if outside is None else outside[place], where, protocol) for place, port in enumerate(inside)
    )


def _range(text: str, what: str) -> range:
    first, dash, last = text.partition("-")
    try:
        start, end = int(first), int(last if dash else first)
    except ValueError:
        raise ValueError(f"invalid {what}: {text}") from None
    if not (first.isdigit() and 0 < start <= end <= 0xFFFF):
        raise ValueError(f"invalid {what}: {text}")
    return range(start, end + 1)


def _address(text: str) -> str:
    import ipaddress

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare:
        return ""
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise ValueError(f"invalid IP address: {text}") from None
