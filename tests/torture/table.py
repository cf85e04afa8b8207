"""The table that a night ends in: points walked, survived, lost, by driver and fault; as markdown, and all in JSON."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from layerstore.bench import machine
from layerstore.testing.torture import KINDS

Row = dict[str, Any]


def write_table(
    folder: Path, rows: Sequence[Row], expected: Sequence[tuple[str, str, str]], every: int, turn: int | None
) -> Path:
    """Write both, named by the day; the path of the markdown. `expected` is all that a whole walk has."""
    facts = machine.facts()
    revisions = sorted({row["revision"] for row in rows})
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    name = folder / f"{day}-torture"
    firsts = sorted({row["first"] for row in rows} & {*range(every)})
    walked = {(row["first"], row["subject"], row["operation"], row["kind"]) for row in rows}
    missing = [(first, *one) for first in firsts for one in expected if (first, *one) not in walked]
    document = {
        "date": day,
        "revisions": revisions,
        "every": every,
        "firsts": firsts,
        "turn": turn,
        "machine": facts,
        "walks": rows,
        "missing": missing,
    }
    name.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [
        "# Whether anything is lost",
        "",
        f"- date: {day}",
        f"- revisions: {', '.join(revisions)}",
        *(f"- {fact}: {value}" for fact, value in facts.items() if fact not in ("tar", "cp", "layerstore")),
        "",
        _extent(len(expected) * len(firsts) - len(missing), len(expected), every, firsts),
        *([] if turn is None else [f"Each call failed with one of its errors (`--turn {turn}`)."]),
        "",
        *_table(rows, expected),
        "",
        *_losses(rows),
    ]
    target = name.with_suffix(".md")
    target.write_text("\n".join(lines))
    return target


def _extent(walked: int, expected: int, every: int, firsts: Sequence[int]) -> str:
    kinds = "walks (an operation, a driver on a filesystem, a kind of fault)"
    if walked == expected * every:
        return f"Whole: all {expected} {kinds}, every point of each."
    if every == 1:
        return f"**Partial**: {walked} of {expected} {kinds}, every point of each. A dash is what was not walked."
    shares = ", ".join(map(str, firsts))
    return (
        f"**Partial**: {walked} of {expected * every} {kinds}, one point of {every}, from the points {shares} on. "
        "A dash is what was not walked."
    )


def _table(rows: Sequence[Row], expected: Iterable[tuple[str, str, str]]) -> list[str]:
    lines = ["| driver | fault | operations | points | survived | lost | minutes |", "| --- " * 7 + "|"]
    for subject in dict.fromkeys(subject for subject, _, _ in expected):
        for kind in KINDS:
            wanted = sum((subject, kind) == (one[0], one[2]) for one in expected)
            mine = [row for row in rows if (row["subject"], row["kind"]) == (subject, kind)]
            if not wanted:
                continue
            points, lost = sum(row["points"] for row in mine), sum(len(row["losses"]) for row in mine)
            minutes = sum(row["seconds"] for row in mine) / 60
            figures = f"{points:,} | {points - lost:,} | {lost} | {minutes:.0f}" if mine else "- | - | - | -"
            operations = len({row["operation"] for row in mine})
            lines.append(f"| {subject} | {kind} | {operations} of {wanted} | {figures} |")
    points, lost = sum(row["points"] for row in rows), sum(len(row["losses"]) for row in rows)
    lines.append(f"| all | | | {points:,} | {points - lost:,} | **{lost}** | |")
    return lines


def _losses(rows: Sequence[Row]) -> list[str]:
    found = [(row, loss) for row in rows for loss in row["losses"]]
    if not found:
        return []
    lines = [f"- {row['subject']}: {row['operation']}, {loss['where']}: {loss['what']}" for row, loss in found]
    return ["What was lost:", "", *(line.replace("\n", " ")[:400] for line in lines), ""]
