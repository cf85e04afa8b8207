"""What FROM names: arguments that nobody declared, platforms that are none of its business."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from layerstore.build.checks.finding import Finding
from layerstore.build.errors import BuildError
from layerstore.build.graph import Plan
from layerstore.build.language.expansion import look
from layerstore.build.language.instructions import Dockerfile, From
from layerstore.build.language.likeness import nearest
from layerstore.build.language.scope import global_args

__all__ = ["findings"]

_TARGET = "TARGETPLATFORM"
_HOST = r"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(rf"{_HOST}{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@\w+:[0-9a-fA-F]{{32,}})?", re.ASCII)


def findings(
    plan: Plan, platform_args: Mapping[str, str], platforms: Mapping[int, tuple[str, str]]
) -> Iterator[Finding]:
    """All of them, in no order (see `check`)."""
    dockerfile = plan.dockerfile
    declared = {argument.name for arg in dockerfile.global_args for argument in arg.arguments}
    for stage in dockerfile.stages:
        yield from _undeclared(stage.base, plan.global_args, declared, dockerfile.escape)
        yield from _platform(stage.base, plan.global_args, dockerfile.escape)
        if stage.index in platforms:
            wanted, found = platforms[stage.index]
            yield Finding.at(
                stage.base,
                "InvalidBaseImagePlatform",
                f"{stage.base.image} is for {found}, where {wanted} was asked for",
            )
    yield from _defaults(dockerfile, platform_args)


def _undeclared(base: From, values: Mapping[str, str], declared: set[str], escape: str) -> Iterator[Finding]:
    names = {*values, *declared}
    for text in (base.image, base.platform or ""):
        try:
            unmatched = look(text, values, escape).unmatched
        except ValueError:
            continue
        for name in sorted(unmatched - names):
            like = nearest(name, names)
            meant = f" (did you mean ${like}?)" if like else ""
            yield Finding.at(base, "UndefinedArgInFrom", f"no ARG above the first FROM declares ${name}{meant}")


def _platform(base: From, values: Mapping[str, str], escape: str) -> Iterator[Finding]:
    if base.platform is None:
        return
    try:
        found = look(base.platform, values, escape)
    except ValueError:
        return
    if found.matched == {_TARGET} and not found.unmatched and found.text == values[_TARGET]:
        yield Finding.at(
            base, "RedundantTargetPlatform", f"{base.platform} is the platform that FROM takes without being told"
        )
    if not found.matched and not found.unmatched:
        parts = found.text.split("/")
        if not any(part and part in (base.alias or "") for part in parts[:2]):
            yield Finding.at(
                base,
                "FromPlatformFlagConstDisallowed",
                f"{found.text!r} is a constant: --platform of the build decides",
            )


def _defaults(dockerfile: Dockerfile, platform_args: Mapping[str, str]) -> Iterator[Finding]:
    """Whether each FROM names an image if the build is given no arguments."""
    try:
        values = global_args(dockerfile, {}, platform_args)
        names = [look(stage.base.image, values, dockerfile.escape).text for stage in dockerfile.stages]
    except (BuildError, ValueError):
        return  # whoever builds it will say so
    stages: set[str | None] = set()
    for stage, name in zip(dockerfile.stages, names, strict=True):
        if name.lower() not in stages and not _IMAGE.fullmatch(name):
            yield Finding.at(
                stage.base,
                "InvalidDefaultArgInFrom",
                f"without --build-arg, {stage.base.image} is {name!r}, which names no image",
            )
        stages.add(stage.name)
