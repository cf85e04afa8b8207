"""`slirp4netns`: how it is told what to connect, and which ports to publish.

Its address, gateway and server of names are those of its documentation for the network 10.0.2.0/24. It ends when the
other end of its exit descriptor is closed: that is in the hands of the process that keeps the container.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

from layerstore import ConfigError
from layerstore.runtime.network.ports import Published

__all__ = ["ADDRESS", "GATEWAY", "NAMESERVER", "argv", "forward", "reaches_host"]

ADDRESS, GATEWAY, NAMESERVER = "10.0.2.100", "10.0.2.2", "10.0.2.3"

_MTU = 65520
_SWITCHES = {"allow_host_loopback", "enable_ipv6"}
_VALUES = {"mtu", "outbound_addr", "outbound_addr6"}


def _settings(words: Sequence[str]) -> dict[str, str]:
    """`key=value` each, with podman's names. Raises `ConfigError`."""
    found = {}
    for word in words:
        key, _, value = word.partition("=")
        if (key in _SWITCHES and value in ("true", "false")) or (key in _VALUES and value):
            found[key] = value
            continue
        known = ", ".join([*(f"{key}=true" for key in sorted(_SWITCHES)), *(f"{key}=VALUE" for key in sorted(_VALUES))])
        raise ConfigError(f"slirp4netns has no option {word!r}", remedy=f"There are {known}.")
    return found


def reaches_host(words: Sequence[str]) -> bool:
    """Can the container reach what listens on the host's loopback, by the gateway's address?"""
    return _settings(words).get("allow_host_loopback") == "true"


def argv(program: str, words: Sequence[str], pid: int, *, ready: int, exit: int, api: Path) -> list[str]:
    """The command that connects the network namespace of process `pid`. `ready` and `exit` are its descriptors."""
    settings = _settings(words)
    line = [program, "--configure", f"--mtu={settings.get('mtu', _MTU)}", "--enable-sandbox", "--enable-seccomp"]
    if settings.get("allow_host_loopback") != "true":
        line.append("--disable-host-loopback")
    if settings.get("enable_ipv6") == "true":
        line.append("--enable-ipv6")
    for key in ("outbound_addr", "outbound_addr6"):
        if key in settings:
            line.append(f"--{key.replace('_', '-')}={settings[key]}")
    return [*line, f"--ready-fd={ready}", f"--exit-fd={exit}", f"--api-socket={api}", str(pid), "tap0"]


def forward(api: Path, port: Published) -> str:
    """Have it publish a port; why it does not, or ""."""
    request = {
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol,
            "host_addr": port.address or "0.0.0.0",
            "host_port": port.host,
            "guest_addr": ADDRESS,
            "guest_port": port.container,
        },
    }
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(str(api))
        talk.sendall(json.dumps(request).encode())
        talk.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := talk.recv(4096):
            answer += piece
    told = json.loads(answer or b"{}")
    problem = told.get("error")
    return "" if problem is None else str(problem.get("desc", problem))
