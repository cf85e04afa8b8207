"""The command that makes a database anew: rescue."""

from __future__ import annotations

import click

from layerstore.cli import output
from layerstore.cli.front import Arguments, Command


@click.command(cls=Command)
@click.pass_obj
def rescue_command(arguments: Arguments) -> None:
    """Make the database of a store anew that is gone or damaged, of what lies beside its layers.

    Images with their tags, containers with what was written in them, checkpoints and volumes come back, as far as their
    records and files are there; what does not is told, a line each. The old database stays, under another name. Nobody
    else may use the store meanwhile.
    """
    import layerstore

    arguments.enter()
    done = layerstore.rescue(arguments.root, config=arguments.read_config(), storage_driver=arguments.driver)
    output.lines(
        [
            f"Rescued: {_count(done.images, 'image')}, {_count(done.layers, 'layer')}, "
            f"{_count(done.containers, 'container')}, {_count(done.volumes, 'volume')}"
        ]
    )
    output.warn(*(output.printable(line) for line in done.lost))
    if done.database is not None:
        output.warn(f"The old database is {done.database} now.")
    output.warn("`layerstore check --content` tells whether the files of all that came back are whole.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
