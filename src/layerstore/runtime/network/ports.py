"""Which ports of a container are published, and where."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence

from layerstore import ConfigError, KernelError
from layerstore.runtime.network.kind import Kind
from layerstore.runtime.network.mode import Mode
from layerstore.runtime.options import Port, RunOptions
from layerstore.values import frozen

__all__ = ["Published", "notices", "published"]

_PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@frozen
class Published:
    """A port of a container, and the host's by which it is reached. `address` "" is every address of the host."""

    container: int
    host: int
    address: str = ""
    protocol: str = "tcp"


def published(mode: Mode, options: RunOptions, exposed: Iterable[str]) -> tuple[Published, ...]:
    """What is to be published of a container in this mode; `exposed` is what its image exposes (`80/tcp`).

    One that names no port of the host gets one that is free at this moment. Raises `ConfigError`.
    """
    if mode.kind is Kind.CONTAINER and (options.ports or options.publish_all):
        raise ConfigError(
            "conflicting options: port publishing and the container type network mode",
            remedy="Publish the ports of the container whose network it is.",
        )
    if not mode.kind.is_own:
        return ()
    wanted = list(options.ports)
    if options.publish_all:
        known = {(port.container, port.protocol) for port in wanted}
        wanted += [port for port in map(_exposed, exposed) if (port.container, port.protocol) not in known]
    return tuple(_chosen(wanted))


def notices(options: RunOptions, mode: Mode) -> list[str]:
    """What a user should be told of the ports that were asked for, in docker's words."""
    if mode.kind is Kind.HOST and (options.ports or options.publish_all):
        return ["Published ports are discarded when using host network mode"]
    return []


def _exposed(text: str) -> Port:
    number, _, protocol = text.partition("/")
    if not number.isdecimal():
        raise ConfigError(f"the image exposes {text!r}, which is no port", remedy="Publish its ports by number (-p).")
    return Port(int(number), protocol=protocol or "tcp")


def _chosen(wanted: Sequence[Port]) -> Iterable[Published]:
    for port in wanted:
        if port.protocol not in _PROTOCOLS:
            raise ConfigError(
                f"port {port.container}/{port.protocol} cannot be published", remedy="Ports of tcp and udp can be."
            )
        host = _free(port) if port.host is None else port.host
        yield Published(port.container, host, port.address, port.protocol)


def _free(port: Port) -> int:
    """A port of the host that nobody has at this moment."""
    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    with socket.socket(family, _PROTOCOLS[port.protocol]) as probe:
        try:
            probe.bind((port.address, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigError(
                    f"this host has no address {port.address}",
                    remedy="Leave it out, or name one of the host's (ip addr).",
                ) from None
            raise KernelError("bind", error.errno or 0) from error
        return int(probe.getsockname()[1])
