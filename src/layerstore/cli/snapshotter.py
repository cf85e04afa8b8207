"""The command that makes the store a snapshotter of containerd: snapshotter."""

from __future__ import annotations

import select
import signal
from pathlib import Path

import click

from layerstore.cli import output
from layerstore.cli.front import Arguments, Command
from layerstore.cli.serve import told_to_end
from layerstore.errors import ConfigError, LayerstoreError

_SOCKET = Path("/run/layerstore/snapshotter.sock")
_ROOT = Path("/var/lib/containerd")
_CONTAINERD = Path("/run/containerd/containerd.sock")


@click.command(cls=Command)
@click.option(
    "--address",
    metavar="SOCKET",
    type=click.Path(path_type=Path),
    default=_SOCKET,
    help=f"Where to listen: the path of a socket ({_SOCKET})",
)
@click.option(
    "--containerd-root",
    "root",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=_ROOT,
    help=f"Where containerd keeps its content, for what is unpacked here ({_ROOT})",
)
@click.option(
    "--containerd-address",
    "containerd",
    metavar="SOCKET",
    type=click.Path(path_type=Path),
    default=_CONTAINERD,
    help=f"Where containerd listens, for layers that are made here of snapshots ({_CONTAINERD})",
)
@click.option("--driver", metavar="NAME", help="The storage driver of a store that is new")
@click.pass_obj
def snapshotter_command(
    arguments: Arguments, *, address: Path, root: Path, containerd: Path, driver: str | None
) -> None:
    """Be a snapshotter of containerd, until it is told to end.

    In containerd's config.toml: [proxy_plugins.layerstore], type = "snapshot", address = the socket. What containerd
    unpacks and runs then lies in this store, and images that the store has start in containerd without an unpack.
    It answers type = "diff" there, too (containerd 1.7 and later): then the store unpacks, and knows each layer's tar,
    and makes layers of what was written.
    """
    try:
        from layerstore.faces.containerd.server import Server
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise LayerstoreError(
            f"the snapshotter needs the package {missing.name}, which is not installed",
            remedy="Install it with: pip install 'layerstore[containerd]'",
        ) from None
    if not address.is_absolute():
        raise ConfigError(
            f"{str(address)!r} is no place of a socket",
            remedy=f"Write its whole path, as in {_SOCKET}: containerd has to find it, too.",
        )
    arguments.driver = driver or arguments.driver
    with told_to_end() as came, arguments.open() as store, Server(store, address, root, containerd) as server:
        output.lines([f"Listening on {server.address}"])
        select.select([came], [], [])
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # the second ends it at once
