"""The command `adopt`: images of attached stores become this store's own."""

from __future__ import annotations

import click

from layerstore.cli import completion, output
from layerstore.cli.front import Arguments, Command
from layerstore.cli.progress import bars


@click.command(cls=Command)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completion.images)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.pass_obj
def adopt_command(arguments: Arguments, *, images: tuple[str, ...], quiet: bool) -> None:
    """Make images of attached stores (`--attach`) this store's own.

    IMAGE is a name or an ID that the other store has; or an image of this store that stands on borrowed layers.
    """
    with arguments.open() as store, bars("Adopting", quiet=quiet) as report:
        for name in images:
            done = store.adopt(name, progress=report)
            output.warn(*done.notices)
            output.lines(f"Adopted image: {given}" for given in done.names)
            if not done.names:
                output.lines([f"Adopted image ID: {done.image.id}"])
