"""Commands on the trees of containers: mount, umount, diff, commit, rename. What runs is in `run` and `lives`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import completion, output, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Column, Form, format_option, show_rows
from layerstore.errors import LayerstoreError, NotFound
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.changes import Change
    from layerstore.containers import Checkpoint, Container
    from layerstore.images import Image
    from layerstore.store import Store


@frozen
class Listed:
    """One line of `mount`."""

    container: Container
    trunc: bool


_MOUNT_COLUMNS: Final[Mapping[str, Column[Listed]]] = {
    "ID": Column("CONTAINER ID", lambda line: units.short(line.container.id) if line.trunc else line.container.id),
    "Names": Column("NAMES", lambda line: line.container.name),
    "Image": Column("IMAGE", lambda line: line.container.image_name),
    "Mountpoint": Column("MOUNTPOINT", lambda line: str(line.container.state.mountpoint or "")),
    "Mounts": Column("MOUNTS", lambda line: str(line.container.state.mounts)),
}


@click.command(cls=Command)
@click.argument("containers", metavar="[CONTAINER...]", nargs=-1, shell_complete=completion.containers)
@format_option(rows=True)
@click.option("--no-trunc", is_flag=True, help="Show whole IDs")
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.pass_obj
def mount_command(arguments: Arguments, *, containers: tuple[str, ...], form: Form, no_trunc: bool, quiet: bool) -> int:
    """Mount containers and print their mountpoints; without a name, list what is mounted.

    A mount stays until `layerstore umount`, one for each `mount`.
    """
    failed = 0
    with arguments.open() as store:
        if not containers:
            mounted = (Listed(container, not no_trunc) for container, _ in store.mounted())
            usual = "{{.ID}}\t{{.Names}}\t{{.Mountpoint}}"
            show_rows(mounted, _MOUNT_COLUMNS, form, usual, "{{.ID}}" if quiet else None)
        for name in containers:
            try:
                output.lines([str(store.container(name).mount(persistent=True).path)])
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
    return failed


@click.command(cls=Command)
@click.argument("containers", metavar="[CONTAINER...]", nargs=-1, shell_complete=completion.containers)
@click.option("-a", "--all", "all_containers", is_flag=True, help="Unmount all containers")
@click.option("-f", "--force", is_flag=True, help="Unmount however often the container was mounted")
@click.pass_obj
def umount_command(arguments: Arguments, *, containers: tuple[str, ...], all_containers: bool, force: bool) -> int:
    """Undo one mount of each container, and print its name."""
    if bool(containers) == all_containers:
        raise click.UsageError("either containers or --all has to be given")
    with arguments.open() as store:
        if all_containers:
            return output.each([box.name for box, _ in store.mounted()], lambda name: _unmounted(store, name))
        return output.each(containers, lambda name: store.container(name).unmount(all=force))


def _unmounted(store: Store, name: str) -> None:
    """Unmount one of all; one that was removed meanwhile is unmounted."""
    with suppress(NotFound):
        store.container(name).unmount(all=True)


_CHANGE_COLUMNS: Final[Mapping[str, Column[Change]]] = {
    "Kind": Column("KIND", lambda change: change.kind.value),
    "Path": Column("PATH", lambda change: change.path),
}


@click.command(cls=Command)
@click.argument("subject", metavar="CONTAINER|IMAGE", shell_complete=completion.anything)
@click.argument("base", metavar="[CONTAINER|IMAGE]", required=False, shell_complete=completion.anything)
@format_option(rows=True)
@click.pass_obj
def diff_command(arguments: Arguments, *, subject: str, base: str | None, form: Form) -> None:
    """Show what a container or image added (A), changed (C) and deleted (D).

    A container is compared with its image, and an image with the one that it was built on, or else with its layers but
    the topmost. With two names, the first is compared with the second. CONTAINER@LABEL is a checkpoint.
    """
    from layerstore.cli.checkpoints import compared

    with arguments.open() as store, ExitStack() as after:
        what = after.enter_context(_written_of(store, compared(store, subject)))
        since = None if base is None else after.enter_context(_written_of(store, compared(store, base)))
        changes = what.changes(since)
        if form.template is None and not form.is_table:
            output.lines(map(str, changes))
        else:
            show_rows(changes, _CHANGE_COLUMNS, form, "{{.Kind}}\t{{.Path}}")


@contextmanager
def _written_of(store: Store, what: Image | Container | Checkpoint) -> Iterator[Image | Container | Checkpoint]:
    """While inside: what to compare in place of it, without what was made for programs that run or ran."""
    from layerstore import Checkpoint, Container
    from layerstore.runtime import Runtime

    if isinstance(what, Container):
        with written(store, what) as found:
            yield found
    elif isinstance(what, Checkpoint):
        with Runtime(store).sealed(what) as point:
            yield point
    else:
        yield what


@contextmanager
def written(store: Store, container: Container) -> Iterator[Container]:
    """While inside: a container; if programs run in it, what stands for it without what was made for these."""
    from layerstore.runtime import Runtime

    with Runtime(store).written(container) as found:
        yield found


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.argument("reference", metavar="[REPOSITORY[:TAG]]", required=False)
@click.option("-a", "--author", help='Author, such as "Ada <ada@example.org>"')
@click.option("-c", "--change", "changes", multiple=True, help="A Dockerfile instruction for the image's config")
@click.option("-m", "--message", default="", help="What this image is")
@click.pass_obj
def commit_command(
    arguments: Arguments,
    *,
    container: str,
    reference: str | None,
    author: str | None,
    changes: tuple[str, ...],
    message: str,
) -> None:
    """Create an image from a container's changes, and print its ID.

    Programs that run in it stand still for the moment at which what they have written is taken.
    """
    with arguments.open() as store, written(store, store.container(container)) as box:
        image = box.commit(reference, message=message, author=author, instructions=changes)
        output.lines([image.id])


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.argument("name", metavar="NEW_NAME")
@click.pass_obj
def rename_command(arguments: Arguments, *, container: str, name: str) -> None:
    """Rename a container."""
    with arguments.open() as store:
        store.container(container).rename(name)
