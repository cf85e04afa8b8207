"""The command that makes the store a registry: serve."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerstore.cli import output
from layerstore.cli.front import Arguments, Command
from layerstore.errors import ConfigError, LayerstoreError

if TYPE_CHECKING:
    from layerstore.faces.serve.server import Server

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=Command)
@click.option(
    "--address", metavar="HOST:PORT", default="127.0.0.1:5000", help="Where to listen; port 0 is any that is free"
)
@click.option("--read-only", is_flag=True, help="Let nobody push or delete")
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="none",
    help="Of the layers of images that were neither pushed nor pulled",
)
@click.option("--tls-cert", metavar="FILE", type=_FILE, help="The certificate, and its chain, as PEM")
@click.option("--tls-key", metavar="FILE", type=_FILE, help="The key of the certificate, as PEM")
@click.option("--htpasswd", metavar="FILE", type=_FILE, help="Users and passwords, as `htpasswd -B` writes them")
@click.option("--insecure-listen", is_flag=True, help="Listen beyond this machine without TLS and passwords")
@click.pass_obj
def serve_command(
    arguments: Arguments,
    *,
    address: str,
    read_only: bool,
    compression: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    htpasswd: Path | None,
    insecure_listen: bool,
) -> None:
    """Serve the images of the store as a registry, until it is told to end.

    docker, podman, skopeo and containerd pull from it and push to it; a repository is called as `images` shows it:
    team/app is the store's team/app, debian its debian. Without TLS, clients have to be told that it is insecure,
    unless it is on 127.0.0.1.
    """
    from layerstore.faces.serve import listening

    host, port = listening.parse(address)
    tls = with_key(tls_cert, tls_key)
    listening.require_safe(host, tls=tls is not None, passwords=htpasswd is not None, insecure=insecure_listen)
    server_of = server_class()
    from layerstore.faces.serve import Passwords, Registry

    passwords = None if htpasswd is None else Passwords(htpasswd)
    if passwords is not None and tls is None and not listening.is_loopback(host):
        output.warn("Passwords cross the network as they are: give a certificate (--tls-cert, --tls-key), too.")
    with told_to_end() as came, arguments.open() as store:
        registry = Registry(store, read_only=read_only, compression=compression, passwords=passwords)
        with server_of(host, port, registry, tls=tls) as server:
            output.lines([f"Listening on {server.url}"])
            select.select([came], [], [])
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)  # the second ends it at once
        registry.close()


def with_key(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """The files of a certificate and its key. Raises `ConfigError` if one of them is missing."""
    if (certificate is None) != (key is None):
        raise ConfigError("a certificate needs its key, and a key its certificate", remedy="Give both, or neither.")
    return None if certificate is None or key is None else (certificate, key)


def server_class() -> type[Server]:
    """The HTTP server. Raises `LayerstoreError` where the package for it is missing."""
    try:
        from layerstore.faces.serve.server import Server
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "cheroot":
            raise
        raise LayerstoreError(
            "the server needs the package cheroot, which is not installed",
            remedy="Install it with: pip install 'layerstore[serve]'",
        ) from None
    return Server


@contextmanager
def told_to_end() -> Iterator[int]:
    """While inside: a descriptor that has something to read when this process was told to end.

    Python's handlers wait for the main thread: one that was about to wait would never see to them.
    """
    reads, writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(writes)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        yield reads
    finally:
        signal.set_wakeup_fd(before)
        os.close(reads)
        os.close(writes)
