"""The command `cp`: files out of containers and images, and into containers, with docker's words and rules."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from attrs import evolve

from layerstore.cli import completion, output, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.objects import found
from layerstore.errors import LayerstoreError, NotFound

if TYPE_CHECKING:
    from layerstore.containers import Container
    from layerstore.copying import Copied
    from layerstore.images import Image
    from layerstore.store import Store

_STANDARD: Final = "-"


@click.command(cls=Command)
@click.argument("source", metavar="CONTAINER:SRC_PATH|SRC_PATH|-", shell_complete=completion.places)
@click.argument("target", metavar="DEST_PATH|-|CONTAINER:DEST_PATH", shell_complete=completion.places)
@click.option("-a", "--archive", is_flag=True, help="Keep owners, setuid bits, extended attributes and devices")
@click.option(
    "-L", "--follow-link", "follow", is_flag=True, help="If SRC_PATH is a symbolic link, copy what it leads to"
)
@click.option(
    "-q", "--quiet/--no-quiet", default=None, help="Do not tell what was copied (the default without a terminal)"
)
@click.pass_obj
def cp_command(
    arguments: Arguments, *, source: str, target: str, archive: bool, follow: bool, quiet: bool | None
) -> None:
    """Copy files and folders between a container and this machine, between containers, or out of an image.

    `-` as the source is a tar on standard input, to be unpacked in a folder of the container; `-` as the destination
    writes a tar to standard output. A path of this machine with a colon in it has to begin with `/` or `.`.
    """
    is_out, is_in = _is_remote(source), _is_remote(target)
    if not is_out and not is_in:
        raise LayerstoreError(
            "must specify at least one container source", remedy="Write CONTAINER:PATH for a path in a container."
        )
    with arguments.open() as store:
        if is_out and is_in:
            copied = _between(store, source, target, archive=archive, follow=follow)
        elif is_out:
            subject, path = _subject(store, source)
            written = output.binary_output() if target == _STANDARD else target
            copied = subject.copy_out(path, written, archive=archive, follow=follow)
            if target == _STANDARD:
                sys.stdout.flush()
        else:
            container, path = _container(store, target)
            read = output.binary_input() if source == _STANDARD else source
            copied = container.copy_in(read, path, archive=archive, follow=follow)
    output.warn(*copied.notices)
    if quiet is None:
        quiet = sys.stdout is None or not sys.stdout.isatty()
    if target != _STANDARD and not quiet:
        output.warn(_summary(copied, target if is_in else str(Path(target).absolute())))


def _between(store: Store, source: str, target: str, *, archive: bool, follow: bool) -> Copied:
    """From one container or image into a container, by way of a folder that nobody else can look into."""
    import tempfile

    subject, path = _subject(store, source)
    container, place = _container(store, target)
    with tempfile.TemporaryDirectory(prefix="layerstore-cp-") as folder:
        taken = subject.copy_out(path, folder, archive=archive, follow=follow)
        is_content = path.endswith("/.") or not path.strip("/.")
        what = f"{folder}/." if is_content else os.path.join(folder, os.listdir(folder)[0])
        put = container.copy_in(what, place, archive=archive)
    return evolve(put, notices=(*taken.notices, *put.notices))


def _summary(copied: Copied, target: str) -> str:
    return f"Successfully copied {units.size(copied.size)} to {target}"


def _is_remote(argument: str) -> bool:
    """Whether an argument means a path in a container or image."""
    name, colon, _ = argument.partition(":")
    return bool(colon) and not name.startswith(("/", "."))


def _subject(store: Store, argument: str) -> tuple[Container | Image, str]:
    """What NAME:PATH means. The name of an image can have colons itself: its path then begins with a slash."""
    name, _, path = argument.partition(":")
    try:
        return store.container(name), path
    except NotFound:
        longer, colon, rest = argument.partition(":/")
        return (found(store, longer), f"/{rest}") if colon else (found(store, name), path)


def _container(store: Store, argument: str) -> tuple[Container, str]:
    from layerstore.containers import Container

    subject, path = _subject(store, argument)
    if not isinstance(subject, Container):
        raise LayerstoreError(
            f"{argument} is in an image, which is never written to",
            remedy="Create a container on it, copy into that, and commit it.",
        )
    return subject, path
