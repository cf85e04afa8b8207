"""What can be seen in the text alone, whatever the variables are: names and how they are spelled, old forms."""

from __future__ import annotations

from collections.abc import Iterator

from layerstore.build.checks.finding import Finding
from layerstore.build.language.instructions import Arg, Dockerfile, From, Instruction, Maintainer

__all__ = ["findings"]

_RESERVED = ("context", "scratch")


def findings(dockerfile: Dockerfile) -> Iterator[Finding]:
    """All of them, in no order."""
    for place in dockerfile.empty_continuations:
        yield Finding("NoEmptyContinuation", place, "an empty line within an instruction")
    yield from _casing(dockerfile)
    names: set[str] = set()
    for stage in dockerfile.stages:
        base = stage.base
        yield from _from(base)
        if stage.name is None:
            continue
        if stage.name in _RESERVED:
            yield Finding.at(
                base, "ReservedStageName", f"{stage.name!r} means something else: name the stage otherwise"
            )
        if stage.name in names:
            yield Finding.at(base, "DuplicateStageName", f"another stage is named {stage.name!r}, too")
        names.add(stage.name)
    for instruction in _all(dockerfile):
        if isinstance(instruction, Maintainer):
            yield Finding.at(
                instruction, "MaintainerDeprecated", "write LABEL org.opencontainers.image.authors=… instead"
            )
        yield from _description(instruction)


def _all(dockerfile: Dockerfile) -> Iterator[Instruction]:
    yield from dockerfile.global_args
    for stage in dockerfile.stages:
        yield stage.base
        yield from stage.instructions


def _from(base: From) -> Iterator[Finding]:
    if base.alias_written is not None and base.alias_written != base.alias:
        yield Finding.at(base, "StageNameCasing", f"stage name {base.alias_written!r} is not in lower case")
    keyword = base.keyword
    mixed = keyword not in (keyword.lower(), keyword.upper())
    same = base.as_written.lower() if keyword.islower() else base.as_written.upper()
    if not mixed and base.as_written != same:
        yield Finding.at(base, "FromAsCasing", f"{keyword!r} and {base.as_written!r} are not of one casing")


def _casing(dockerfile: Dockerfile) -> Iterator[Finding]:
    instructions = [each for stage in dockerfile.stages for each in (stage.base, *stage.instructions)]
    keywords = [each.keyword for each in instructions]
    lower = sum(keyword.islower() for keyword in keywords) > sum(keyword.isupper() for keyword in keywords)
    for instruction, keyword in zip(instructions, keywords, strict=True):
        if keyword != (keyword.lower() if lower else keyword.upper()):
            case = "lower" if lower else "upper"
            yield Finding.at(
                instruction, "ConsistentInstructionCasing", f"{keyword!r}, where most instructions are in {case} case"
            )


def _description(instruction: Instruction) -> Iterator[Finding]:
    """A comment right above an ARG or a named FROM is taken for its description."""
    if isinstance(instruction, From):
        names = [instruction.alias] if instruction.alias else []
    elif isinstance(instruction, Arg):
        names = [argument.name for argument in instruction.arguments]
    else:
        return
    comments = [comment for comment in instruction.comments if not comment.startswith("check=")]
    if names and comments and comments[-1].partition(" ")[0] not in names:
        name = names[0] if len(names) == 1 else "NAME"
        yield Finding.at(
            instruction,
            "InvalidDefinitionDescription",
            f"the comment above does not begin with what it describes: `# {name} …`",
        )
