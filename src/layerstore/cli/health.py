"""The command `healthcheck run`: a container's health is checked once, now."""

from __future__ import annotations

import click

from layerstore.cli import completion, output
from layerstore.cli.front import Arguments, Command, Group
from layerstore.cli.running import failed
from layerstore.errors import LayerstoreError

healthcheck_command = Group(
    (("run", "health:run_command", "Run a container's health check once"),),
    name="healthcheck",
    help="Commands on the health of containers",
)


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.pass_obj
def run_command(arguments: Arguments, *, container: str) -> int:
    """Run a container's health check once, and note what it says.

    The exit code is 0 if it says that all is well; 1 if not, with the container's health printed; 125: it was not run.
    """
    from layerstore.runtime import Runtime

    try:
        with arguments.open() as store:
            health = Runtime(store).healthcheck(store.container(container))
    except LayerstoreError as problem:
        return failed(problem, code=125)
    is_well = health["Log"][-1]["ExitCode"] == 0
    if not is_well:
        output.lines([health["Status"]])
    return 0 if is_well else 1
