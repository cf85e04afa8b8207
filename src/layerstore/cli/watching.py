"""Commands that watch containers: logs, attach, top, stats, port."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import output, statuses, units
from layerstore.cli.choosing import Choice, Chosen, container_chosen, containers_chosen
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Column, Form, format_option, rows
from layerstore.cli.run_options import one
from layerstore.cli.running import OneStepCommand, detach_keys_option, require_terminal, streams
from layerstore.cli.table import aligned
from layerstore.errors import NotFound
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.containers import Container
    from layerstore.runtime import Runtime
    from layerstore.runtime.streams.stats import Stats
    from layerstore.store import Store


def _moment(text: str) -> int:
    """The value of `--since` and `--until`, as nanoseconds since the epoch: a time, or a span before now."""
    then = units.until(text)
    if then is None:
        raise ValueError("it is a time (2026-01-31T12:00:00Z) or a span before now (42m)")
    return int((then - datetime.fromtimestamp(0, UTC)).total_seconds() * 1e6) * 1000


def _tail(text: str) -> int | None:
    """The value of `--tail`: how many lines; None for all of them, which is what anything but a number means."""
    return int(text) if text.isascii() and text.isdigit() else None


@click.command(cls=Command)
@container_chosen()
@click.option("-f", "--follow", is_flag=True, help="Go on with what it writes, until it ends")
@one("--since", read=_moment, metavar="TIME", text="Only what was written since: a time, or a span before now (42m)")
@one("-n", "--tail", read=_tail, metavar="N", default="all", text="Only the last N lines")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written")
@one("--until", read=_moment, metavar="TIME", text="Only what was written before")
@click.pass_obj
def logs_command(
    arguments: Arguments,
    *,
    container: Chosen,
    follow: bool,
    since: int | None,
    tail: int | None,
    timestamps: bool,
    until: int | None,
) -> None:
    """Show what a container wrote to its standard output and standard error."""
    from layerstore.runtime import Runtime
    from layerstore.runtime.streams import logs

    with arguments.open() as store:
        written = Runtime(store).logs(container.of(store), since=since, until=until, tail=tail, follow=follow)
        logs.write(written, streams(stdin=False, detach_keys=None, signals=False), timestamps=timestamps)


@click.command(cls=OneStepCommand)
@container_chosen()
@detach_keys_option
@click.option("--no-stdin", is_flag=True, help="Do not give it standard input")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the program (the default)")
@click.pass_obj
def attach_command(
    arguments: Arguments, *, container: Chosen, detach_keys: str | None, no_stdin: bool, sig_proxy: bool
) -> int:
    """Be the terminal, or the standard streams, of a container that runs; the exit code is its program's."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        runtime = Runtime(store)
        found = container.of(store)
        options = runtime.options(found)
        takes_input = options.interactive and not no_stdin
        if runtime.state(found).is_running:  # else that is what is to be told
            require_terminal(tty=options.tty, stdin=takes_input)
        return runtime.attach(found, streams(stdin=takes_input, detach_keys=detach_keys, signals=sig_proxy))


