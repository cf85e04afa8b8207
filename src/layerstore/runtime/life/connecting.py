"""How a container that runs is connected, written down in its folder: for `inspect`, and for who ends the program."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from attrs import asdict

from layerstore import Container, read_own
from layerstore.runtime.life.places import Folder
from layerstore.runtime.life.processes import ProcessId, parsed, process_of
from layerstore.runtime.network import parse
from layerstore.runtime.network.link import Connected, Link
from layerstore.runtime.network.ports import Published, published
from layerstore.runtime.options import RunOptions
from layerstore.runtime.said import section

__all__ = ["connect", "connected", "disconnect", "link_of"]


def link_of(container: Container, options: RunOptions, folder: Folder) -> Link | None:
    """What is to connect it, if that takes a program. Raises `ConfigError`, `CannotRun`."""
    mode = parse(options.network)
    ports = published(mode, options, _exposed(container))
    return Link(mode, ports, folder.path) if mode.kind.is_own else None


def connect(link: Link, pid: int, folder: Folder) -> None:
    """Connect the container whose first process this is, which waits to be started. Raises `CannotRun`."""
    found = link.connect(pid)
    process = process_of(found.pid)
    told = asdict(found) | {"process": str(process or "")}
    folder.network.write_text(json.dumps(told))


def connected(folder: Folder) -> Connected | None:
    """How a container that runs is connected; None if no program does it."""
    try:
        told = json.loads(read_own(folder.network))
    except (FileNotFoundError, ValueError):
        return None
    ports = tuple(Published(**port) for port in told["ports"])
    return Connected(told["kind"], told["pid"], told["address"], told["gateway"], ports)


def disconnect(folder: Folder) -> None:
    """End the program that connected a container, if it has not ended with it.

    Where nobody lived to write down which it is, pasta has: the process of that number, if its command names the file.
    """
    try:
        process = parsed(json.loads(read_own(folder.network))["process"])
    except (FileNotFoundError, ValueError):
        process = _by_pid_file(folder.pasta)
    if process is not None and process.lives:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


def _by_pid_file(path: Path) -> ProcessId | None:
    try:
        pid = int(read_own(path))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return process_of(pid) if os.fsencode(path) in command.split(b"\0") else None


def _exposed(container: Container) -> Iterable[str]:
    image = container.image
    said = None if image is None else section(image.config).get("ExposedPorts")
    return sorted(said or ())
