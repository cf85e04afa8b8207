"""The command `ps`: containers that run or are mounted, or all of them, in docker's columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from layerstore.cli import filters, statuses, units
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command
from layerstore.cli.images import labels_of
from layerstore.cli.listing import Column, Form, format_option, heading_option, label_heading, show_rows

if TYPE_CHECKING:
    from layerstore.containers import Container
    from layerstore.runtime import RunOptions, RunState, Runtime
    from layerstore.store import Store

_LONGEST_MOUNT: Final = 15


class Listed:
    """One line of `ps`. What has to be asked for is asked for when it is shown."""

    def __init__(self, runtime: Runtime, container: Container, run: RunState | None, *, trunc: bool) -> None:
        self.container = container
        self.run = run
        self.trunc = trunc
        self._runtime = runtime

    @cached_property
    def options(self) -> RunOptions:
        """What it is run with."""
        return self._runtime.options(self.container)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What `inspect` says of it."""
        return self._runtime.inspect(self.container)

    @property
    def command(self) -> str:
        """What it runs, quoted as docker does."""
        image = self.container.state.image
        config = image.config.get("config") if image is not None else None
        said = {"Entrypoint": self.options.entrypoint, "Cmd": self.options.args or None}
        if said["Entrypoint"] is not None and said["Cmd"] is None:
            said["Cmd"] = ()  # whoever names an entrypoint does without the image's arguments
        words: list[str] = []
        for key, own in said.items():
            part = own if own is not None else config.get(key) if isinstance(config, Mapping) else None
            words += part if isinstance(part, list | tuple) else [part] if isinstance(part, str) else []
        text = units.one_line(" ".join(words))
        quoted = (units.ellipsis(text, 20) if self.trunc else text).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"'

    @property
    def image(self) -> str:
        """The name of its image; as in docker, one with a digest is cut short at that."""
        name = self.container.image_name
        return name.partition("@")[0] if self.trunc else name

    @property
    def image_id(self) -> str:
        image = self.container.state.image
        return "" if image is None else image.id.removeprefix("sha256:")

    @property
    def size(self) -> str:
        image = self.container.state.image
        own = self.container.usage().size
        return f"{units.size(own)} (virtual {units.size(own + (image.size if image is not None else 0))})"

    @cached_property
    def labels(self) -> dict[str, str]:
        return labels_of(self.container.state.image) | dict(self.options.labels)

    @property
    def health(self) -> str:
        return "" if self.run is None else statuses.health_of(self.run.health)

    @property
    def ports(self) -> str:
        """Published ports, of one that runs."""
        if self.run is None or not self.run.is_running:
            return ""
        return statuses.published((self.facts.get("NetworkSettings") or {}).get("Ports"))

    @cached_property
    def mounts(self) -> list[Mapping[str, Any]]:
        return list(self.facts.get("Mounts") or ())

    @property
    def volume_count(self) -> str:
        return str(sum(mount.get("Type") == "volume" for mount in self.mounts))

    @property
    def mount_names(self) -> str:
        """Names of volumes, and paths of the host, each as much as fits."""
        names = [str(mount.get("Name") or mount.get("Source") or "") for mount in self.mounts]
        return ",".join(units.ellipsis(name, _LONGEST_MOUNT) if self.trunc else name for name in names)


def _second(run: RunState | None, name: Literal["started", "finished"]) -> int:
    """A moment in seconds since the epoch, as podman tells it; 0 for none."""
    moment = None if run is None else run.started if name == "started" else run.finished
    return 0 if moment is None else int(moment.timestamp())


def _nothing() -> object:
    """What templates see of a pointer to nothing."""
    from layerstore.cli.template import NIL

    return NIL


