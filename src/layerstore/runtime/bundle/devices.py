"""Devices: which nodes a container gets, and which its cgroup lets it use (runtime-spec config-linux.md, "Devices")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve

from layerstore import ConfigError, NotFound
from layerstore.runtime.bundle.host import HostFacts, Node
from layerstore.runtime.options import Device

__all__ = ["as_config", "nodes", "rules"]

_USUAL = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))
"""null, zero, full, random, urandom, tty, console, ptmx: what the runtimes make for every container."""

_TERMINALS = 136
"""The major number of /dev/pts."""


def nodes(asked: Sequence[Device], host: HostFacts, *, privileged: bool) -> list[tuple[Node, str]]:
    """The nodes that are made, each with what may be done with it. Raises `NotFound`, `ConfigError`."""
    if privileged:
        return [(node, "rwm") for node in host.nodes("/dev")]
    found: dict[str, tuple[Node, str]] = {}
    for device in asked:
        if not device.permissions or set(device.permissions) - set("rwm"):
            raise ConfigError(f"invalid device mode: {device.permissions}", remedy="It is some of the letters r, w, m.")
        there = host.nodes(device.host)
        if not there:
            raise NotFound(
                f'error gathering device information while adding custom device "{device.host}": '
                "not a device node, or no such file or directory",
                remedy="Name a device of the host, or a folder that has some.",
                path=device.host,
            )
        for node in there:
            # In a folder, the rest of the path stays as it is.
            path = (device.container or device.host).rstrip("/") + node.path[len(device.host.rstrip("/")) :]
            found[path] = (evolve(node, path=path), device.permissions)
    return list(found.values())


def as_config(found: Sequence[tuple[Node, str]]) -> list[dict[str, Any]]:
    """The nodes in the spec's form."""
    return [
        {
            "path": node.path,
            "type": node.kind,
            "major": node.major,
            "minor": node.minor,
            "fileMode": node.mode,
            "uid": node.uid,
            "gid": node.gid,
        }
        for node, _ in found
    ]


def rules(found: Sequence[tuple[Node, str]], *, privileged: bool) -> list[dict[str, Any]]:
    """What the cgroup allows: nothing but this."""
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    allowed: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    # A node may be made, of whatever it is; that opens nothing.
    allowed += [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
    allowed += [_allow("c", major, minor, "rwm") for major, minor in _USUAL]
    allowed.append({"allow": True, "type": "c", "major": _TERMINALS, "access": "rwm"})
    allowed += [_allow(node.kind, node.major, node.minor, access) for node, access in found]
    return allowed


def _allow(kind: str, major: int, minor: int, access: str) -> dict[str, Any]:
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
