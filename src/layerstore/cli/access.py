"""podman's words about registries that one command is told: --tls-verify, --authfile, --creds, --cert-dir; and of
platforms: --os, --arch, --variant, which are docker's --platform in three words."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from layerstore.access import Access

F = TypeVar("F", bound=Callable[..., Any])

_verify: Final = click.option("--tls-verify/--no-tls-verify", default=None, help="Check certificates (the default)")
_file: Final = click.option(
    "--authfile", metavar="FILE", type=click.Path(dir_okay=False), help="Look for credentials there, and nowhere else"
)
_creds: Final = click.option(
    "--creds", metavar="NAME:PASSWORD", help="Credentials; others on this machine can see them"
)
_certificates: Final = click.option(
    "--cert-dir", metavar="FOLDER", type=click.Path(exists=True, file_okay=False), help="The registry's certificates"
)
_trust: Final = click.option(
    "--disable-content-trust/--enforce-content-trust", "untrusted", default=True, hidden=True, help="As it is anyway"
)


def access_taken(*, of: str | None = None) -> Callable[[F], F]:
    """Give a command podman's words about registries; its `Arguments` have what they say.

    `of`: the argument that names what is in a registry, for --creds and --cert-dir are of that registry alone.
    """

    def decorate(function: F) -> F:
        @wraps(function)
        def called(
            arguments: Any,
            /,
            *args: Any,
            tls_verify: bool | None,
            authfile: str | None,
            creds: str | None = None,
            cert_dir: str | None = None,
            untrusted: bool = True,
            **named: Any,
        ) -> Any:
            require_no_trust(untrusted=untrusted)
            host = "" if of is None or named[of] is None else _host_of(named[of]) if creds or cert_dir else ""
            username, password = ("", "") if creds is None else _account(creds)
            arguments.access = Access(
                verify=tls_verify,
                auth_file=None if authfile is None else Path(authfile),
                host=host,
                username=username,
                password=password,
                certificates=None if cert_dir is None else Path(cert_dir),
            )
            if named.get("lazy") and arguments.access != Access():
                raise click.UsageError("--lazy goes on when this command has ended, by what is kept: log in first")
            return function(arguments, *args, **named)

        options = [_verify, _file, _trust, *((_creds, _certificates) if of is not None else ())]
        decorated: Any = called
        for option in reversed(options):
            decorated = option(decorated)
        return cast(F, decorated)

    return decorate


def require_no_trust(*, untrusted: bool) -> None:
    """Raise `click.UsageError` where docker's content trust is asked for."""
    if not untrusted:
        raise click.UsageError("signatures of images are not verified here: there is no content trust to be enforced")


def _host_of(name: str) -> str:
    """The registry of an image, or that in which a word is searched for: HOST/WORD."""
    from layerstore import reference

    return reference.split_host(name.removeprefix("docker://"))[0]


def _account(text: str) -> tuple[str, str]:
    username, colon, password = text.partition(":")
    if not (username and colon and password):
        raise click.UsageError("--creds is NAME:PASSWORD")  # and is not shown
    return username, password


def platform_taken(function: F) -> F:
    """Give a command that has `platform` podman's --os, --arch and --variant, which come to the same."""

    @wraps(function)
    def called(*args: Any, os: str | None, arch: str | None, variant: str | None, **named: Any) -> Any:
        if os or arch or variant:
            if named["platform"]:
                raise click.UsageError("--platform says it all: leave out --os, --arch and --variant")
            from layerstore import platforms

            host = platforms.host()
            parts = [os or host.os, arch or host.architecture, variant]
            named["platform"] = "/".join(part for part in parts if part)
        return function(*args, **named)

    decorated: Any = called
    for name, what in (("--variant", "Variant"), ("--arch", "Architecture"), ("--os", "System")):
        decorated = click.option(name, metavar="NAME", help=f"{what} of the image, in place of --platform")(decorated)
    return cast(F, decorated)
