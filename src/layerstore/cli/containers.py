"""Commands on containers: create, ps, mount, umount, diff, commit, rename, rm.

A container of layerstore runs nothing. What docker calls running is, here, mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click
from attrs import frozen

from layerstore.cli import completion, filters, output, units
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command
from layerstore.cli.images import labels_of
from layerstore.cli.listing import Column, Form, format_option, label_heading, show_rows
from layerstore.cli.template import NIL
from layerstore.errors import LayerstoreError, NotFound

if TYPE_CHECKING:
    from layerstore.changes import Change
    from layerstore.containers import Container
    from layerstore.store import Store

_STATES: Final = ("created", "mounted", "unmounted")
# docker's states, in ours. Those of a process that layerstore does not have fit nothing.
_DOCKER_STATES: Final = {"running": "mounted", "exited": "unmounted"}


def _each(names: Iterable[str], work: Callable[[str], object]) -> int:
    """Do something with each name, and print the name; one that fails does not keep the others from it."""
    failed = 0
    for name in names:
        try:
            work(name)
        except LayerstoreError as problem:
            output.error(problem)
            failed = 1
        else:
            output.lines([name])
    return failed


@click.command(cls=Command)
@click.argument("image", required=False, shell_complete=completion.images)
@click.option("--name", help="Name of the container (default: one is made up)")
@click.option(
    "--storage-opt", "options", metavar="size=BYTES", multiple=True, help="Limit what the container may write"
)
@click.pass_obj
def create_command(arguments: Arguments, *, image: str | None, name: str | None, options: tuple[str, ...]) -> None:
    """Create a container on IMAGE, or an empty one to build an image from nothing, and print its ID."""
    size = None
    for option in options:
        key, equals, value = option.partition("=")
        if key != "size" or not equals:
            raise click.UsageError(f"storage-opt of a container is size=BYTES, not {option}")
        size = value
    with arguments.open() as store:
        output.lines([store.create_container(image, name=name, size=size).id])


@frozen
class Listed:
    """One line of `ps`."""

    container: Container
    trunc: bool

    @property
    def command(self) -> str:
        """What the image would run, quoted as docker does."""
        image = self.container.state.image
        config = image.config.get("config") if image is not None else None
        words: list[str] = []
        for key in ("Entrypoint", "Cmd"):
            part = config.get(key) if isinstance(config, Mapping) else None
            words += part if isinstance(part, list) else [part] if isinstance(part, str) else []
        text = units.one_line(" ".join(words))
        quoted = (units.ellipsis(text, 20) if self.trunc else text).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"'

    @property
    def image(self) -> str:
        """The name of its image; as in docker, one with a digest is cut short at that."""
        name = self.container.image_name
        return name.partition("@")[0] if self.trunc else name

    @property
    def size(self) -> str:
        image = self.container.state.image
        own = self.container.usage().size
        return f"{units.size(own)} (virtual {units.size(own + (image.size if image is not None else 0))})"

    @property
    def labels(self) -> dict[str, str]:
        return labels_of(self.container.state.image)


_COLUMNS: Final[Mapping[str, Column[Listed]]] = {
    "ID": Column("CONTAINER ID", lambda line: units.short(line.container.id) if line.trunc else line.container.id),
    "Image": Column("IMAGE", lambda line: line.image),
    "Command": Column("COMMAND", lambda line: line.command),
    "CreatedAt": Column("CREATED AT", lambda line: units.local(line.container.created_at)),
    "RunningFor": Column("CREATED", lambda line: units.ago(line.container.created_at)),
    "Ports": Column("PORTS", lambda _: ""),
    "State": Column("STATE", lambda line: line.container.state.status),
    "Status": Column("STATUS", lambda line: line.container.state.status.capitalize()),
    "Names": Column("NAMES", lambda line: line.container.name),
    "Mountpoint": Column("MOUNTPOINT", lambda line: str(line.container.state.mountpoint or "")),
    "Labels": Column("LABELS", lambda line: ",".join(f"{key}={value}" for key, value in sorted(line.labels.items()))),
    "Label": Column(label_heading, lambda line: lambda name: line.labels.get(name, ""), listed=False),
    # What docker's containers have and ours never do.
    "Mounts": Column("MOUNTS", lambda _: "", listed=False),
    "LocalVolumes": Column("LOCAL VOLUMES", lambda _: "0", listed=False),
    "Networks": Column("NETWORKS", lambda _: "", listed=False),
    "HealthStatus": Column("HEALTH STATUS", lambda _: "", listed=False),
    "Platform": Column("PLATFORM", lambda _: NIL, listed=False),
    "Size": Column("SIZE", lambda line: line.size, listed=False),
}
_SIZED_COLUMNS: Final = {**_COLUMNS, "Size": Column("SIZE", _COLUMNS["Size"].value)}
_USUAL: Final = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"


@click.command(cls=Command)
@click.option("-a", "--all", "all_containers", is_flag=True, help="Show all containers, not only the mounted ones")
@filter_option(
    "-f", "--filter", known=("ancestor", "before", "id", "label", "name", "since", "status", "until"), verb="Show"
)
@format_option(rows=True)
@click.option("-n", "--last", type=int, default=-1, help="Show the N that were created last, mounted or not")
@click.option("-l", "--latest", is_flag=True, help="Show the one that was created last, mounted or not")
@click.option("--no-trunc", is_flag=True, help="Show whole texts and IDs")
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.option("-s", "--size", is_flag=True, help="Show sizes")
@click.pass_obj
def ps_command(
    arguments: Arguments,
    *,
    all_containers: bool,
    given: tuple[tuple[str, str], ...],
    form: Form,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """List containers that are mounted, or all of them, newest first."""
    wanted = filters.grouped(given)
    states = {_state(value) for value in wanted.get("status", ())}
    last = 1 if latest else last
    with arguments.open() as store:
        fits = _predicate(store, wanted)
        containers = [container for container in store.containers() if fits(container)]
        if last >= 0:
            containers = containers[:last]
        elif not all_containers and not states:
            states = {"mounted"}
        chosen = (Listed(box, not no_trunc) for box in containers if not states or box.state.status in states)
        usual = f"{_USUAL}\t{{{{.Size}}}}" if size else _USUAL
        show_rows(chosen, _SIZED_COLUMNS if size else _COLUMNS, form, usual, "{{.ID}}" if quiet else None)


def _state(value: str) -> str:
    state = _DOCKER_STATES.get(value, value)
    if state not in _STATES:
        raise click.UsageError(f"filter status is one of {', '.join(_STATES)}, not {value!r}")
    return state


def _predicate(store: Store, wanted: Mapping[str, list[str]]) -> Callable[[Container], bool]:
    """The filters but status, as one question to a container."""
    before = [store.container(name).created_at for name in wanted.get("before", ())]
    since = [store.container(name).created_at for name in wanted.get("since", ())]
    until = [filters.time("until", value) for value in wanted.get("until", ())]
    ancestors = [store.image(name) for name in wanted.get("ancestor", ())]

    def descends(container: Container) -> bool:
        image = container.state.image
        if not ancestors or image is None:
            return not ancestors
        # As docker: from the image itself, or from one built upon it.
        return any(
            image.id == known.id or image.chain_ids[: len(known.chain_ids)] == known.chain_ids for known in ancestors
        )

    def fits(container: Container) -> bool:
        return (
            filters.any_of(wanted.get("id", ()), container.id.startswith)
            and filters.any_of(wanted.get("name", ()), lambda value: filters.matches_name(value, container.name))
            and all(container.created_at < bound for bound in (*before, *until))
            and all(container.created_at > bound for bound in since)
            and descends(container)
            and ("label" not in wanted or filters.has_labels(labels_of(container.state.image), wanted["label"]))
        )

    return fits


_MOUNT_COLUMNS: Final[Mapping[str, Column[Listed]]] = {
    "ID": _COLUMNS["ID"],
    "Names": _COLUMNS["Names"],
    "Image": _COLUMNS["Image"],
    "Mountpoint": _COLUMNS["Mountpoint"],
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
            return _each([box.name for box, _ in store.mounted()], lambda name: _unmounted(store, name))
        return _each(containers, lambda name: store.container(name).unmount(all=force))


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

    with arguments.open() as store:
        changes = compared(store, subject).changes(None if base is None else compared(store, base))
        if form.template is None and not form.is_table:
            output.lines(map(str, changes))
        else:
            show_rows(changes, _CHANGE_COLUMNS, form, "{{.Kind}}\t{{.Path}}")


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
    """Create an image from a container's changes, and print its ID."""
    with arguments.open() as store:
        image = store.container(container).commit(reference, message=message, author=author, instructions=changes)
        output.lines([image.id])


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.argument("name", metavar="NEW_NAME")
@click.pass_obj
def rename_command(arguments: Arguments, *, container: str, name: str) -> None:
    """Rename a container."""
    with arguments.open() as store:
        store.container(container).rename(name)


@click.command(cls=Command)
@click.argument("containers", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=completion.containers)
@click.option("-f", "--force", is_flag=True, help="Remove a container although it is mounted")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes, too, which no other container uses")
@click.pass_obj
def rm_command(arguments: Arguments, *, containers: tuple[str, ...], force: bool, volumes: bool) -> int:
    """Remove one or more containers, and all that was written into them."""
    with arguments.open() as store:
        return _each(containers, lambda name: store.container(name).remove(force=force, volumes=volumes))