@click.command(cls=Command, context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@container_chosen("ps_options")
@click.argument("ps_options", metavar="[ps OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def top_command(arguments: Arguments, *, container: Chosen, ps_options: tuple[str, ...]) -> None:
    """Show the processes of a container."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        table = Runtime(store).top(container.of(store), ps_options)
    # docker's columns of `top` are 20 wide, whatever is in them.
    lines = ["\t".join(row) for row in (table.titles, *table.rows)]
    output.lines(aligned(lines, narrowest=20))


@frozen
class Taken:
    """One line of `stats`. `stats`: None of a container that does not run."""

    container: Container
    stats: Stats | None
    asked: str
    trunc: bool

    def show(self, text: Callable[[Stats], str], nothing: str) -> str:
        return nothing if self.stats is None else text(self.stats)


_STATS_COLUMNS: Final[Mapping[str, Column[Taken]]] = {
    "Container": Column("CONTAINER", lambda line: line.asked),
    "ID": Column("CONTAINER ID", lambda line: units.short(line.container.id) if line.trunc else line.container.id),
    "Name": Column("NAME", lambda line: line.container.name),
    "CPUPerc": Column("CPU %", lambda line: line.show(lambda stats: f"{stats.cpu:.2f}%", "0.00%")),
    "MemUsage": Column(
        "MEM USAGE / LIMIT",
        lambda line: line.show(
            lambda stats: f"{units.memory(stats.memory)} / {units.memory(stats.memory_limit)}", "0B / 0B"
        ),
    ),
    "MemPerc": Column("MEM %", lambda line: line.show(lambda stats: f"{stats.memory_share:.2f}%", "0.00%")),
    "NetIO": Column(
        "NET I/O",
        lambda line: line.show(lambda stats: f"{units.size(stats.received)} / {units.size(stats.sent)}", "0B / 0B"),
    ),
    "BlockIO": Column(
        "BLOCK I/O",
        lambda line: line.show(lambda stats: f"{units.size(stats.read)} / {units.size(stats.written)}", "0B / 0B"),
    ),
    "PIDs": Column("PIDS", lambda line: line.show(lambda stats: str(stats.pids), "0")),
    "PIDS": Column("PIDS", lambda line: line.show(lambda stats: str(stats.pids), "0"), listed=False),  # podman's
}
_STATS: Final = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"


@click.command(cls=Command)
@containers_chosen(needed=False)
@click.option("-a", "--all", "each", is_flag=True, help="Show all containers, not only those that run")
@format_option(rows=True)
@click.option("-i", "--interval", type=click.IntRange(1), default=1, metavar="SECONDS", help="Time between figures (1)")
@click.option("--no-reset", is_flag=True, help="Do not clear the terminal between figures")
@click.option("--no-stream", is_flag=True, help="Show the figures once, and end")
@click.option("--no-trunc", is_flag=True, help="Show whole IDs")
@click.pass_obj
def stats_command(
    arguments: Arguments,
    *,
    containers: Choice,
    each: bool,
    form: Form,
    interval: int,
    no_reset: bool,
    no_stream: bool,
    no_trunc: bool,
) -> None:
    """Show what containers take of the machine: anew each second, or with --no-stream once."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        runtime = Runtime(store)
        while True:
            names = containers.of(store)
            taken = _taken(store, runtime, names, all_containers=each, trunc=not no_trunc, interval=interval)
            lines = list(rows(taken, _STATS_COLUMNS, form, _STATS))
            if not (no_stream or no_reset) and output.is_terminal():
                output.clear()
            output.lines(lines)
            output.flush()
            if no_stream:
                return


def _taken(
    store: Store, runtime: Runtime, names: tuple[str, ...], *, all_containers: bool, trunc: bool, interval: int
) -> Iterator[Taken]:
    asked = [(name, store.container(name)) for name in names]
    states = runtime.states()
    if not asked:
        asked = [
            (units.short(container.id), container)
            for container in store.containers()
            if all_containers or ((run := states.get(container.id)) is not None and run.is_running)
        ]
    found = runtime.stats((container for _, container in asked), interval=interval)
    for name, container in asked:
        yield Taken(container, found.get(container.id), name, trunc)


@click.command(cls=Command)
@container_chosen("private_port")
@click.argument("private_port", metavar="[PRIVATE_PORT[/PROTO]]", required=False)
@click.pass_obj
def port_command(arguments: Arguments, *, container: Chosen, private_port: str | None) -> None:
    """Show where the ports of a container are published: all of them, or one."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        found = container.of(store)
        settings = Runtime(store).inspect(found).get("NetworkSettings") or {}
        bindings: Mapping[str, list[Mapping[str, str]] | None] = settings.get("Ports") or {}
    if private_port is None:
        output.lines(
            f"{port} -> {statuses.address(bound)}"
            for port, places in sorted(bindings.items())
            for bound in places or ()
        )
        return
    number, _, protocol = private_port.partition("/")
    if not (number.isdigit() and 0 < int(number) <= 0xFFFF):
        raise click.UsageError(f"invalid port: {private_port}")
    places = bindings.get(f"{number}/{protocol or 'tcp'}")
    if not places:
        raise NotFound(
            f"no public port '{private_port}' published for {found.name}",
            remedy=f"`layerstore port {found.name}` shows those that are.",
        )
    output.lines(statuses.address(bound) for bound in places)
