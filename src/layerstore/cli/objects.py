"""The command `inspect`: all that is known of an image or container, as docker's JSON or by a template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import click

from layerstore.cli import choosing, completion, output
from layerstore.cli.choosing import latest_option
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Form, format_option
from layerstore.cli.template import as_json
from layerstore.errors import InvalidReference, LayerstoreError, NotFound

if TYPE_CHECKING:
    from layerstore.containers import Container
    from layerstore.images import Image
    from layerstore.store import Store


@click.command(cls=Command)
@click.argument("names", metavar="NAME|ID...", nargs=-1, shell_complete=completion.anything)
@format_option("-f", "--format", rows=False)
@latest_option
@click.option("-s", "--size", is_flag=True, help="Show the sizes of containers")
@click.option(
    "-t", "--type", "kind", type=click.Choice(["all", "container", "image", "volume"]), help="Look among these only"
)
@click.pass_obj
def inspect_command(
    arguments: Arguments, *, names: tuple[str, ...], form: Form, latest: bool, size: bool, kind: str | None
) -> int:
    """Show all that is known of containers, images and volumes, with the directories of their layers."""
    group = click.get_current_context().parent
    if kind is None and group is not None and group.info_name in ("container", "image"):
        kind = group.info_name  # `image inspect` finds images only
    if not names and not latest:
        raise click.UsageError("missing argument 'NAME|ID...'")
    kind = None if kind == "all" else kind
    with arguments.open() as store:
        if latest:
            names = (*names, choosing.latest(store).id)
        return show_each(names, lambda name: _inspected(store, name, kind, size=size), form)


def show_each(names: Iterable[str], inspect: Callable[[str], Mapping[str, object]], form: Form) -> int:
    """Show what `inspect` tells of each name; of those of which it can tell nothing, why. The exit code."""
    subjects: list[Mapping[str, object]] = []
    problems: list[LayerstoreError] = []
    for name in names:
        try:
            subjects.append(inspect(name))
        except LayerstoreError as problem:
            problems.append(problem)
    if form.template is None or form.is_json:
        output.lines([as_json(subjects, indent=None if form.is_json else 4)])
    else:
        from layerstore.cli.shapes import inspected

        output.lines(form.template.render(inspected(value)) for value in subjects)
    for failure in problems:
        output.error(failure)
    return 1 if problems else 0


def _inspected(store: Store, name: str, kind: str | None, *, size: bool) -> Mapping[str, object]:
    from layerstore.containers import Container

    if kind == "volume":
        return store.volumes.get(name).inspect()
    try:
        subject = found(store, name, kind)
    except NotFound as problem:
        if kind is not None:
            raise
        try:
            return store.volumes.get(name).inspect()
        except NotFound:
            raise problem from None
    return _of_container(store, subject, size=size) if isinstance(subject, Container) else subject.inspect()


def _of_container(store: Store, container: Container, *, size: bool) -> Mapping[str, object]:
    """What the runtime knows of it; of one that it has not started, the core's word for what it is."""
    from layerstore.cli import statuses
    from layerstore.runtime import Runtime

    runtime = Runtime(store)
    facts = runtime.inspect(container, size=size)
    word = statuses.state(runtime.state(container), container.state)
    return {**facts, "State": {**facts["State"], "Status": word}}


def found(store: Store, name: str, kind: str | None = None) -> Container | Image:
    """The container of that name before the image, as docker looks; `kind`: container or image only."""
    if kind != "image":
        try:
            return store.container(name)
        except NotFound:
            if kind == "container":
                raise
    try:
        return store.image(name)
    except (NotFound, InvalidReference) as problem:
        if kind == "image":
            raise
        raise no_such(name, problem) from None


def no_such(name: str, problem: NotFound | InvalidReference) -> NotFound:
    """The error for what is neither a container nor an image. `problem`: why it is no image."""
    return NotFound(f"no such object: {name}", remedy=problem.remedy if isinstance(problem, NotFound) else None)
