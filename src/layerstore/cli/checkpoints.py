"""Commands on containers that branch: checkpoint, rollback, fork, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import completion, output, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Column, Form, format_option, show_rows
from layerstore.cli.objects import found
from layerstore.errors import LayerstoreError

if TYPE_CHECKING:
    from layerstore.containers import Checkpoint, Container
    from layerstore.images import Image
    from layerstore.store import Store


def compared(store: Store, name: str) -> Image | Container | Checkpoint:
    """What `diff` is given: an image, a container, or CONTAINER@LABEL."""
    container, at, label = name.rpartition("@")
    if at and ":" not in label:
        return store.container(container).checkpoint_named(label)
    return found(store, name)


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.argument("label", required=False)
@click.option("--live", is_flag=True, help="Keep its processes, too: refused, for nothing here does that")
@click.pass_obj
def checkpoint_command(arguments: Arguments, *, container: str, label: str | None, live: bool) -> None:
    """Keep what a container's filesystem is now, under LABEL or the next number, and print that.

    It costs milliseconds, whatever the size of the image. `rollback` leads back to it, `fork` makes other containers
    that begin there. Programs that run in the container stand still meanwhile. What else writes in it may be caught at
    several moments: then it says so.
    """
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        box = store.container(container)
        if live:
            raise _no_live(store, box)
        made = Runtime(store).checkpoint(box, label)
        output.lines([made.label])
        if not made.consistent:
            output.warn(f"Checkpoint {made.label} was made while the container was in use: it may show several moments")


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.argument("label")
@click.pass_obj
def rollback_command(arguments: Arguments, *, container: str, label: str) -> None:
    """Let a container's filesystem be again what it was at the checkpoint LABEL.

    What was written since, and is in no other checkpoint, is gone. Checkpoints that were made later stay.
    """
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        box = store.container(container)
        Runtime(store).rollback(box, box.checkpoint_named(label))
        output.lines([container])


@click.command(cls=Command)
@click.argument("container", metavar="CONTAINER[@LABEL]", shell_complete=completion.containers)
@click.option(
    "-n", "--number", metavar="N", type=click.IntRange(min=1), help="How many containers to make (default: 1)"
)
@click.option("--name", "names", metavar="NAME", multiple=True, help="Name of a container; may be given for each")
@click.option("--checkpoint", "label", metavar="LABEL", help="Begin at this checkpoint, not where the container is now")
@click.pass_obj
def fork_command(
    arguments: Arguments, *, container: str, number: int | None, names: tuple[str, ...], label: str | None
) -> None:
    """Make containers that begin where a container is now, each with its own writes, and print their IDs.

    They are run with what it is run with: command, environment, volumes; but each has anonymous volumes of its own.
    CONTAINER@LABEL is its checkpoint, as to `diff` and `ls`.
    """
    from layerstore.runtime import Runtime

    if label is None and "@" in container:
        container, _, label = container.rpartition("@")
    with arguments.open() as store:
        origin = store.container(container)
        begin = None if label is None else origin.checkpoint_named(label)
        made = Runtime(store).fork(origin, number, names=names or None, checkpoint=begin)
        output.lines(twin.id for twin in made)


def _no_live(store: Store, container: Container) -> LayerstoreError:
    """Why the processes of a container cannot be kept."""
    from layerstore.runtime.engine.probing import probe

    criu = probe(store.config).criu
    reason = f"images of processes, as criu {criu} makes them, are not kept here" if criu else "criu is not installed"
    return LayerstoreError(
        f"the processes of container {container.name} cannot be kept: {reason}",
        remedy="Without --live, the checkpoint is of its filesystem, and they stand still while it is made.",
    )


_COLUMNS: Final[Mapping[str, Column[Checkpoint]]] = {
    "Label": Column("LABEL", lambda point: point.label),
    "Image": Column("IMAGE", lambda point: "" if point.image_id is None else units.short(point.image_id)),
    "CreatedAt": Column("CREATED AT", lambda point: units.local(point.created_at)),
    "CreatedSince": Column("CREATED", lambda point: units.ago(point.created_at)),
    "Consistent": Column("CONSISTENT", lambda point: "yes" if point.consistent else "no"),
}


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.argument("labels", metavar="[LABEL...]", nargs=-1)
@format_option(rows=True)
@click.option("-q", "--quiet", is_flag=True, help="Show only labels")
@click.option("--rm", "remove", is_flag=True, help="Remove the checkpoints with these labels")
@click.pass_obj
def checkpoints_command(
    arguments: Arguments, *, container: str, labels: tuple[str, ...], form: Form, quiet: bool, remove: bool
) -> None:
    """List the checkpoints of a container, the oldest first; or remove some. What was forked from these stays."""
    if remove and not labels:
        raise click.UsageError("--rm needs the label of a checkpoint")
    with arguments.open() as store:
        origin = store.container(container)
        if remove:
            for label in labels:
                origin.checkpoint_named(label).remove()
                output.lines([label])
            return
        points = [origin.checkpoint_named(label) for label in labels] if labels else origin.checkpoints()
        usual = "{{.Label}}\t{{.Image}}\t{{.CreatedSince}}\t{{.Consistent}}"
        show_rows(points, _COLUMNS, form, usual, "{{.Label}}" if quiet else None)
