"""The command `exec`: one more program in a container that runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from layerstore.cli.choosing import Chosen, container_chosen
from layerstore.cli.run_options import many, one, pairs, values
from layerstore.cli.running import OneStepCommand, detach_keys_option, failed, require_terminal, streams
from layerstore.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from layerstore.cli.front import Arguments


@click.command(cls=OneStepCommand, context_settings={"allow_interspersed_args": False})
@container_chosen("args")
@click.argument("args", metavar="COMMAND [ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.option("-d", "--detach", is_flag=True, help="Let it run in the background")
@detach_keys_option
@many("-e", "--env", read=values.variable, metavar="NAME[=VALUE]", text="Set a variable of the environment")
@many("--env-file", "env_files", metavar="FILE", text="Set the variables of a file, a line each")
@click.option("-i", "--interactive", is_flag=True, help="Keep standard input open")
@click.option("--privileged", is_flag=True, help="Take nothing away: all capabilities")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal")
@one("-u", "--user", metavar="USER[:GROUP]", text="User, by name or number")
@one("-w", "--workdir", "working_dir", read=values.working_dir, metavar="PATH", text="Folder in which it starts")
@click.pass_obj
def exec_command(
    arguments: Arguments,
    *,
    container: Chosen,
    args: tuple[str, ...],
    detach: bool,
    detach_keys: str | None,
    env: tuple[str, ...],
    env_files: tuple[str, ...],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str | None,
    working_dir: str | None,
) -> int:
    """Run COMMAND in a container that runs.

    The exit code is the program's; 126: it cannot be executed, 127: it is not there, 1: the container does not run.
    """
    from layerstore.runtime import ExecOptions, Runtime

    if not args:
        raise click.UsageError("missing argument 'COMMAND [ARG...]'")
    require_terminal(tty=tty, stdin=interactive and not detach)
    options = ExecOptions(
        args=args,
        env=pairs.environment([line for path in env_files for line in pairs.read(path, "env file")], env, os.environ),
        working_dir=working_dir or None,
        user=user or None,
        tty=tty,
        interactive=interactive,
        detach=detach,
        privileged=privileged,
    )
    ours = streams(stdin=interactive and not detach, detach_keys=detach_keys, signals=False)
    with arguments.open() as store:
        found = container.of(store)
        try:
            return Runtime(store).exec(found, options, ours)
        except (ConfigError, NotFound) as problem:  # of what it is to be run with: no such user
            return failed(problem, code=126)