_COLUMNS: Final[Mapping[str, Column[Listed]]] = {
    "ID": Column("CONTAINER ID", lambda line: units.short(line.container.id) if line.trunc else line.container.id),
    "Image": Column("IMAGE", lambda line: line.image),
    "Command": Column("COMMAND", lambda line: line.command),
    "CreatedAt": Column("CREATED AT", lambda line: units.local(line.container.created_at)),
    "RunningFor": Column("CREATED", lambda line: units.ago(line.container.created_at)),
    "Ports": Column("PORTS", lambda line: line.ports),
    "State": Column("STATE", lambda line: statuses.state(line.run, line.container.state)),
    "Status": Column("STATUS", lambda line: statuses.words(line.run, line.container.state)),
    "Names": Column("NAMES", lambda line: line.container.name),
    "Mountpoint": Column("MOUNTPOINT", lambda line: str(line.container.state.mountpoint or "")),
    "Labels": Column("LABELS", lambda line: ",".join(f"{key}={value}" for key, value in sorted(line.labels.items()))),
    "Label": Column(label_heading, lambda line: lambda name: line.labels.get(name, ""), listed=False),
    "Mounts": Column("MOUNTS", lambda line: line.mount_names),
    "LocalVolumes": Column("LOCAL VOLUMES", lambda line: line.volume_count),
    "Networks": Column("NETWORKS", lambda line: line.options.network),
    "HealthStatus": Column("HEALTH STATUS", lambda line: line.health),
    "Platform": Column("PLATFORM", lambda _: _nothing(), listed=False),
    "Size": Column("SIZE", lambda line: line.size, listed=False),
    # podman's names; docker has none of them
    "Id": Column("ID", lambda line: line.container.id, listed=False),
    "ImageID": Column("IMAGE ID", lambda line: line.image_id, listed=False),
    "Created": Column("CREATED", lambda line: units.ago(line.container.created_at), listed=False),
    "CreatedHuman": Column("CREATED", lambda line: units.ago(line.container.created_at), listed=False),
    "Pid": Column("PID", lambda line: line.run.pid if line.run is not None else 0, listed=False),
    "ExitCode": Column("EXIT CODE", lambda line: line.run.exit_code if line.run is not None else 0, listed=False),
    "Exited": Column("EXITED", lambda line: line.run is not None and line.run.status == "exited", listed=False),
    "StartedAt": Column("STARTED", lambda line: _second(line.run, "started"), listed=False),
    "ExitedAt": Column("EXITED", lambda line: _second(line.run, "finished"), listed=False),
    "Pod": Column("POD ID", lambda _: "", listed=False),
    "PodName": Column("PODNAME", lambda _: "", listed=False),
    "Restarts": Column("RESTARTS", lambda _: 0, listed=False),
}
_SIZED_COLUMNS: Final = {**_COLUMNS, "Size": Column("SIZE", _COLUMNS["Size"].value)}
_USUAL: Final = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"


# podman's words, as those of images.
_ORDERS: Final[Mapping[str, Callable[[Listed], Any] | None]] = {
    "created": None,
    "runningfor": None,
    "command": lambda line: line.command,
    "id": lambda line: line.container.id,
    "image": lambda line: line.image,
    "names": lambda line: line.container.name,
    "size": lambda line: line.container.usage().size,
    "status": lambda line: statuses.words(line.run, line.container.state),
}


@click.command(cls=Command)
@click.option("-a", "--all", "all_containers", is_flag=True, help="Show all, not only those that run or are mounted")
@filter_option("-f", "--filter", known=filters.OF_CONTAINERS, verb="Show")
@format_option(rows=True)
@click.option(
    "-n", "--last", metavar="N", type=int, default=-1, help="Show the N that were created last, whatever they do"
)
@click.option("-l", "--latest", is_flag=True, help="Show the one that was created last, whatever it does")
@click.option("--no-trunc", is_flag=True, help="Show whole texts and IDs")
@heading_option()
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.option("-s", "--size", is_flag=True, help="Show sizes")
@click.option("--sort", type=click.Choice([*_ORDERS]), default="created", help="Order of the list (created)")
@click.option("--sync", is_flag=True, hidden=True, help="As it is anyway: what runs is asked each time")
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
    bare: bool,
    quiet: bool,
    size: bool,
    sort: str,
    sync: bool,
) -> None:
    """List containers that run or are mounted, or all of them, newest first."""
    wanted = filters.grouped(given)
    _check(wanted)
    last = 1 if latest else last
    with arguments.open() as store:
        chosen = listed(store, wanted, trunc=not no_trunc)
        if last >= 0:
            chosen = chosen[:last]
        elif not all_containers and not {"status", "exited"} & wanted.keys():
            chosen = [line for line in chosen if statuses.is_shown(line.run, line.container.state)]
        usual = f"{_USUAL}\t{{{{.Size}}}}" if size else _USUAL
        order = _ORDERS[sort]
        ordered = chosen if order is None else sorted(chosen, key=order)
        columns = _SIZED_COLUMNS if size else _COLUMNS
        show_rows(ordered, columns, form, usual, "{{.ID}}" if quiet else None, bare=bare)


