"""The commands `volume create`, `ls`, `inspect`, `rm` and `prune`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import completion, filters, output, units
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command, Group
from layerstore.cli.listing import Column, Form, format_option, heading_option, label_heading, show_rows
from layerstore.cli.objects import show_each
from layerstore.errors import LayerstoreError, NotFound
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.volumes import Volume

volume_command = Group(
    (
        ("create", "volumes:create_command", "Create a volume"),
        ("exists", "volumes:exists_command", "Whether there is such a volume: the exit code says it"),
        ("inspect", "volumes:inspect_command", "Show all that is known of volumes"),
        ("ls", "volumes:ls_command", "List volumes"),
        ("mount", "volumes:mount_command", "Print the folders of volumes"),
        ("prune", "volumes:prune_command", "Remove volumes that no container uses"),
        ("rm", "volumes:rm_command", "Remove one or more volumes"),
    ),
    name="volume",
    help="Commands on volumes",
)


def _pairs(values: tuple[str, ...], what: str) -> dict[str, str]:
    """`KEY=VALUE` each; a label without a value has an empty one."""
    pairs = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not key or (what == "opt" and not equals):
            raise click.UsageError(f"{what} is KEY=VALUE, not {value!r}")
        pairs[key] = text
    return pairs


@click.command(cls=Command)
@click.argument("name", metavar="[VOLUME]", required=False)
@click.option("-d", "--driver", metavar="NAME", default="local", help="Driver of the volume: local")
@click.option("-l", "--label", "labels", metavar="KEY[=VALUE]", multiple=True, help="A label of the volume")
@click.option("--name", "named", hidden=True, help="The same as VOLUME")
@click.option(
    "-o", "--opt", "options", metavar="KEY=VALUE", multiple=True, help="An option: type, device, o, as of mount; size"
)
@click.pass_obj
def create_command(
    arguments: Arguments,
    *,
    name: str | None,
    driver: str,
    labels: tuple[str, ...],
    named: str | None,
    options: tuple[str, ...],
) -> None:
    """Create a volume and print its name; without a name, one is made up. One that is there stays as it is."""
    if name and named:
        raise click.UsageError("the name is given twice")
    wanted, given = _pairs(labels, "label"), _pairs(options, "opt")
    with arguments.open() as store:
        volume = store.volumes.create(name or named, labels=wanted, driver=driver, options=given)
        output.lines([volume.name])


@frozen
class Listed:
    """One line of `volume ls`. `links`: how many containers use it."""

    volume: Volume
    links: int

    @property
    def labels(self) -> str:
        return ",".join(f"{key}={value}" for key, value in sorted(self.volume.labels.items()))


_COLUMNS: Final[Mapping[str, Column[Listed]]] = {
    "Driver": Column("DRIVER", lambda line: line.volume.driver),
    "Name": Column("VOLUME NAME", lambda line: line.volume.name),
    "Scope": Column("SCOPE", lambda _: "local"),
    "Mountpoint": Column("MOUNTPOINT", lambda line: str(line.volume.mountpoint)),
    "Labels": Column("LABELS", lambda line: line.labels),
    "Label": Column(label_heading, lambda line: lambda name: line.volume.labels.get(name, ""), listed=False),
    "Links": Column("LINKS", lambda line: str(line.links)),
    "Size": Column("SIZE", lambda line: units.size(line.volume.usage().size), listed=False),
    "Status": Column("STATUS", lambda _: "N/A"),
    "Availability": Column("AVAILABILITY", lambda _: "N/A"),
    "Group": Column("GROUP", lambda _: "N/A"),
}


@click.command(cls=Command)
@filter_option("-f", "--filter", known=("dangling", "driver", "label", "name"), verb="Show")
@format_option(rows=True)
@heading_option()
@click.option("-q", "--quiet", is_flag=True, help="Show only names")
@click.pass_obj
def ls_command(
    arguments: Arguments, *, given: tuple[tuple[str, str], ...], form: Form, bare: bool, quiet: bool
) -> None:
    """List volumes, by name."""
    wanted = filters.grouped(given)
    dangling = {filters.truth("dangling", value) for value in wanted.get("dangling", ())}
    fits = _predicate(wanted)
    with arguments.open() as store:
        links = store.volumes.counts()
        found = (Listed(volume, links.get(volume.name, 0)) for volume in store.volumes.all() if fits(volume))
        chosen = [line for line in found if not dangling or (line.links == 0) in dangling]
        show_rows(chosen, _COLUMNS, form, "{{.Driver}}\t{{.Name}}", "{{.Name}}" if quiet else None, bare=bare)


def _predicate(wanted: Mapping[str, list[str]]) -> Callable[[Volume], bool]:
    """The filters but `dangling`, as one question to a volume."""

    def fits(volume: Volume) -> bool:
        return (
            filters.any_of(wanted.get("driver", ()), lambda value: value == volume.driver)
            and filters.any_of(wanted.get("name", ()), lambda value: filters.matches_name(value, volume.name))
            and filters.has_labels(volume.labels, wanted.get("label", ()))
            and not any(filters.has_labels(volume.labels, [label]) for label in wanted.get("label!", ()))
        )

    return fits


_volumes: Final = click.argument("names", metavar="VOLUME...", nargs=-1, shell_complete=completion.volumes)
_all_volumes: Final = click.option("-a", "--all", "each", is_flag=True, help="All volumes")


def _check(names: tuple[str, ...], *, each: bool) -> None:
    if not names and not each:
        raise click.UsageError("missing argument 'VOLUME...'", click.get_current_context())
    if names and each:
        raise click.UsageError("--all needs no volume beside it", click.get_current_context())


@click.command(cls=Command)
@click.argument("name", metavar="VOLUME", shell_complete=completion.volumes)
@click.pass_obj
def exists_command(arguments: Arguments, *, name: str) -> int:
    """Whether there is such a volume: the exit code is 0, or 1."""
    with arguments.open() as store:
        return 0 if any(volume.name == name for volume in store.volumes.all()) else 1


@click.command(cls=Command)
@_volumes
@click.pass_obj
def mount_command(arguments: Arguments, *, names: tuple[str, ...]) -> int:
    """Print the folders of volumes: they can be written to at any time."""
    _check(names, each=False)
    failed = 0
    with arguments.open() as store:
        for name in names:
            try:
                volume = store.volumes.get(name)
                if volume.options.get("device"):
                    raise LayerstoreError(
                        f"volume {name} is {volume.options['device']}, which is mounted where a container uses it",
                        remedy=f"Mount that yourself, or look at it by `layerstore run -v {name}:/mnt`.",
                    )
                output.lines([str(volume.mountpoint)])
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
    return failed


@click.command(cls=Command)
@_volumes
@_all_volumes
@format_option("-f", "--format", rows=False)
@click.pass_obj
def inspect_command(arguments: Arguments, *, names: tuple[str, ...], each: bool, form: Form) -> int:
    """Show all that is known of volumes."""
    _check(names, each=each)
    with arguments.open() as store:
        names = tuple(volume.name for volume in store.volumes.all()) if each else names
        return show_each(names, lambda name: store.volumes.get(name).inspect(), form)


@click.command(cls=Command)
@_volumes
@_all_volumes
@click.option("-f", "--force", is_flag=True, help="A volume that is not there is no error")
@click.pass_obj
def rm_command(arguments: Arguments, *, names: tuple[str, ...], each: bool, force: bool) -> int:
    """Remove one or more volumes, with all that is in them. One that a container uses stays."""
    _check(names, each=each)
    failed = 0
    with arguments.open() as store:
        for name in [volume.name for volume in store.volumes.all()] if each else names:
            try:
                store.volumes.remove(name)
            except NotFound as problem:
                if not force:
                    output.error(problem)
                    failed = 1
                    continue
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
                continue
            output.lines([name])
    return failed


@click.command(cls=Command)
@click.option(
    "-a", "--all", "all_volumes", is_flag=True, help="Remove all unused volumes, not only those without a name"
)
@filter_option("--filter", known=("all", "label", "label!"), verb="Remove")
@click.option("-f", "--force", is_flag=True, help="Do not ask")
@click.pass_obj
def prune_command(arguments: Arguments, *, all_volumes: bool, given: tuple[tuple[str, str], ...], force: bool) -> int:
    """Remove volumes that no container uses: those without a name, or all."""
    wanted = filters.grouped(given)
    for value in wanted.get("all", ()):
        all_volumes = filters.truth("all", value)
    if not force:
        kind = "all" if all_volumes else "anonymous"
        output.warn(f"WARNING! This will remove {kind} local volumes not used by at least one container.")
        if not output.asked("Are you sure you want to continue?"):
            output.error("nothing was removed")
            return 1
    with arguments.open() as store:
        pruned = store.volumes.prune(all=all_volumes, fits=_predicate(wanted))
    if pruned.names:
        output.lines(["Deleted Volumes:", *pruned.names, ""])
    output.lines([f"Total reclaimed space: {units.size(pruned.reclaimed, digits=4)}"])
    return 0
