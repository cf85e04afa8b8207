"""The command `bench`: drivers against each other on the user's own disk, as a table, as JSON, and as a page."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from layerstore.cli import output
from layerstore.cli.front import Arguments, Command
from layerstore.errors import ConfigError, LayerstoreError, named

if TYPE_CHECKING:
    from layerstore.bench.comparison import Comparison
    from layerstore.bench.results import Results

_NEEDED: Final = ("matplotlib", "jinja2")


@click.command(cls=Command)
@click.argument("folder", metavar="[FOLDER]", required=False, type=click.Path(file_okay=False))
@click.option("--drivers", metavar="LIST", help="Drivers by commas, options by colons: overlay2,aufs:mode=copy")
@click.option(
    "--storage-opt", "storage_opts", metavar="KEY=VALUE", multiple=True, help="An option of one of the drivers"
)
@click.option("--image", metavar="FILE", type=click.Path(exists=True), help="An image archive of yours to work on")
@click.option("--only", metavar="WORKLOAD", multiple=True, help="Measure this only (more than once: these)")
@click.option("--rounds", metavar="N", type=click.IntRange(1, 1000), help="Rounds that count  [default: 5]")
@click.option("--scale", metavar="X", type=click.FloatRange(0.001, 100), help="Size of the made image  [default: 1]")
@click.option("--cache", type=click.Choice(["both", "warm", "cold"]), help="State of the caches  [default: both]")
@click.option("--quick", is_flag=True, help="A first look within a minute: few rounds, a small image, warm only")
@click.option("--seed", metavar="N", type=int, default=1, help="Seed of all that is drawn by chance")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="What to print"
)
@click.option("--report", metavar="FILE.html", type=click.Path(dir_okay=False), help="Write a page with plots")
@click.option("--compare", metavar="OLD.json", type=click.Path(dir_okay=False), help="Show what changed since then")
@click.option(
    "--from",
    "earlier",
    metavar="FILE.json",
    type=click.Path(dir_okay=False),
    help="Show these results, measure nothing",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.pass_obj
def bench_command(
    arguments: Arguments,
    /,
    *,
    folder: str | None,
    report: str | None,
    compare: str | None,
    earlier: str | None,
    form: str,
    quiet: bool,
    **choices: Any,
) -> None:
    """Measure the storage drivers against each other, on the disk of FOLDER.

    FOLDER is a new or an empty folder (default: a new one beside the store); nothing is left in it. What the
    workloads are and how to read the figures is in the report.
    """
    _require_packages()
    from layerstore.bench import comparison as comparing
    from layerstore.bench import results as values

    # What can be wrong is looked at before minutes are spent.
    old = None if compare is None else values.read(Path(compare))
    if report is not None and not Path(report).absolute().parent.is_dir():
        raise ConfigError(f"{Path(report).parent}: no such folder", remedy="Name a report in a folder that exists.")
    results = _measured(arguments, folder, choices, quiet=quiet) if earlier is None else values.read(Path(earlier))
    compared = None if old is None else comparing.compare(old, results)
    if report is not None:
        from layerstore.bench.page import page

        with named("write", report):
            Path(report).write_text(page(results, compared), encoding="utf-8")
    if form == "json":
        output.lines([values.to_json(results)])
    else:
        _show(results, compared)
        if report is not None:
            output.lines(["", f"Report: {report}"])


def _require_packages() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise LayerstoreError(f"bench needs {' and '.join(missing)}, not installed: pip install 'layerstore[bench]'")


def _measured(arguments: Arguments, folder: str | None, choices: dict[str, Any], *, quiet: bool) -> Results:
    from layerstore.bench.running import QUICK, Settings, measure

    values: dict[str, Any] = dict(QUICK) if choices["quick"] else {}
    for name in ("rounds", "scale"):
        if choices[name] is not None:
            values[name] = choices[name]
    if choices["cache"] is not None:
        values["caches"] = ("warm", "cold") if choices["cache"] == "both" else (choices["cache"],)
    settings = Settings(
        drivers=choices["drivers"] or arguments.driver,
        options=(*arguments.options, *choices["storage_opts"]),
        image=None if choices["image"] is None else Path(choices["image"]),
        only=tuple(choices["only"]),
        seed=choices["seed"],
        **values,
    )
    data_root = arguments.read_config().data_root if arguments.root is None else Path(arguments.root)
    with _bar(quiet=quiet) as progress:
        return measure(None if folder is None else Path(folder), data_root, settings, progress)


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """What is being done, on standard error: a bar where somebody watches."""
    if quiet or output.is_quiet():
        yield lambda what, done, steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda what, done, steps: shown.update(
            task, description=output.printable(what), completed=done, total=steps or None
        )


# ---- the table


def _show(results: Results, compared: Comparison | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from layerstore.bench.page import row_title
    from layerstore.bench.results import BARE
    from layerstore.bench.units import ratio_in_words, seconds_in_words, size_in_words

    table = Table(title=Text(_heading(results)), title_justify="left", title_style="bold", header_style="bold")
    table.add_column(Text("median, × bare\n[middle half of the rounds]"))
    table.add_column("cache")
    for subject in results.subjects:
        table.add_column(Text(subject.name), justify="right")
    section = ""
    for key in results.measured():
        if key[0] != section:
            table.add_section()
            section = key[0]
        found = results.at(key)
        best = min((figure.summary.median for name, figure in found.items() if name != BARE), default=None)
        cells = []
        for subject in results.subjects:
            if subject.name not in found:
                cells.append(Text("–", style="dim"))
                continue
            figure = found[subject.name]
            summary, ratio, space = figure.summary, results.ratio(figure), figure.bytes
            text = f"{seconds_in_words(summary.median)}"
            if ratio is not None:
                text += f"  {ratio_in_words(ratio)}"
            style = "bold green" if summary.median == best and len(results.drivers) > 1 else ""
            cell = Text(text, style=style)
            cell.append(f"\n[{seconds_in_words(summary.low)} – {seconds_in_words(summary.high)}]", style="not bold dim")
            if space is not None:
                cell.append(f"\n{size_in_words(space)} of disk", style="not bold dim")
            cells.append(cell)
        table.add_row(Text(row_title(key)), Text(key[2]), *cells)
    console = Console(highlight=False)
    if not console.is_terminal:
        # A file gets what the table needs, whatever the terminal's width.
        console.width = 70 + 34 * len(results.subjects)
    console.print(table)
    output.lines(_remarks(results))
    if compared is not None:
        output.lines(_changes(compared))


def _heading(results: Results) -> str:
    return (
        f"{results.filesystem.get('type', '?')} at {results.filesystem.get('folder', '?')}, Linux "
        f"{results.machine.get('kernel', '?')}, {results.settings.get('rounds', '?')} rounds"
    )


def _remarks(results: Results) -> Iterator[str]:
    yield from results.notes
    for one in results.refused:
        yield f"{one.name} cannot work there: {' '.join(one.reason.split())}"
    for failure in results.failures:
        what = " ".join(part for part in (failure.workload, failure.variant, failure.cache) if part)
        yield f"{failure.subject} could not do {what}: {' '.join(failure.reason.split())}"


def _changes(compared: Comparison) -> Iterator[str]:
    from layerstore.bench.comparison import CHANCE, LEAST_SHIFT, Verdict
    from layerstore.bench.page import row_title
    from layerstore.bench.units import ratio_in_words, seconds_in_words

    yield ""
    yield f"Compared with {compared.old_started}:"
    yield from (f"  {warning}" for warning in compared.warnings)
    for change in compared.real:
        factor = change.factor if change.verdict is Verdict.SLOWER else 1 / change.factor
        yield (
            f"  {change.subject}: {row_title(change.key)}, {change.key[2]}: {change.verdict.value} by "
            f"{ratio_in_words(factor)}, {seconds_in_words(change.old.median)} -> {seconds_in_words(change.new.median)} "
            f"(chance {change.chance:.1g})"
        )
    if not compared.changes:
        yield "  No figure is in both: name the same workloads, caches and drivers"
    counts: Sequence[tuple[Verdict, str]] = (
        (Verdict.NOISE, f"did not change beyond noise (Mann-Whitney, {CHANCE:.0%}; medians {LEAST_SHIFT:.0%} apart)"),
        (Verdict.TOO_FEW, "have too few rounds to tell: five on each side are enough"),
    )
    for verdict, words in counts:
        number = sum(change.verdict is verdict for change in compared.changes)
        if number:
            yield f"  {number} figures {words}"
