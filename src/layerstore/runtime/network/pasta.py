"""`pasta`: how it is told what to connect, and which ports to publish.

It gives up its rights to look at other processes before it opens the network namespace, so the namespace is handed to
it as a descriptor that is open already. Run by root it would become nobody, who may not configure it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerstore.runtime.network.ports import Published

__all__ = ["NAMESERVER", "argv"]

NAMESERVER = "169.254.1.1"
"""An address that it answers itself for names, where the host's servers are on the host's loopback."""


def argv(
    program: str,
    words: Sequence[str],
    namespace: int,
    ports: Sequence[Published],
    *,
    pid_file: Path,
    as_root: bool,
    answers_names: bool,
) -> list[str]:
    """The command that connects the network namespace that the descriptor `namespace` is of.

    Nothing is forwarded but `ports`, and nothing from the container to the host's loopback, unless `words` say so.
    """
    line = [program, "--config-net", "--no-map-gw", "--pid", str(pid_file)]
    if as_root:
        line += ["--runas", "0:0", "--netns-only"]
    if answers_names:
        line += ["--dns-forward", NAMESERVER]
    given = set(words)
    for protocol, option in (("tcp", "-t"), ("udp", "-u")):
        chosen = [_spec(port) for port in ports if port.protocol == protocol]
        if chosen or option not in given:
            line += [word for spec in chosen or ["none"] for word in (option, spec)]
    for option in ("-T", "-U"):
        if option not in given:
            line += [option, "none"]
    return [*line, *words, "--netns", f"/proc/self/fd/{namespace}"]


def _spec(port: Published) -> str:
    address = f"{port.address}/" if port.address else ""
    return f"{address}{port.host}:{port.container}"
