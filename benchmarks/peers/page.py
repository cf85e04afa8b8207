"""The page: where somebody is better than layerstore and why, the tables, and a plot of each kind of work."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from benchmarks.bench import table
from benchmarks.peers.comparing import IN_PROCESS, OURS, Behind, behind, cell, in_words, lines, share
from benchmarks.peers.measuring import Found
from benchmarks.peers.rows import DISK, Row
from layerstore.bench.plots import Bar, Group, times, toll

_STYLE: Final = """
:root { --paper: #fdfdfc; --ink: #1c2024; --faint: #dfe3e6; --c0: #70777d; --c1: #0b6bb5; --c2: #c65d00; --c3: #168a5c;
  --c4: #b03a86; --c5: #7a5fc0; --c6: #9a7b00; --c7: #b3383c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181b; --ink: #e4e7ea; --faint: #333a40; --c0: #9aa4ad; --c1: #5fb0f2; --c2: #f29a4a;
    --c3: #54c795; --c4: #e787c0; --c5: #b3a0f2; --c6: #dcc04a; --c7: #f28b8e; }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--faint); }
td.worse { color: var(--c7); font-weight: 600; }
svg { width: 100%; max-width: 54rem; display: block; }
"""


@frozen
class Report:
    """All that the page is made of."""

    facts: Mapping[str, str]
    found: Found
    rows: Sequence[Row]
    images: Sequence[str]
    titles: Sequence[str]
    absent: Mapping[str, str]
    """Peer that took no part → why."""
    remarks: Sequence[str]

    @property
    def behind(self) -> list[Behind]:
        """Where a peer is better."""
        return behind(self.found.figures)


HEADING: Final = "Against the peers"


def summary(report: Report) -> list[str]:
    """What stands on top: a line for each kind of work in which a peer is better."""
    if not set(report.titles) - {OURS, IN_PROCESS}:
        return ["Nobody was there to compare with."]
    if not report.found.figures:
        return ["Nothing was measured."]
    return [in_words(one) for one in report.behind] or ["In no row is a peer better."]


def grid(report: Report, image: str) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table of an image."""
    found = report.found
    head = [f"{image}: median (multiple of ours)", *report.titles, "ours : best peer"]
    made = []
    for work, figure in lines(found.figures, image, [row.key for row in report.rows]):
        cells = []
        for title in report.titles:
            text = cell(found.figures, work, figure, image, title)
            cells.append(text or ("failed" if (work, image, title) in found.failures else "-"))
        made.append([f"{work}, {figure}", *cells, share(found.figures, work, figure, image) or "-"])
    return head, made


def top(report: Report) -> str:
    """What stands before the facts about the machine, as Markdown, which follow under a heading of their own."""
    lines_of = "\n".join(f"- {line}" for line in summary(report))
    return f"## Where a peer is better\n\n{lines_of}\n\n## Machine"


def markdown(report: Report) -> str:
    """Everything between the facts about the machine and the remarks."""
    parts = []
    for image in report.images:
        parts += [f"## {image}", table(*grid(report, image))]
    parts += ["## What was done", table(["work", "what"], [[row.key, row.about] for row in report.rows])]
    if missing := _missing(report):
        parts += ["## Who is left out, and what failed", "\n".join(f"- {line}" for line in missing)]
    return "\n\n".join([*parts, "## How"])


def _missing(report: Report) -> list[str]:
    return [
        *(f"{title}: {why}" for title, why in report.absent.items()),
        *(f"{title}, {work}, {image}: {said}" for (work, image, title), said in report.found.failures.items()),
    ]


def page(report: Report) -> str:
    """The same as HTML, with plots."""
    facts = "".join(f"<li>{html.escape(name)}: {html.escape(value)}</li>" for name, value in report.facts.items())
    parts = [
        f"<h1>{HEADING}</h1><h2>Where a peer is better</h2>",
        _list(summary(report)),
        f"<h2>Machine</h2><ul>{facts}</ul>",
    ]
    for image in report.images:
        head, made = grid(report, image)
        parts.append(f"<h2>{html.escape(image)}</h2><div class='wide'>{_table(head, made)}</div>")
        parts += _plots(report, image)
    rows = [[row.key, row.about] for row in report.rows]
    parts.append(f"<h2>What was done</h2>{_table(['work', 'what'], rows)}")
    if missing := _missing(report):
        parts.append(f"<h2>Who is left out, and what failed</h2>{_list(missing)}")
    parts.append(f"<h2>How</h2>{_list(report.remarks)}")
    title = f"{HEADING}, {report.facts['date']}"
    head_of = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    return (
        f"<!doctype html>\n<html lang='en'><head>{head_of}</head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _list(words: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(one)}</li>" for one in words) + "</ul>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(one)}</th>" for one in head)
    body = []
    for row in rows:
        *cells, last = row
        worse = " class='worse'" if last.replace(".", "").isdigit() and float(last) > 1 else ""
        plain = "".join(f"<td>{html.escape(one)}</td>" for one in cells)
        body.append(f"<tr>{plain}<td{worse}>{html.escape(last)}</td></tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _plots(report: Report, image: str) -> list[str]:
    """A plot of each figure: dots at medians, lines over the middle half of the rounds."""
    made = []
    for work, figure in lines(report.found.figures, image, [row.key for row in report.rows]):
        bars = tuple(
            _bar(title, number, amounts)
            for number, title in enumerate([OURS, *(one for one in report.titles if one != OURS)], 1)
            if (amounts := report.found.figures.get((work, figure, image, title)))
        )
        title = f"{image}: {work}, {figure}"
        plot = toll if figure == DISK else times
        made.append(plot([Group(title, bars)], description=title))
    return made


def _bar(title: str, colour: int, amounts: Sequence[float]) -> Bar:
    low, _, high = statistics.quantiles(amounts, n=4, method="inclusive") if len(amounts) > 1 else [amounts[0]] * 3
    return Bar(title, colour, min(amounts), low, statistics.median(amounts), high)
