"""The command `build`: an image from a Dockerfile and a context, in docker's words."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from layerstore.cli import output
from layerstore.cli.access import access_taken, platform_taken
from layerstore.cli.building import (
    CHECKS,
    VIEWS,
    build_options_of,
    build_options_taken,
    classic_options_taken,
    failure_record,
    notices,
    report_failure,
    report_warnings,
    view,
)
from layerstore.cli.files import require_file, write_file
from layerstore.cli.front import Arguments, Command
from layerstore.cli.running import streams
from layerstore.errors import LayerstoreError

if TYPE_CHECKING:
    from layerstore.build import BuildOptions

_FILE = click.Path(dir_okay=False)


@click.command(cls=Command)
@click.argument("context", metavar="PATH|URL|-")
@build_options_taken
@classic_options_taken
@click.option("--check", is_flag=True, help="Only check the Dockerfile, and tell what is probably not meant")
@click.option("--iidfile", metavar="FILE", type=_FILE, help="Write the image's ID to a file")
@click.option("--load", is_flag=True, help="Have the image in the store, where it always is")
@click.option("--metadata-file", metavar="FILE", type=_FILE, help="Write what came of it to a file, as JSON")
@click.option("--progress", type=click.Choice(VIEWS), help="How it is shown (default: BUILDKIT_PROGRESS, or auto)")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing of the build, and print the image's ID")
@click.pass_obj
@access_taken()
@platform_taken
def build_command(
    arguments: Arguments,
    /,
    *,
    context: str,
    check: bool,
    iidfile: str | None,
    load: bool,
    metadata_file: str | None,
    progress: str | None,
    quiet: bool,
    **given: Any,
) -> int:
    """Build an image from a Dockerfile.

    COPY and ADD find their files in PATH (a folder or a tar), at a URL (git, a tar, a Dockerfile), or in a tar on
    standard input. Steps whose inputs are what they were are not done again.
    """
    output.warn(*(f"WARNING: {text}" for text in notices(given)))
    shown = "quiet" if quiet else progress or _usual_view()
    options = build_options_of({**given, "file": _file(given["file"], context)})
    for path in (iidfile, metadata_file):
        if path is not None:
            require_file(path)
    try:
        if check or given["call"] in CHECKS:
            return _check(arguments, context, options)
        _build(arguments, context, options, iidfile, metadata_file, shown, quiet=quiet)
    except LayerstoreError as problem:
        from layerstore.build import BuildError

        if shown == "json" and problem.errno != errno.EPIPE:
            output.warn(failure_record(problem))
            return 1
        if not isinstance(problem, BuildError):
            raise
        output.flush()
        report_failure(problem)
        if options.on_failure == "shell" and problem.container is not None and _is_watched():
            _open_shell(arguments, problem.container)
        return 1
    return 0


def _build(
    arguments: Arguments,
    context: str,
    options: BuildOptions,
    iidfile: str | None,
    metadata_file: str | None,
    progress: str,
    *,
    quiet: bool,
) -> None:
    from layerstore.build import build

    with arguments.open() as store:
        with view(progress) as told:
            built = build(store, context, options, progress=told)
        if iidfile is not None:
            write_file(iidfile, built.image.id)
        if metadata_file is not None:
            write_file(metadata_file, json.dumps(built.metadata, indent=2) + "\n")
    if quiet:
        output.lines([built.image.id])


def _usual_view() -> str:
    """What the variable that docker looks at says, if it names a view of ours."""
    name = os.environ.get("BUILDKIT_PROGRESS", "")
    return name if name in VIEWS else "auto"


def _is_watched() -> bool:
    """Whether somebody could type into a shell."""
    return sys.stdin is not None and sys.stdin.isatty() and output.is_terminal()


def _open_shell(arguments: Arguments, name: str) -> None:
    """Let somebody look around in the container in which a program has failed. It stays when the shell ends."""
    from layerstore.runtime import Runtime

    with arguments.open() as store:
        Runtime(store).run(store.container(name), streams(stdin=True, detach_keys=None, signals=True))


def _check(arguments: Arguments, context: str, options: BuildOptions) -> int:
    """1 if anything was found, as docker's."""
    from layerstore.build import check

    with arguments.open() as store:
        warnings = check(store, context, options)
    report_warnings(warnings)
    return 1 if warnings else 0


def _file(file: str | None, context: str) -> str | None:
    """The Dockerfile as the library has it. In docker's words it is relative to where the command is called.

    Within a folder it is told by its path there, which is what errors show; of a remote context it is a path within.
    """
    if file is None or file == "-" or not os.path.isdir(context):
        return file
    within = os.path.relpath(file, context)
    return os.path.abspath(file) if within.startswith("../") else within
