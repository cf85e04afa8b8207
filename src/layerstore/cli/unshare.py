"""The command that runs another one where an ordinary user's store is opened: unshare."""

from __future__ import annotations

import os

import click

from layerstore.cli import output
from layerstore.cli.front import Arguments, Command
from layerstore.errors import CannotStart, ConfigError


@click.command(cls=Command, context_settings={"allow_interspersed_args": False})
@click.option("--end", is_flag=True, help="End the namespace: what is mounted in it goes with its last process")
@click.argument("command", nargs=-1)
@click.pass_obj
def unshare_command(arguments: Arguments, *, end: bool, command: tuple[str, ...]) -> int:
    """Run COMMAND (by default a shell) in the user namespace of the store, as its root.

    There the mounts of containers are seen, files have the owners that they have in containers, and programs that use
    the library can open the store. For root, and for who is there already, it only runs the command.
    """
    from layerstore import rootless

    if end:
        if command:
            raise ConfigError("--end runs no command", remedy="Leave one of the two out.")
        config = None if arguments.root else arguments.read_config()
        output.lines(["Ended" if rootless.end(arguments.root, config=config) else "There is none"])
        return 0
    arguments.enter()
    words = command or (os.environ.get("SHELL") or "/bin/sh",)
    output.flush()
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise CannotStart(words[0], error.errno or 0) from None
