"""Commands on the trees of containers: mount, umount, diff, commit, rename. What runs is in `run` and `lives`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import completion, output, units
from layerstore.cli.choosing import Choice, containers_chosen, latest_option
from layerstore.cli.files import require_file, write_file
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
@containers_chosen(of_all="any", needed=False)
@format_option(rows=True)
@click.option("--no-trunc", is_flag=True, help="Show whole IDs")
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.pass_obj
def mount_command(arguments: Arguments, *, containers: Choice, form: Form, no_trunc: bool, quiet: bool) -> int:
    """Mount containers and print their mountpoints; without a name, list what is mounted.

    A mount stays until `layerstore umount`, one for each `mount`.
    """
    failed = 0
    with arguments.open() as store:
        if not containers.is_said:
            mounted = (Listed(container, not no_trunc) for container, _ in store.mounted())
            usual = "{{.ID}}\t{{.Names}}\t{{.Mountpoint}}"
            show_rows(mounted, _MOUNT_COLUMNS, form, usual, "{{.ID}}" if quiet else None)
        for name in containers.of(store):
            try:
                output.lines([str(store.container(name).mount(persistent=True).path)])
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
    return failed


@click.command(cls=Command)
@containers_chosen(needed=False)
@click.option("-a", "--all", "each", is_flag=True, help="Unmount all containers")
@click.option("-f", "--force", is_flag=True, help="Unmount however often the container was mounted")
@click.pass_obj
def umount_command(arguments: Arguments, *, containers: Choice, each: bool, force: bool) -> int:
    """Undo one mount of each container, and print its name."""
    if containers.is_said == each:
        raise click.UsageError("either containers or --all has to be given")
    with arguments.open() as store:
        if each:
            return output.each([box.name for box, _ in store.mounted()], lambda name: _unmounted(store, name))
        return output.each(containers.of(store), lambda name: store.container(name).unmount(all=force))


def _unmounted(store: Store, name: str) -> None:
    """Unmount one of all; one that was removed meanwhile is unmounted."""
    with suppress(NotFound):
        store.container(name).unmount(all=True)


_CHANGE_COLUMNS: Final[Mapping[str, Column[Change]]] = {
    "Kind": Column("KIND", lambda change: change.kind.value),
    "Path": Column("PATH", lambda change: change.path),
}


@click.command(cls=Command)
@click.argument("subject", metavar="CONTAINER|IMAGE", required=False, shell_complete=completion.anything)
@click.argument("base", metavar="[CONTAINER|IMAGE]", required=False, shell_complete=completion.anything)
@format_option(rows=True)
@latest_option
@click.pass_obj
def diff_command(arguments: Arguments, *, subject: str | None, base: str | None, form: Form, latest: bool) -> None:
    """Show what a container or image added (A), changed (C) and deleted (D).

    A container is compared with its image, and an image with the one that it was built on, or else with its layers but
    the topmost. With two names, the first is compared with the second. CONTAINER@LABEL is a checkpoint.
    """
    from layerstore.cli import choosing
    from layerstore.cli.checkpoints import compared

    if subject is None and not latest:
        raise click.UsageError("missing argument 'CONTAINER|IMAGE'")
    if latest and base is not None:
        raise click.UsageError("--latest is compared with one container or image, and not with two")
    with arguments.open() as store, ExitStack() as after:
        if latest:
            subject, base = choosing.latest(store).id, subject
        assert subject is not None
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
@click.option("-a", "--author", metavar="NAME", help='Author, such as "Ada <ada@example.org>"')
@click.option(
    "-c",
    "--change",
    "changes",
    metavar="INSTRUCTION",
    multiple=True,
    help="A Dockerfile instruction for the image's config",
)
@click.option("--iidfile", metavar="FILE", type=click.Path(dir_okay=False), help="Write the image's ID to a file")
@click.option("-m", "--message", metavar="TEXT", default="", help="What this image is")
@click.option("-p", "--pause/--no-pause", default=True, help="Let its programs stand still meanwhile (the default)")
@click.option("-q", "--quiet", is_flag=True, help="As it is anyway: only the ID is printed")
@click.option("-f", "--format", "form", type=click.Choice(["oci"]), default="oci", hidden=True, help="As it is anyway")
@click.pass_obj
def commit_command(
    arguments: Arguments,
    *,
    container: str,
    reference: str | None,
    author: str | None,
    changes: tuple[str, ...],
    iidfile: str | None,
    message: str,
    pause: bool,
    quiet: bool,
    form: str,
) -> None:
    """Create an image from a container's changes, and print its ID.

    What the container was made with is the image's: its command, variables, labels, ports, user.
    Programs that run in it stand still for the moment at which what they have written is taken.
    """
    if not pause:
        raise click.UsageError("programs always stand still for the moment of a commit: without that, none is whole")
    from layerstore.runtime import Runtime

    if iidfile is not None:
        require_file(iidfile)
    with arguments.open() as store:
        found = store.container(container)
        config = Runtime(store).run_config(found)
        with written(store, found) as box:
            image = box.commit(reference, message=message, author=author, run_config=config, instructions=changes)
            if iidfile is not None:
                write_file(iidfile, image.id)
            output.lines([image.id])


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.option("--external", is_flag=True, hidden=True, help="As it is anyway")
@click.pass_obj
def exists_command(arguments: Arguments, *, container: str, external: bool) -> int:
    """Whether there is such a container: the exit code is 0, or 1."""
    with arguments.open() as store:
        try:
            store.container(container)
        except NotFound:
            return 1
    return 0


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.argument("name", metavar="NEW_NAME")
@click.pass_obj
def rename_command(arguments: Arguments, *, container: str, name: str) -> None:
    """Rename a container."""
    with arguments.open() as store:
        store.container(container).rename(name)
