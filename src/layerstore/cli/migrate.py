"""The command that converts a store to another driver: migrate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from layerstore.cli import completion, output, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.progress import bars

if TYPE_CHECKING:
    from layerstore.config import Config
    from layerstore.migration import Migrated


@click.command(cls=Command)
@click.argument("driver", shell_complete=completion.drivers)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.pass_obj
def migrate_command(arguments: Arguments, *, driver: str, quiet: bool) -> None:
    """Convert the store to another storage driver, in place.

    Images, tags and containers stay as they are, with what was written in them; every layer is verified. Nothing may be
    mounted, and nobody else may use the store. Until the end it needs room for both forms, and the store is the old
    one: after an interruption, the same command goes on. Given the driver that the store has, it gives up a migration
    that was not finished.
    """
    import layerstore

    config = arguments.read_config()
    arguments.enter()
    try:
        with bars("Converting", quiet=quiet) as report:
            done = layerstore.migrate(
                driver, arguments.root, config=config, storage_opts=arguments.options, progress=report
            )
    except KeyboardInterrupt:
        output.warn("Interrupted: the store is whole. The same command goes on; layerstore info says where it stands.")
        raise
    output.lines(_lines(done))
    output.warn(*done.notices, *_advice(done, config))


def _lines(done: Migrated) -> Iterator[str]:
    if done.given_up is not None:
        yield f"Given up: the migration to {done.given_up}. The store keeps its layers with {done.driver}"
        return
    layers = f"{done.layers} layer{'' if done.layers == 1 else 's'} ({units.size(done.size)})"
    containers = f"{done.containers} container{'' if done.containers == 1 else 's'}"
    yield f"Converted from {done.origin} to {done.driver}: {layers}, {containers}"


def _advice(done: Migrated, config: Config) -> Iterator[str]:
    """What daemon.json has to say from now on, if it says something else."""
    from layerstore.config import owner_of

    if config.storage_driver not in (None, done.driver):
        yield f'Set "storage-driver": "{done.driver}" in {config.source}'
    for opt in config.storage_opts:
        if owner_of(opt) != done.driver:
            yield f"Remove {opt!r} from the storage-opts in {config.source}: it is no option of {done.driver}"
