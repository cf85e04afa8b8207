"""What lines of a Dockerfile take from the build's context, as far as it can be said without carrying them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from layerstore.build.errors import BuildError
from layerstore.build.graph import Plan
from layerstore.build.language.instructions import Add, Copy, Instruction, Run
from layerstore.build.language.scope import Scope

__all__ = ["asked_of_context"]


def asked_of_context(
    plan: Plan, build_args: Mapping[str, str], platform_args: Mapping[str, str]
) -> Iterator[tuple[Sequence[str], bool]]:
    """The sources of each line that takes files from the context, and whether it keeps their parents (`--parents`).

    `build_args` and `platform_args` are those that the plan was made with; what base images define is not known. A line
    that cannot be filled in ends its stage: whoever builds it will say so.
    """
    ends: dict[int, Scope] = {}
    for stage in plan.stages:
        if stage.base.stage is not None:
            scope = ends[stage.base.stage].child()
        else:
            scope = Scope.start(plan.global_args, build_args, platform_args, (), escape=plan.dockerfile.escape)
        for instruction in stage.stage.instructions:
            try:
                filled = scope.expand(instruction)
            except BuildError:
                break
            yield from _asked(filled)
            scope = scope.after(filled)
        ends[stage.index] = scope


def _asked(instruction: Instruction) -> Iterator[tuple[Sequence[str], bool]]:
    if isinstance(instruction, Add | Copy) and instruction.from_ is None and instruction.sources:
        yield instruction.sources, bool(instruction.parents)
    if isinstance(instruction, Run):
        for mount in instruction.mounts:
            if mount.type == "bind" and not mount.from_:
                yield [mount.source or "/"], False
