"""The command `explore`: a look inside, in the terminal."""

from __future__ import annotations

import sys

import click

from layerstore.cli import completion, output
from layerstore.cli.front import Arguments, Command
from layerstore.errors import LayerstoreError


@click.command(cls=Command)
@click.argument("name", metavar="[IMAGE|CONTAINER]", required=False, shell_complete=completion.anything)
@click.pass_obj
def explore_command(arguments: Arguments, *, name: str | None) -> int:
    """Look into an image, a container or a checkpoint (CONTAINER@LABEL), in the terminal.

    On the left are the lines of its history, with what each costs and what of that later lines hide; on the right the
    files as the line under the cursor leaves them: A added, M changed, R removed. Without a name, it is chosen from a
    list. The keys are shown below.
    """
    try:
        from layerstore.explore.app import Explorer
    except ImportError as error:
        raise LayerstoreError(
            f"the view needs the package textual: {error}", remedy="pip install 'layerstore[ui]'"
        ) from error
    if not output.is_terminal() or sys.stdin is None or not sys.stdin.isatty():
        raise LayerstoreError(
            "explore needs a terminal", remedy="For scripts: layerstore advise, why, ls, find, du, each with --format."
        )
    with arguments.open() as store:
        app = Explorer(store, name)
        app.run()
        if app.failure is not None:
            raise app.failure
    return app.return_code or 0
