"""The command that lets podman, buildah and CRI-O use the store's layers where they lie: expose."""

from __future__ import annotations

from pathlib import Path

import click

from layerstore.cli import completion, output
from layerstore.cli.front import Arguments, Command


@click.command(cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("images", nargs=-1, metavar="[IMAGE...]", shell_complete=completion.images)
@click.option("--run-only", is_flag=True, help="Read no layer: podman can run the images, but not save or push them")
@click.option("--withdraw", is_flag=True, help="Take it away again, and keep its layers no longer")
@click.pass_obj
def expose_command(
    arguments: Arguments, *, folder: Path, images: tuple[str, ...], run_only: bool, withdraw: bool
) -> None:
    """Make FOLDER an additional image store, from which podman runs images of this store without a copy.

    Of all images, or of each IMAGE, as they are now: do it again after a change. podman is told of FOLDER by
    `additionalimagestores` in storage.conf. Needs the driver overlay2.
    """
    from layerstore.errors import ConfigError
    from layerstore.faces import podman

    if withdraw and images:
        raise ConfigError("--withdraw takes everything away, not single images", remedy="Leave the images out.")
    with arguments.open() as store:
        if withdraw:
            podman.withdraw(store, folder)
            return
        done = podman.expose(store, folder, only=images, exact=not run_only)
    for name, reason in done.left_out.items():
        output.warn(f"{name} is left out: {reason}")
    for name in done.images:
        click.echo(name)
