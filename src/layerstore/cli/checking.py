"""`check`: what is wrong in a store, how it is repaired, and what goes where that cannot be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import output, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Column, Form, format_option, show_rows
from layerstore.cli.progress import bars

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.check import Problem, Subject
    from layerstore.mending import Doomed

_PROBLEM_COLUMNS: Final[Mapping[str, Column[Problem]]] = {
    "Kind": Column("KIND", lambda problem: problem.kind),
    "Subject": Column("SUBJECT", lambda problem: "" if problem.subject is None else problem.subject.kind),
    "Name": Column("NAME", lambda problem: "" if problem.subject is None else problem.subject.name),
    "Layer": Column("LAYER", lambda problem: problem.layer or ""),
    "Path": Column("PATH", lambda problem: problem.path or ""),
    "Affects": Column("AFFECTS", lambda problem: [str(subject) for subject in problem.affects]),
    "Text": Column("TEXT", lambda problem: problem.text),
}


def _bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    from layerstore.errors import LayerstoreError
    from layerstore.options import size

    try:
        limit = size(value)
    except (LayerstoreError, ValueError) as error:
        raise click.BadParameter(str(error)) from error
    if limit is not None and limit <= 0:
        raise click.BadParameter("it has to be more than nothing")
    return limit


@click.command(cls=Command)
@click.option("--content", is_flag=True, help="Read every file, too, and compare it with what was stored")
@click.option("--rate", metavar="BYTES", callback=_bytes, help="With --content: read no more a second (50m)")
@click.option("--repair", is_flag=True, help="Make damaged layers anew, and remove what was left behind")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="FILE|REMOTE",
    help="With --repair: have layers from this archive, layer's tar or remote first",
)
@click.option("--drop", is_flag=True, help="With --repair: remove what cannot be repaired, with all that stands on it")
@click.option("--dry-run", is_flag=True, help="With --drop: repair nothing, and show what would go if nothing could be")
@click.option("-f", "--force", is_flag=True, help="With --drop: do not ask")
@format_option(rows=True)
@click.pass_obj
def check_command(
    arguments: Arguments,
    *,
    content: bool,
    rate: int | None,
    repair: bool,
    sources: Sequence[str],
    drop: bool,
    dry_run: bool,
    force: bool,
    form: Form,
) -> int:
    """Find what is missing, damaged, foreign or left over: a line each, and exit code 1.

    --repair makes damaged layers anew: of what is left of them and equal files of the store, of what --from names, of
    remotes, and of the registries they came from. What nobody has is named with what stands on it: --drop removes it.
    """
    for name, is_given, needed, is_there in (
        ("--from", bool(sources), "--repair", repair),
        ("--drop", drop, "--repair", repair),
        ("--dry-run", dry_run, "--drop", drop),
        ("--force", force, "--drop", drop),
        ("--rate", rate is not None, "--content", content),
    ):
        if is_given and not is_there:
            raise click.UsageError(f"{name} is of use with {needed} only: give both, or neither.")
    if sources:
        from layerstore.mending.repairing import is_archive

        for source in sources:  # before everything is read, which may take an hour
            is_archive(source)
    with arguments.open() as store:
        with bars("Reading", quiet=not content) as report:
            problems = list(store.check_iter(content=content, progress=report, rate=rate))
        if form.template is None and not form.is_table:
            output.lines(units.one_line(str(problem)) for problem in problems)
        else:
            show_rows(problems, _PROBLEM_COLUMNS, form, "{{.Kind}}\t{{.Name}}\t{{.Path}}\t{{.Text}}")
        if dry_run:
            output.warn(*_doomed_lines(store.doomed(problems)))
        elif repair:
            problems = _repair(store, problems, sources)
            if drop and problems:
                problems = _drop(store, problems, force=force)
    return 1 if problems else 0


def _repair(store: Store, problems: Sequence[Problem], sources: Sequence[str]) -> list[Problem]:
    """Repair what can be, a line for each subject; the problems that are left."""
    left: list[Problem] = []
    told: set[str] = set()
    with bars("Repairing") as report:
        for done in store.repair(problems, sources=sources, progress=report):
            name = str(done.problem.layer or done.problem.path or done.problem.subject)
            if done.error is not None:
                left.append(done.problem)
            if name in told:
                continue
            told.add(name)
            if done.error is None:
                output.warn(f"{name}: {done.how}")
            else:
                output.error(done.error)
                if done.problem.affects:
                    output.warn(f"  It takes {', '.join(map(str, done.problem.affects))}.")
    return left


def _drop(store: Store, problems: Sequence[Problem], *, force: bool) -> list[Problem]:
    """Remove what stands on what could not be repaired, if somebody agrees; the problems that are left."""
    things = store.doomed(problems)
    if not things:
        return list(problems)
    if not force:
        output.warn(*_doomed_lines(things), "")
        if not output.asked("Are you sure you want to continue?"):
            output.error("nothing was removed")
            return list(problems)
    failed: set[Subject] = set()
    for thing, error in store.drop(things):
        if error is None:
            output.lines([f"removed: {thing.subject}"])
        else:
            output.error(error)
            failed.add(thing.subject)
    return [problem for problem in problems if not _is_settled(problem, failed)]


def _is_settled(problem: Problem, failed: Collection[Subject]) -> bool:
    """Is the problem gone when all that stands on it is, but for what could not be removed?"""
    is_removed = problem.kind not in ("foreign", "unknown volume", "garbage", "record", "database")
    return is_removed and problem.subject not in failed and not any(one in failed for one in problem.affects)


def _doomed_lines(things: Iterable[Doomed]) -> list[str]:
    names = [f"  - {thing.subject}" for thing in things]
    return ["WARNING! This will remove:", *names] if names else ["Nothing has to be removed."]
