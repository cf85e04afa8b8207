"""The commands that look into images and containers: why, advise; and squash, which makes fewer layers of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerstore.cli import completion, output, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Form, format_option, show_object
from layerstore.cli.table import aligned
from layerstore.cli.waiting import tell_waits
from layerstore.errors import LayerstoreError, NotFound, named

if TYPE_CHECKING:
    from layerstore.digest import DiffID
    from layerstore.images import Image
    from layerstore.looking import Advice, Finding, Step, Why, Written
    from layerstore.looking.lines import Line
    from layerstore.store import Store

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
}
_LINE_WIDTH = 80
_SHORTEST = 6


@click.command(cls=Command)
@click.argument("of", metavar="IMAGE|CONTAINER", shell_complete=completion.anything)
@click.argument("path")
@click.option("--no-trunc", is_flag=True, help="Show whole lines and IDs")
@format_option(rows=False)
@click.pass_obj
def why_command(arguments: Arguments, *, of: str, path: str, no_trunc: bool, form: Form) -> None:
    """Show which layer, and which line of its history, a path is from.

    Layers are told from the top, where a path is looked for first: what each does with it, and what it hides of those
    below. Then which package owns it, by the database of dpkg, apk or rpm in the tree.
    """
    from layerstore.looking import why

    with arguments.open() as store:
        tell_waits(store, lambda: _layers_of(store, of))
        found = why(store, of, path)
        if not found.exists and not found.steps and found.written is None:
            raise NotFound(
                f"no layer of {found.of} has {found.path}",
                remedy="A path is one of the image, from its root: `layerstore ls` and `find` show what is there.",
            )
        if form.template is not None:
            show_object(_as_object(found), form)
        else:
            output.lines(_sentences(found, trunc=not no_trunc))


def _layers_of(store: Store, of: str) -> Iterable[DiffID]:
    from layerstore import Container
    from layerstore.looking.origins import named as held_by

    held = held_by(store, of)
    image = held.image if isinstance(held, Container) else held
    return () if image is None else image.layers


@click.command(cls=Command)
@click.argument("of", metavar="IMAGE|PATH", shell_complete=completion.images)
@click.option("-f", "--file", metavar="FILE", help="The Dockerfile in PATH  [default: Dockerfile]")
@click.option("--target", metavar="STAGE", help="The stage to be built")
@click.option("--build-arg", "build_args", metavar="NAME[=VALUE]", multiple=True, help="Set an ARG")
@click.option("--least", metavar="BYTES", default="4k", show_default=True, help="Leave out what saves less than this")
@click.option("--no-trunc", is_flag=True, help="Show whole lines")
@click.option(
    "--report", metavar="FILE.html", type=click.Path(dir_okay=False), help="Write a page with a picture of each layer"
)
@format_option(rows=False)
@click.pass_obj
def advise_command(
    arguments: Arguments,
    *,
    of: str,
    file: str | None,
    target: str | None,
    build_args: tuple[str, ...],
    least: str,
    no_trunc: bool,
    report: str | None,
    form: Form,
) -> int:
    """Show what each line of an image's history costs, and what could be saved.

    It is measured in the layers: bytes that a later line hides, or has once more for other attributes; what programs
    left behind for a next run; RUN lines that could be one. PATH is a folder with a Dockerfile, or a Dockerfile: it is
    built first, as far as it was not before, and files of the folder that no line uses are told as well.
    """
    from layerstore.build import BuildError
    from layerstore.cli.building import report_failure

    if report is not None:
        _require_jinja()
    size = _bytes(least)
    try:
        with arguments.open() as store:
            advice = _advice(store, of, file, target, build_args, size)
    except BuildError as problem:
        report_failure(problem)
        return 1
    if report is not None:
        from layerstore.looking.page import page

        with named("write", report):
            Path(report).write_text(page(advice), encoding="utf-8")
    if form.template is not None:
        show_object(_advice_as_object(advice), form)
    else:
        output.lines(_advised(advice, trunc=not no_trunc))
        if report is not None:
            output.lines(["", f"Report: {report}"])
    return 0


def _bytes(text: str) -> int:
    from layerstore import options

    try:
        return options.size(text) or 0
    except ValueError as wrong:
        raise click.BadParameter(f"{text} is not {wrong}", param_hint="--least") from None


def _advice(
    store: Store, of: str, file: str | None, target: str | None, build_args: tuple[str, ...], least: int
) -> Advice:
    from layerstore.looking import advise, advise_build

    if file is None and target is None and not build_args and not of.startswith((".", "/")):
        try:
            tell_waits(store, lambda: _layers_of(store, of))
            return advise(store, of, least=least)
        except NotFound:
            if not os.path.exists(of):
                raise
    from layerstore.build import BuildOptions
    from layerstore.cli.building import values, view

    if not os.path.isdir(of) and file is None:
        of, file = os.path.dirname(of) or ".", of
    try:
        variables = values.arguments(build_args, os.environ)
    except ValueError as wrong:
        raise click.BadParameter(str(wrong), param_hint="--build-arg") from None
    options = BuildOptions(file=file, target=target, build_args=variables)
    with view("auto") as told:
        return advise_build(store, of, options, least=least, progress=told)


@click.command(cls=Command)
@click.argument("image", shell_complete=completion.images)
@click.option("--from", "since", metavar="IMAGE|LAYER", help="Keep what is up to here: an image below, or one layer")
@click.option("-t", "--tag", "tags", metavar="NAME", multiple=True, help="What the new image is called")
@click.pass_obj
def squash_command(arguments: Arguments, *, image: str, since: str | None, tags: tuple[str, ...]) -> None:
    """Make an image whose layers are one, and print its ID.

    It has the same tree, configuration and history. With --from, the layers up to there stay as they are, and are
    shared with other images as before; LAYER is the beginning of one's ID, as `history --layers` shows it.
    """
    from layerstore.build.lines import inherit

    with arguments.open() as store:
        found = store.image(image)
        until = None if since is None else _layer_of(found, since) or since
        tell_waits(store, lambda: _merged(store, found, until))
        made = store.squash(found, since=until, tags=tags)
        inherit(store, made.id, found.id)
        output.lines([made.id])


def _merged(store: Store, image: Image, until: str | None) -> Sequence[DiffID]:
    """The layers of an image that become one: none where that is nothing new, or where `squash` says what is wrong."""
    kept: int | None = 0
    if until is not None:
        names = zip(image.chain_ids, image.layers, strict=True)
        kept = next((number for number, both in enumerate(names, 1) if until in both), None)
    if kept is None:
        try:
            below = store.image(until or "").chain_ids
        except LayerstoreError:
            return ()
        if below != image.chain_ids[: len(below)]:
            return ()
        kept = len(below)
    merged = image.layers[kept:]
    return merged if len(merged) > 1 else ()


def _layer_of(image: Image, text: str) -> str | None:
    """The layer of an image that an ID, or the beginning of one, means."""
    digits = text.removeprefix("sha256:")
    if len(digits) < _SHORTEST:
        return None
    return next((layer for layer in image.layers if layer.partition(":")[2].startswith(digits)), None)


def _require_jinja() -> None:
    import importlib.util

    if importlib.util.find_spec("jinja2") is None:
        raise LayerstoreError(
            "a report needs jinja2, which is not installed", remedy="Install it: pip install 'layerstore[bench]'"
        )


def _advised(advice: Advice, *, trunc: bool) -> Iterator[str]:
    yield from aligned(_costs(advice, trunc=trunc), narrowest=5)
    yield ""
    yield (
        f"{units.size(advice.bytes)} in all layers of {advice.of}, of which {units.size(advice.shown)} show; "
        f"{units.size(advice.saved)} can be saved"
    )
    for finding in advice.findings:
        yield ""
        yield from _finding(finding, trunc=trunc)


def _costs(advice: Advice, *, trunc: bool) -> Iterator[str]:
    timed = any(cost.seconds is not None for cost in advice.costs)
    yield "#\tBYTES\tFILES\tLOST\t" + ("TIME\t" if timed else "") + "LINE"
    for cost in advice.costs:
        cells = [str(cost.line.number)]
        if cost.line.level is None:
            cells += ["-", "-", "-"]
        else:
            cells += [units.size(cost.bytes), str(cost.files), units.size(cost.lost) if cost.lost else "-"]
        if timed:
            cells.append("-" if cost.seconds is None else f"{cost.seconds:.1f}s")
        yield "\t".join((*cells, _named_line(cost.line, trunc=trunc)))


def _named_line(line: Line, *, trunc: bool) -> str:
    text = output.printable(str(line))
    notes = [part for part in (line.base, output.printable(line.where)) if part]
    return (units.ellipsis(text, _LINE_WIDTH) if trunc else text) + (f" [{', '.join(notes)}]" if notes else "")


def _finding(finding: Finding, *, trunc: bool) -> Iterator[str]:
    saved = units.size(finding.bytes)
    if finding.layers:
        saved += f" and {finding.layers} layer{'s' * (finding.layers > 1)}"
    where = output.printable(" ".join(finding.places))
    numbers = ", ".join(f"#{line.number}" for line in finding.lines)
    if finding.layers:
        yield f"{saved}: {numbers} {finding.text}" + (f": {where}" if where else "")
    else:
        files = f"{finding.files} file{'s' * (finding.files != 1)}"
        yield f"{saved}: {where} ({files}) {finding.text}"
        for line in finding.lines:
            yield f"    #{line.number} {_named_line(line, trunc=trunc)}"
    yield f"    {finding.remedy}"


def _advice_as_object(advice: Advice) -> dict[str, Any]:
    return {
        "Of": advice.of,
        "Bytes": advice.bytes,
        "Shown": advice.shown,
        "Saved": advice.saved,
        "Lines": [
            {
                "Number": cost.line.number,
                "Line": cost.line.text,
                "Base": cost.line.base,
                "Dockerfile": cost.line.file or None,
                "DockerfileLines": None if cost.line.place is None else list(cost.line.place),
                "Layer": cost.line.diff_id,
                "Bytes": cost.bytes,
                "Files": cost.files,
                "Lost": cost.lost,
                "Seconds": cost.seconds,
            }
            for cost in advice.costs
        ],
        "Findings": [
            {
                "Subject": finding.subject.value,
                "Lines": [line.number for line in finding.lines],
                "Bytes": finding.bytes,
                "Files": finding.files,
                "Layers": finding.layers,
                "Places": list(finding.places),
                "Text": finding.text,
                "Remedy": finding.remedy,
            }
            for finding in advice.findings
        ],
    }


def _sentences(found: Why, *, trunc: bool) -> Iterator[str]:
    yield f"{output.printable(found.path)} of {found.of}: {_looks(found)}"
    for link, target in found.found.links:
        yield output.printable(f"  by way of /{os.fsdecode(link)} -> {os.fsdecode(target)}")
    if found.written is not None:
        yield f"  {_in_container(found.of, found.written)}"
    if found.steps:
        yield ""
        yield from aligned(_table(found, trunc=trunc))
    said = list(_packages(found))
    yield from ("", *said) if said else ()


def _looks(found: Why) -> str:
    facts = found.found.facts
    if facts is None:
        return "is not there"
    parts = [_KINDS.get(stat.S_IFMT(facts.st_mode), "thing of no known kind")]
    if stat.S_ISREG(facts.st_mode):
        parts.append(units.size(facts.st_size))
    if not stat.S_ISLNK(facts.st_mode):
        parts.append(f"mode {stat.S_IMODE(facts.st_mode):04o}")
    parts.append(f"owner {facts.st_uid}:{facts.st_gid}")
    if found.changed is not None:
        parts.append(f"changed {units.rfc3339(found.changed)}")
    return ", ".join(parts)


def _in_container(name: str, written: Written) -> str:
    when = {
        (True, True): f"between the checkpoints {written.after} and {written.checkpoint}",
        (True, False): f"after the checkpoint {written.after}",
        (False, True): f"before the checkpoint {written.checkpoint}",
    }.get((written.after is not None, written.checkpoint is not None), "")
    words = " ".join(part for part in (written.deed.value, f"in the container {name}", when) if part)
    return words + (f": {', '.join(written.differs)}" if written.differs else "")


def _table(found: Why, *, trunc: bool) -> Iterator[str]:
    known = any(step.line.where for step in found.steps)
    yield "LAYER\tWHAT\tHIDES\tCREATED\t" + ("FROM\t" if known else "") + "LINE"
    for step in found.steps:
        line = output.printable(str(step.line))
        layer = "" if step.line.level is None else str(step.line.level + 1)
        created = step.line.created[:19].replace("T", " ")
        shown = units.ellipsis(line, _LINE_WIDTH) if trunc else f"{line} ({step.line.diff_id})"
        base = f" [{step.line.base}]" if step.line.base else ""
        where = f"{output.printable(step.line.where or '-')}\t" if known else ""
        yield f"{layer}\t{_what(step)}\t{_hides(step)}\t{created}\t{where}{shown}{base}"


def _what(step: Step) -> str:
    words = step.deed.value
    if step.entry is not None and step.entry.target:
        words += f", a hard link to /{output.printable(os.fsdecode(step.entry.target))}"
    if step.by is not None:
        words += f" with /{output.printable(os.fsdecode(step.by))}"
    return words + (f": {', '.join(step.differs)}" if step.differs else "")


def _hides(step: Step) -> str:
    if not step.hides:
        return "-"
    return units.size(step.hides_bytes) if step.hides == 1 else f"{step.hides} names, {units.size(step.hides_bytes)}"


def _packages(found: Why) -> Iterator[str]:
    packages = found.packages
    yield from packages.unread
    if packages.owners:
        shown = [str(owner) for owner in packages.owners[:5]]
        more = len(packages.owners) - len(shown)
        yield output.printable(f"Of the package{'s' * (len(packages.owners) > 1)} {', '.join(shown)}") + (
            f" and {more} more" if more else ""
        )
    elif packages.databases and not packages.unread:
        yield f"Of no package that {' or '.join(packages.databases)} knows"


def _as_object(found: Why) -> dict[str, Any]:
    facts = found.found.facts
    written = found.written
    return {
        "Of": found.of,
        "Path": found.path,
        "Exists": found.exists,
        "Links": [
            {"Path": f"/{os.fsdecode(link)}", "Target": os.fsdecode(target)} for link, target in found.found.links
        ],
        "Kind": None if facts is None else _KINDS.get(stat.S_IFMT(facts.st_mode)),
        "Size": None if facts is None else facts.st_size,
        "Mode": None if facts is None else f"{stat.S_IMODE(facts.st_mode):04o}",
        "Changed": None if found.changed is None else found.changed.isoformat(),
        "Written": None
        if written is None
        else {
            "What": written.deed.name.lower(),
            "Differs": list(written.differs),
            "After": written.after,
            "Before": written.checkpoint,
        },
        "Layers": [
            {
                "Layer": step.line.diff_id,
                "Number": None if step.line.level is None else step.line.level + 1,
                "Line": step.line.text,
                "LineNumber": step.line.number,
                "Dockerfile": step.line.file or None,
                "DockerfileLines": None if step.line.place is None else list(step.line.place),
                "Created": step.line.created,
                "Base": step.line.base,
                "What": step.deed.name.lower(),
                "Differs": list(step.differs),
                "By": None if step.by is None else f"/{os.fsdecode(step.by)}",
                "Hides": step.hides,
                "HidesBytes": step.hides_bytes,
            }
            for step in found.steps
        ],
        "Packages": [
            {
                "Manager": owner.manager,
                "Name": owner.name,
                "Version": owner.version,
                "Architecture": owner.architecture,
                "Note": owner.note,
            }
            for owner in found.packages.owners
        ],
        "Unread": list(found.packages.unread),
    }
