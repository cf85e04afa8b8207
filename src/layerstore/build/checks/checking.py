"""All checks of a Dockerfile, in the order of its lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerstore.build.checks import bases, lines, text
from layerstore.build.checks.rules import RULES
from layerstore.build.checks.settings import settings_of
from layerstore.build.errors import BuildError
from layerstore.build.events import Warned
from layerstore.build.graph import Plan
from layerstore.build.language.instructions import Dockerfile

__all__ = ["check", "refuse"]


def check(
    plan: Plan,
    *,
    build_args: Mapping[str, str] | None = None,
    platform_args: Mapping[str, str] | None = None,
    configs: Mapping[int, Mapping[str, Any]] | None = None,
    platforms: Mapping[int, tuple[str, str]] | None = None,
    ignore: Sequence[str] = (),
) -> list[Warned]:
    """What is probably not meant. `build_args` and `platform_args` are those that the plan was made with.

    `configs` has the run configurations of base images, by the index of the stage on top: without one, what a stage
    has of its base is unknown, and nothing is said about its variables. `platforms` has bases that are for another
    platform than the one that was wanted: wanted and found. `ignore` is what .dockerignore says, line by line.
    Raises `BuildError` for a line that cannot be built, whatever the steps before it do.
    """
    settings = settings_of(plan.dockerfile)
    findings = [
        *text.findings(plan.dockerfile),
        *bases.findings(plan, platform_args or {}, platforms or {}),
        *lines.findings(plan, build_args or {}, configs or {}, ignore),
    ]
    order = {name: number for number, name in enumerate(RULES)}
    findings.sort(key=lambda finding: (finding.place.line, order[finding.rule]))
    return [
        Warned(finding.message, finding.place, finding.rule, RULES[finding.rule].url)
        for finding in dict.fromkeys(findings)
        if settings.with_comments(finding.comments).wants(finding.rule)
    ]


def refuse(dockerfile: Dockerfile, warnings: Sequence[Warned]) -> None:
    """Raise `BuildError` if the file says that what checks find is an error, and they found something."""
    if warnings and settings_of(dockerfile).error:
        rules = ", ".join(dict.fromkeys(warning.rule for warning in warnings))
        raise BuildError(
            f"lint violation found for rules: {rules}",
            place=warnings[0].place,
            remedy="Mend these lines, or take error=true out of # check=.",
        )
