"""The command that shows the store in a browser: ui."""

from __future__ import annotations

import secrets
import select
import signal
import threading
from pathlib import Path

import click

from layerstore.cli import output
from layerstore.cli.front import Arguments, Command
from layerstore.cli.serve import server_class, told_to_end, with_key
from layerstore.errors import ConfigError

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=Command)
@click.option(
    "--address", metavar="HOST:PORT", default="127.0.0.1:5080", help="Where to listen; port 0 is any that is free"
)
@click.option("--name", "names", metavar="HOST", multiple=True, help="A name by which the page may be asked for, too")
@click.option("--no-token", is_flag=True, help="Show the store to every user and program of this machine")
@click.option("--tls-cert", metavar="FILE", type=_FILE, help="The certificate, and its chain, as PEM")
@click.option("--tls-key", metavar="FILE", type=_FILE, help="The key of the certificate, as PEM")
@click.option("--htpasswd", metavar="FILE", type=_FILE, help="For the token: users, as `htpasswd -B` writes them")
@click.option("--insecure-listen", is_flag=True, help="Listen beyond this machine without TLS")
@click.pass_obj
def ui_command(
    arguments: Arguments,
    *,
    address: str,
    names: tuple[str, ...],
    no_token: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    htpasswd: Path | None,
    insecure_listen: bool,
) -> None:
    """Show the store in a browser, until it is told to end: images and the layers they share, containers, volumes,
    what takes the room, what can go, and what is wrong.

    Nothing can be altered there. It prints the address, with a token that whoever asks has to know: variables and
    labels have secrets in them, and other users of this machine reach 127.0.0.1, too.
    """
    from layerstore.faces.serve import listening

    host, port = listening.parse(address, default="127.0.0.1:5080")
    tls = with_key(tls_cert, tls_key)
    listening.require_safe(
        host,
        tls=tls is not None and not no_token,
        passwords=False,  # without TLS they would cross the network as they are, and so would the token
        insecure=insecure_listen,
        could="see what the store holds, and the secrets in its variables and labels",
        needs="a certificate (--tls-cert, --tls-key) and do without --no-token",
    )
    if no_token and htpasswd is not None:
        raise ConfigError("passwords stand in the token's place already", remedy="Leave out --no-token.")
    server = server_class()
    from layerstore.faces.serve import Passwords
    from layerstore.faces.ui import Page

    token = None if no_token or htpasswd is not None else secrets.token_urlsafe(24)
    with told_to_end() as came, arguments.open() as store:
        page = Page(store, token=token, passwords=None if htpasswd is None else Passwords(htpasswd), names=names)
        with server(host, port, page, tls=tls) as running:
            output.lines([f"Listening on {running.url}/{'' if token is None else f'#token={token}'}"])
            threading.Thread(target=page.warm, name="layerstore-ui-warm", daemon=True).start()
            select.select([came], [], [])
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)  # the second ends it at once