def _check(wanted: Mapping[str, list[str]]) -> None:
    for value in wanted.get("status", ()):
        if value not in statuses.STATES:
            raise click.UsageError(f"filter status is one of {', '.join(statuses.STATES)}, not {value!r}")


def listed(store: Store, wanted: Mapping[str, list[str]], *, trunc: bool = False) -> list[Listed]:
    """The containers that pass these filters, newest first, whatever they do."""
    from layerstore.runtime import Runtime

    _check(wanted)
    runtime = Runtime(store)
    fits, runs = _predicate(store, wanted), runtime.states()
    return [
        line
        for container in _shown(store, wanted.get("owner", ()))
        if fits(line := Listed(runtime, container, runs.get(container.id), trunc=trunc))
    ]


def _shown(store: Store, owners: Sequence[str]) -> list[Container]:
    """People's containers; or those that other programs keep here: `build` its caches, `containerd` its snapshots."""
    found = store.containers()
    claims = store.claims() if found else {}
    if owners:
        return [container for container in found if claims.get(container.id) in owners]
    return [container for container in found if container.id not in claims]


def _predicate(store: Store, wanted: Mapping[str, list[str]]) -> Callable[[Listed], bool]:
    """All filters, as one question to a line. What costs little is asked first."""
    before = [store.container(name).created_at for name in wanted.get("before", ())]
    since = [store.container(name).created_at for name in wanted.get("since", ())]
    until = [filters.time("until", value) for value in wanted.get("until", ())]
    ancestors = [store.image(name) for name in wanted.get("ancestor", ())]
    codes = [_code(value) for value in wanted.get("exited", ())]

    def descends(container: Container) -> bool:
        image = container.state.image
        if not ancestors or image is None:
            return not ancestors
        # As docker: from the image itself, or from one built upon it.
        return any(
            image.id == known.id or image.chain_ids[: len(known.chain_ids)] == known.chain_ids for known in ancestors
        )

    def fits(line: Listed) -> bool:
        container = line.container
        return (
            filters.any_of(wanted.get("id", ()), container.id.startswith)
            and filters.any_of(wanted.get("name", ()), lambda value: filters.matches_name(value, container.name))
            and all(container.created_at < bound for bound in (*before, *until))
            and all(container.created_at > bound for bound in since)
            and ("status" not in wanted or bool(statuses.states(line.run, container.state) & {*wanted["status"]}))
            and (not codes or (line.run is not None and line.run.status == "exited" and line.run.exit_code in codes))
            and filters.any_of(wanted.get("health", ()), lambda value: (line.health or "none") == value)
            and descends(container)
            and ("label" not in wanted or filters.has_labels(line.labels, wanted["label"]))
            and filters.any_of(wanted.get("network", ()), lambda value: line.options.network == value)
            and filters.any_of(wanted.get("publish", ()), lambda value: _publishes(line, value))
            and filters.any_of(wanted.get("volume", ()), lambda value: _mounts(line, value))
        )

    return fits


def _code(value: str) -> int:
    if not value.isdigit():
        raise click.UsageError(f"filter exited is an exit code, not {value!r}")
    return int(value)


def _publishes(line: Listed, value: str) -> bool:
    number, _, protocol = value.partition("/")
    return any(str(port.host or "") == number and port.protocol == (protocol or "tcp") for port in line.options.ports)


def _mounts(line: Listed, value: str) -> bool:
    return any(value in (mount.get("Name"), mount.get("Source"), mount.get("Destination")) for mount in line.mounts)
