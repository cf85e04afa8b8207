"""What is told at the end of a build: where it failed, and what was probably not meant."""

from __future__ import annotations

from collections.abc import Sequence

from layerstore.build.errors import BuildError
from layerstore.build.events import Warned
from layerstore.cli import output, units

__all__ = ["report_failure", "report_warnings"]

_TAIL = 25
"""How many lines of a failed program's output are repeated."""


def report_failure(problem: BuildError) -> None:
    """What a program wrote last, the lines of the Dockerfile, the reason, and what can be done."""
    texts: list[str] = []
    if problem.output:
        said = problem.output.decode("utf-8", "replace").removesuffix("\n").split("\n")
        texts += ["------", *said[-_TAIL:], "------"]
    if problem.place is not None:
        texts += problem.place.shown.split("\n")
    output.warn(*texts, f"layerstore: {units.one_line(problem.message)}")
    if problem.remedy is not None:
        output.warn(units.one_line(problem.remedy))


def report_warnings(warnings: Sequence[Warned]) -> None:
    """Each with its rule, the page that explains it, and the lines that it is about."""
    for warning in warnings:
        texts = ["", f"WARNING: {warning.rule} - {warning.url}"] if warning.rule else ["", "WARNING:"]
        texts += warning.message.split("\n")
        if warning.place is not None:
            texts += warning.place.shown.split("\n")
        output.lines(texts)
    if not warnings:
        output.lines(["Check complete, no warnings found."])
    else:
        plural = "s have" if len(warnings) > 1 else " has"
        output.lines(["", f"Check complete, {len(warnings)} warning{plural} been found!"])
