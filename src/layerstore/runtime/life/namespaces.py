"""The namespaces that a container shares: with the host, or with another container that runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from layerstore import ConfigError
from layerstore.runtime.bundle import FILES, Network, text_of
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.network import Kind, parse
from layerstore.runtime.options import RunOptions

__all__ = ["namespaces_of", "network_of"]

_OWN = {"pid": ("", "private"), "ipc": ("", "private", "shareable", "none"), "uts": ("", "private")}


def namespaces_of(options: RunOptions, pid_of: Callable[[str], int]) -> Mapping[str, str]:
    """The namespaces that are not its own, by kind: "" is the host's, else the path of one.

    `pid_of` gives the first process of a container by its name, and raises what is to be raised if it does not run.
    Raises `ConfigError`.
    """
    found = {}
    for kind, asked in (("pid", options.pid), ("ipc", options.ipc), ("uts", options.uts)):
        if asked in _OWN[kind]:
            continue
        if asked == "host":
            found[kind] = ""
        elif asked.startswith("container:") and kind != "uts":
            found[kind] = f"/proc/{pid_of(asked.removeprefix('container:'))}/ns/{kind}"
        else:
            raise ConfigError(f"--{kind}: invalid {kind.upper()} mode: {asked}", remedy="Give host, or leave it out.")
    return found


def network_of(options: RunOptions, pid_of: Callable[[str], int]) -> Network:
    """How a container is connected: as the host is, not yet, or as another container is. Raises `ConfigError`."""
    mode = parse(options.network)
    match mode.kind:
        case Kind.HOST:
            return Network()
        case Kind.CONTAINER:
            pid = pid_of(mode.container)
            return Network(namespace=f"/proc/{pid}/ns/net", joined=True, files=_files_of(pid))
        case _:
            return Network(namespace="")


def _files_of(pid: int) -> Mapping[str, str]:
    """What the files in /etc say that a process of another container sees. Raises `NotRunning`."""
    try:
        tree = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise NotRunning("the container whose network is to be shared has ended") from None
    try:
        return {name: text_of(tree, f"/etc/{name}") for name in FILES}
    finally:
        os.close(tree)
