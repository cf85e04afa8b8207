"""Commands on what containers do: start, stop, kill, wait, pause, unpause, rm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from layerstore.cli import completion, output
from layerstore.cli.front import Arguments, Command
from layerstore.cli.run_options import one, values
from layerstore.cli.running import OneStepCommand, detach_keys_option, require_terminal, streams, together
from layerstore.errors import LayerstoreError, NotFound

if TYPE_CHECKING:
    from layerstore.containers import Container
    from layerstore.runtime import Runtime

_containers = click.argument(
    "containers", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=completion.containers
)


@click.command(cls=OneStepCommand)
@_containers
@click.option("-a", "--attach", is_flag=True, help="Show its output, pass signals on, and end with its exit code")
@detach_keys_option
@click.option("-i", "--interactive", is_flag=True, help="Give it standard input")
@click.pass_obj
def start_command(
    arguments: Arguments, *, containers: tuple[str, ...], attach: bool, detach_keys: str | None, interactive: bool
) -> int:
    """Start one or more containers that do not run."""
    from layerstore.runtime import Runtime

    if not (attach or interactive):
        with arguments.open() as store:
            runtime = Runtime(store)
            return output.each(containers, lambda name: runtime.start(store.container(name)))
    if len(containers) > 1:
        raise LayerstoreError(
            "you cannot start and attach multiple containers at once", remedy="Name one, or leave -a and -i out."
        )
    with arguments.open() as store:
        runtime = Runtime(store)
        container = store.container(containers[0])
        options = runtime.options(container)
        takes_input = interactive and options.interactive
        require_terminal(tty=options.tty, stdin=takes_input)
        return runtime.run(container, streams(stdin=takes_input, detach_keys=detach_keys, signals=True))


@click.command(cls=Command)
@_containers
@one(
    "-s", "--signal", read=values.signal_number, metavar="SIGNAL", text="Signal that asks it to stop (default: its own)"
)
@one("-t", "--timeout", "--time", read=values.whole, metavar="SECONDS", text="Time to stop before it is killed (10)")
@click.pass_obj
def stop_command(arguments: Arguments, *, containers: tuple[str, ...], signal: int | None, timeout: int | None) -> int:
    """Ask running containers to stop, and kill those that do not."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        runtime = Runtime(store)
        return together(containers, lambda name: runtime.stop(store.container(name), timeout, signal=signal))


@click.command(cls=Command)
@_containers
@one(
    "-s", "--signal", read=values.signal_number, metavar="SIGNAL", default="KILL", text="Signal to send (default: KILL)"
)
@click.pass_obj
def kill_command(arguments: Arguments, *, containers: tuple[str, ...], signal: int) -> int:
    """Send running containers a signal."""
    return _each(arguments, containers, lambda runtime, container: runtime.kill(container, signal))


@click.command(cls=Command)
@_containers
@click.pass_obj
def wait_command(arguments: Arguments, *, containers: tuple[str, ...]) -> int:
    """Wait until containers have ended, and print their exit codes."""
    from layerstore.runtime import Runtime

    failed = 0
    with arguments.open() as store:
        runtime = Runtime(store)
        for name in containers:
            try:
                output.lines([str(runtime.wait(store.container(name)))])
                output.flush()
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
    return failed


@click.command(cls=Command)
@_containers
@click.pass_obj
def pause_command(arguments: Arguments, *, containers: tuple[str, ...]) -> int:
    """Freeze all processes of containers."""
    return _each(arguments, containers, lambda runtime, container: runtime.pause(container))


@click.command(cls=Command)
@_containers
@click.pass_obj
def unpause_command(arguments: Arguments, *, containers: tuple[str, ...]) -> int:
    """Let all processes of containers go on."""
    return _each(arguments, containers, lambda runtime, container: runtime.unpause(container))


@click.command(cls=Command)
@_containers
@click.option("-f", "--force", is_flag=True, help="Remove a container although it runs or is mounted")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes, too")
@click.pass_obj
def rm_command(arguments: Arguments, *, containers: tuple[str, ...], force: bool, volumes: bool) -> int:
    """Remove one or more containers, and all that was written into them."""
    from layerstore.runtime import Runtime

    failed = 0
    with arguments.open() as store:
        runtime = Runtime(store)
        for name in containers:
            try:
                runtime.remove(store.container(name), force=force, volumes=volumes)
            except LayerstoreError as problem:
                output.error(problem)
                # As in docker, with --force it is no failure that what is to be gone is not there.
                failed = failed or int(not (force and isinstance(problem, NotFound)))
            else:
                output.lines([name])
    return failed


def _each(arguments: Arguments, names: tuple[str, ...], work: Callable[[Runtime, Container], object]) -> int:
    """Do something with each container of these names, and print the name."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        runtime = Runtime(store)
        return output.each(names, lambda name: work(runtime, store.container(name)))
