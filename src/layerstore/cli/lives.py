"""Commands on what containers do: start, stop, restart, kill, wait, pause, unpause, rm, init."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import click
from attrs import evolve

from layerstore.cli import output
from layerstore.cli.choosing import Choice, containers_chosen
from layerstore.cli.front import Arguments, Command
from layerstore.cli.run_options import many, one, values
from layerstore.cli.running import OneStepCommand, detach_keys_option, require_terminal, streams, together
from layerstore.errors import LayerstoreError, NotFound

if TYPE_CHECKING:
    from layerstore.containers import Container
    from layerstore.runtime import Runtime


@click.command(cls=OneStepCommand)
@containers_chosen(of_all="still", all_names=("--all",), filter_names=("-f", "--filter"))
@click.option("-a", "--attach", is_flag=True, help="Show its output, pass signals on, and end with its exit code")
@detach_keys_option
@click.option("-i", "--interactive", is_flag=True, help="Give it standard input")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the program (the default)")
@click.pass_obj
def start_command(
    arguments: Arguments,
    *,
    containers: Choice,
    attach: bool,
    detach_keys: str | None,
    interactive: bool,
    sig_proxy: bool,
) -> int:
    """Start one or more containers that do not run."""
    from layerstore.runtime import Runtime

    if not (attach or interactive):
        with arguments.open() as store:
            runtime = Runtime(store)
            return output.each(containers.of(store), lambda name: runtime.start(store.container(name)))
    with arguments.open() as store:
        runtime = Runtime(store)
        names = containers.of(store)
        if len(names) > 1:
            raise LayerstoreError(
                "you cannot start and attach multiple containers at once", remedy="Name one, or leave -a and -i out."
            )
        if not names:
            return 0
        container = store.container(names[0])
        options = runtime.options(container)
        takes_input = interactive and options.interactive
        require_terminal(tty=options.tty, stdin=takes_input)
        return runtime.run(container, streams(stdin=takes_input, detach_keys=detach_keys, signals=sig_proxy))


_stop_signal = one(
    "-s", "--signal", read=values.signal_number, metavar="SIGNAL", text="Signal that asks it to stop (default: its own)"
)
_stop_timeout = one(
    "-t", "--timeout", "--time", read=values.whole, metavar="SECONDS", text="Time to stop before it is killed (10)"
)


@click.command(cls=Command)
@containers_chosen(of_all="alive", files=True, filter_names=("-f", "--filter"), ignore=True)
@_stop_signal
@_stop_timeout
@click.pass_obj
def stop_command(arguments: Arguments, *, containers: Choice, signal: int | None, timeout: int | None) -> int:
    """Ask running containers to stop, and kill those that do not."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        runtime = Runtime(store)
        return together(containers.of(store), lambda name: runtime.stop(store.container(name), timeout, signal=signal))


@click.command(cls=Command)
@containers_chosen(of_all="any", files=True, filter_names=("-f", "--filter"))
@click.option("--running", is_flag=True, help="All containers that run")
@_stop_signal
@_stop_timeout
@click.pass_obj
def restart_command(
    arguments: Arguments, *, containers: Choice, running: bool, signal: int | None, timeout: int | None
) -> int:
    """Stop containers, as `stop` does, and start them again."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        runtime = Runtime(store)

        def again(name: str) -> None:
            container = store.container(name)
            if runtime.options(container).remove and runtime.state(container).is_running:
                raise LayerstoreError(
                    f"container {container.name} was run with --rm, so there is none to start once it has stopped",
                    remedy="Run it without --rm to restart it.",
                )
            runtime.stop(container, timeout, signal=signal)
            runtime.start(container)

        chosen = containers if not running else evolve(containers, all=True, of_all="alive")
        return together(chosen.of(store), again)


@click.command(cls=Command)
@containers_chosen(of_all="alive", files=True)
@one(
    "-s", "--signal", read=values.signal_number, metavar="SIGNAL", default="KILL", text="Signal to send (default: KILL)"
)
@click.pass_obj
def kill_command(arguments: Arguments, *, containers: Choice, signal: int) -> int:
    """Send running containers a signal."""
    return _each(arguments, containers, lambda runtime, container: runtime.kill(container, signal))


@click.command(cls=Command)
@containers_chosen()
@many("--condition", "conditions", read=values.condition, metavar="WORD", text="What is waited for: stopped, exited")
@one("-i", "--interval", metavar="SPAN", text="Taken as podman takes it: here nothing is asked time and again")
@click.pass_obj
def wait_command(arguments: Arguments, *, containers: Choice, conditions: tuple[str, ...], interval: str | None) -> int:
    """Wait until containers have ended, and print their exit codes."""
    from layerstore.runtime import Runtime

    failed = 0
    with arguments.open() as store:
        runtime = Runtime(store)
        for name in containers.of(store):
            try:
                output.lines([str(runtime.wait(store.container(name)))])
                output.flush()
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
    return failed


@click.command(cls=Command)
@containers_chosen(of_all="running", files=True, filter_names=("-f", "--filter"))
@click.pass_obj
def pause_command(arguments: Arguments, *, containers: Choice) -> int:
    """Freeze all processes of containers."""
    return _each(arguments, containers, lambda runtime, container: runtime.pause(container))


@click.command(cls=Command)
@containers_chosen(of_all="paused", files=True, filter_names=("-f", "--filter"))
@click.pass_obj
def unpause_command(arguments: Arguments, *, containers: Choice) -> int:
    """Let all processes of containers go on."""
    return _each(arguments, containers, lambda runtime, container: runtime.unpause(container))


@click.command(cls=Command)
@containers_chosen(  # -l is --link to docker
    latest_names=("--latest",), of_all="any", files=True, filter_names=("--filter",), ignore=True
)
@click.option("-f", "--force", is_flag=True, help="Remove a container although it runs or is mounted")
@one("-t", "--time", "timeout", read=values.whole, metavar="SECONDS", text="With -f: time to stop before it is killed")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes, too")
@click.pass_obj
def rm_command(arguments: Arguments, *, containers: Choice, force: bool, timeout: int | None, volumes: bool) -> int:
    """Remove one or more containers, and all that was written into them."""
    from layerstore.runtime import Runtime

    if timeout is not None and not force:
        raise click.UsageError("--time needs --force: what runs is removed only by that")

    failed = 0
    with arguments.open() as store:
        runtime = Runtime(store)
        for name in containers.of(store):
            try:
                container = store.container(name)
                if timeout is not None:
                    runtime.stop(container, timeout)
                with (
                    suppress(NotFound) if timeout is not None else nullcontext()
                ):  # by --rm it goes when it has stopped
                    runtime.remove(container, force=force, volumes=volumes)
            except LayerstoreError as problem:
                output.error(problem)
                # As in docker, with --force it is no failure that what is to be gone is not there.
                failed = failed or int(not (force and isinstance(problem, NotFound)))
            else:
                output.lines([name])
    return failed


def _each(arguments: Arguments, containers: Choice, work: Callable[[Runtime, Container], object]) -> int:
    """Do something with each container that is meant, and print its name."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        runtime = Runtime(store)
        return output.each(containers.of(store), lambda name: work(runtime, store.container(name)))
