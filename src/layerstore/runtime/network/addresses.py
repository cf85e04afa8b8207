"""Which addresses a network namespace has, as the kernel tells it of a process that is in it (proc_pid_net(5))."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

__all__ = ["addresses"]

_LOCAL: Final = re.compile(r"\|-- ([\d.]+)\n\s+/32 host LOCAL")
_GLOBAL: Final = "00"
"""The scope of an address that is no link's (linux, include/net/ipv6.h, IPV6_ADDR_*)."""
_LINK: Final = "20"
"""That of one which is."""
_MOST: Final = 1 << 20
"""Characters of a table: whoever is root in the container may make it long."""


def addresses(pid: int) -> dict[str, Any]:
    """In docker's words; none of a process that is gone, or has no network but its own loopback."""
    found: dict[str, Any] = {}
    with suppress(OSError, ValueError, LookupError, struct.error):
        found |= _four(_table(pid, "fib_trie"), _table(pid, "route"))
    with suppress(OSError, ValueError, LookupError):
        local = _table(pid, "if_inet6")
        found |= _hardware(local)
        found |= _six(local, _table(pid, "ipv6_route"))
    return found


def _table(pid: int, name: str) -> str:
    with Path(f"/proc/{pid}/net/{name}").open() as file:
        return file.read(_MOST)


def _four(local: str, routes: str) -> dict[str, Any]:
    own = next((one for one in map(ipaddress.IPv4Address, _LOCAL.findall(local)) if not one.is_loopback), None)
    if own is None:
        return {}
    prefix, gateway = 32, ""
    for row in _rows(routes):
        if row[0] == "Iface":
            continue
        place, by, mask = (ipaddress.IPv4Address(struct.pack("=I", int(row[at], 16))) for at in (1, 2, 7))
        if not int(mask):
            gateway = gateway or (str(by) if int(by) else "")
        elif not int(by) and own in (network := ipaddress.IPv4Network((place, str(mask)))):
            prefix = network.prefixlen
    return {"IPAddress": str(own), "IPPrefixLen": prefix, "Gateway": gateway}


def _six(local: str, routes: str) -> dict[str, Any]:
    own = next((row for row in _rows(local) if row[3] == _GLOBAL), None)
    if own is None:
        return {}
    ways = (ipaddress.IPv6Address(int(row[4], 16)) for row in _rows(routes) if int(row[1], 16) == 0)
    return {
        "GlobalIPv6Address": str(ipaddress.IPv6Address(int(own[0], 16))),
        "GlobalIPv6PrefixLen": int(own[2], 16),
        "IPv6Gateway": next((str(way) for way in ways if int(way)), ""),
    }


def _hardware(local: str) -> dict[str, Any]:
    """The hardware address, of which the kernel makes that of the link (RFC 4291, appendix A).

    It is in no table itself, and an interface is asked for it by who is in its namespace. Without IPv6 it is not known.
    """
    for row in _rows(local):
        one = bytearray.fromhex(row[0])[8:]
        if row[3] == _LINK and one[3:5] == b"\xff\xfe":
            one[0] ^= 2
            return {"MacAddress": (one[:3] + one[5:]).hex(":")}
    return {}


def _rows(text: str) -> Iterator[list[str]]:
    return (line.split() for line in text.splitlines() if line.strip())
