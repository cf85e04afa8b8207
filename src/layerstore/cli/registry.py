"""Commands on registries, as docker has them: login, logout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import output
from layerstore.cli.front import Arguments, Command
from layerstore.errors import LayerstoreError, NotFound

if TYPE_CHECKING:
    from layerstore.config import Config
    from layerstore.registry.logins import LoggedIn

_HUB: Final = "docker.io"
_LONGEST: Final = 1 << 20
_NOBODY: Final = "Cannot perform an interactive login from a non TTY device"


_certificates: Final = click.option(
    "--cert-dir", metavar="FOLDER", type=click.Path(exists=True, file_okay=False), help="The registry's certificates"
)
_file: Final = click.option(
    "--authfile", metavar="FILE", type=click.Path(dir_okay=False), help="Keep credentials there"
)
_verify: Final = click.option("--tls-verify/--no-tls-verify", default=None, help="Check certificates (the default)")


@click.command(cls=Command)
@click.argument("server", metavar="[SERVER]", default=_HUB)
@click.option("-u", "--username", metavar="NAME", help="Name to log in with")
@click.option("-p", "--password", metavar="WORD", help="Password; others on this machine can see it")
@click.option("--password-stdin", is_flag=True, help="Take the password from standard input")
@click.option("--get-login", is_flag=True, help="Print the name that is kept for SERVER, and log nobody in")
@click.option("-v", "--verbose", is_flag=True, help="Say in which file it is kept")
@_certificates
@_file
@_verify
@click.pass_obj
def login_command(
    arguments: Arguments,
    *,
    server: str,
    username: str | None,
    password: str | None,
    password_stdin: bool,
    get_login: bool,
    verbose: bool,
    authfile: str | None,
    cert_dir: str | None,
    tls_verify: bool | None,
) -> None:
    """Log in to a registry: Docker Hub, if no SERVER is named.

    The registry checks name and password; then they are kept as docker keeps them, in its config.json or by the
    credential helper that is named there.
    """
    from layerstore.registry import login

    server = server or _HUB
    file = None if authfile is None else Path(authfile)
    if get_login:
        _show_login(server, file)
        return
    if cert_dir is not None or tls_verify is not None:
        from layerstore.access import Access
        from layerstore.registry.logins import registry_of

        folder = None if cert_dir is None else Path(cert_dir)
        arguments.access = Access(verify=tls_verify, host=registry_of(server), certificates=folder)
    config = arguments.read_config()
    if password is not None:
        output.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if password_stdin:
            raise LayerstoreError("--password and --password-stdin are mutually exclusive", remedy="Use one of them.")
    if password_stdin:
        if not username:
            raise LayerstoreError("Must provide --username with --password-stdin", remedy="Name it with -u.")
        password = output.binary_input().read(_LONGEST).decode(errors="surrogateescape").rstrip("\r\n")
    if not username and not password and _succeeds_as_before(server, config, file):
        output.lines(["Login Succeeded"])
        return
    username = username or _asked_for("Username", server)
    password = password or _asked_for("Password", server)
    done = login(server, username=username, password=password, config=config, file=file, told=output.warn)
    _warn_of(done)
    if verbose:
        output.lines([f"Used: {done.file}"])
    output.lines(["Login Succeeded"])


def _show_login(server: str, file: Path | None) -> None:
    from layerstore.registry.logins import known, registry_of

    kept = known(server, file=file)
    if kept is None:
        raise NotFound(f"not logged in to {registry_of(server)}", remedy="`layerstore login` does that.")
    output.lines([kept.username or "<token>"])


@click.command(cls=Command)
@click.argument("server", metavar="[SERVER]", default=_HUB)
@click.option("-a", "--all", "everywhere", is_flag=True, help="Log out from all registries that are kept")
@_file
def logout_command(*, server: str, everywhere: bool, authfile: str | None) -> None:
    """Log out from a registry: Docker Hub, if no SERVER is named."""
    from layerstore.registry.logins import logged_in

    file = None if authfile is None else Path(authfile)
    for each in logged_in(file) if everywhere else [server or _HUB]:
        _log_out(each, file)


def _log_out(server: str, file: Path | None) -> None:
    from layerstore.registry import logout
    from layerstore.registry.logins import registry_of, still_known
    from layerstore.registry.transport.credentials import key_of

    name = output.printable(key_of(registry_of(server)))
    removed = logout(server, file=file)
    output.lines([f"Removing login credentials for {name}" if removed else f"Not logged in to {name}"])
    other = None if file is not None else still_known(server)
    if other is not None:
        output.warn(f"{other}, which is podman's, still has credentials for {name}: `podman logout` removes them.")


def _succeeds_as_before(server: str, config: Config, file: Path | None) -> bool:
    """Whether what was kept by a former login is still good, as docker tries first."""
    from layerstore.errors import Unauthorized
    from layerstore.registry.logins import check, known

    before = known(server, file=file)
    if before is None:
        return False
    output.lines(["Authenticating with existing credentials..."])
    output.flush()
    try:
        check(server, before, config=config)
    except Unauthorized as refused:
        output.warn(f"Login did not succeed, error: {refused.message}")
        return False
    return True


def _asked_for(what: str, server: str) -> str:
    """A line from the terminal; a password is not shown. Raises `LayerstoreError` where there is no terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise LayerstoreError(_NOBODY, remedy="Use --username with --password-stdin.")
    if what == "Password":
        from getpass import getpass

        return getpass("Password: ")
    if server == _HUB:
        output.lines(
            [
                "Login with your Docker ID to push and pull images from Docker Hub. If you don't have a Docker ID, "
                "head over to https://hub.docker.com to create one."
            ]
        )
    sys.stdout.write("Username: ")
    sys.stdout.flush()
    return sys.stdin.readline().strip()


def _warn_of(done: LoggedIn) -> None:
    if done.is_open:
        output.warn(
            f"{output.printable(done.registry)} lets in everybody: whether name and password are right is unknown."
        )
    if done.helper is None and not done.is_token:
        output.warn(
            f"WARNING! Your credentials are stored unencrypted in '{done.file}'.",
            "Configure a credential helper to remove this warning. See",
            "https://docs.docker.com/go/credential-store/",
            "",
        )
