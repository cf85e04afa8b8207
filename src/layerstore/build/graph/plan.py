"""From the stages of a Dockerfile to those that a target needs.

A stage stands on its base and takes files from other places (`COPY --from`, `RUN --mount=from=`). Each is an earlier
stage, a named context, `scratch`, or else an image: a name means the first of these that it can. What no other stage of
the target needs is not in the plan. Image bases may bring ONBUILD triggers, which nobody knows before: plan once more
with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
from attrs import field

from layerstore.build.errors import BuildError, Place
from layerstore.build.language.expansion import expand_word
from layerstore.build.language.instructions import Add, Copy, Dockerfile, Instruction, OnBuild, Run, Stage
from layerstore.build.language.likeness import nearest
from layerstore.build.language.reading import with_triggers
from layerstore.build.language.scope import global_args
from layerstore.values import frozen

__all__ = ["Base", "Plan", "PlannedStage", "familiar", "plan"]

SCRATCH = "scratch"


@frozen
class Base:
    """Where files come from. `name` is the image's or the context's as it is written, variables filled in."""

    kind: Literal["image", "stage", "scratch", "context"]
    name: str
    stage: int | None = None
    """The index of the stage, if it is one."""
    platform: str | None = None
    """What FROM asks for; None is the target's."""


@frozen
class PlannedStage:
    """A stage that is needed. `stage` has the triggers of its base in front.

    One whose name is that of a named context is that context, and nothing is done on top.
    """

    stage: Stage
    base: Base
    sources: Mapping[str, Base]
    """What each `--from` and `from=` of it means, by the text that it has there."""
    uses_context: bool
    """Whether it takes anything from the build's context."""

    @property
    def index(self) -> int:
        """Its place in the Dockerfile, from 0."""
        return self.stage.index

    @property
    def needs(self) -> frozenset[int]:
        """The stages that have to be there before it."""
        places = (self.base, *self.sources.values())
        return frozenset(place.stage for place in places if place.stage is not None)


@frozen
class Plan:
    """The stages that the target needs, each behind those that it needs; the last one is the target."""

    dockerfile: Dockerfile
    stages: tuple[PlannedStage, ...]
    target: int
    global_args: Mapping[str, str]
    """What FROM sees (see `global_args` of the language)."""
    names: tuple[str, ...] = field(default=())
    """All names that stages have, for errors about those that nobody has."""

    def __getitem__(self, index: int) -> PlannedStage:
        return next(stage for stage in self.stages if stage.index == index)

    @property
    def images(self) -> tuple[Base, ...]:
        """Every image that is needed, once."""
        places = (place for stage in self.stages for place in (stage.base, *stage.sources.values()))
        return tuple(dict.fromkeys(place for place in places if place.kind == "image"))

    @property
    def uses_context(self) -> bool:
        """Whether the build's context is needed."""
        return any(stage.uses_context for stage in self.stages)


def plan(
    dockerfile: Dockerfile,
    *,
    target: str | None = None,
    build_args: Mapping[str, str] | None = None,
    platform_args: Mapping[str, str] | None = None,
    contexts: Mapping[str, object] | None = None,
    triggers: Mapping[int, Sequence[str]] | None = None,
    everything: bool = False,
) -> Plan:
    """What `target` (the name or number of a stage; None: the last one) needs.

    `contexts` has the names of the named contexts, `platform_args` is as the language makes them, `triggers` what the
    images have as ONBUILD on which the stages of these indexes stand. `everything` plans all stages, needed or not, as
    checks want it. Raises `BuildError` for a target that is not
    there, for stages that need each other, and for those that are named before they begin.
    """
    values = global_args(dockerfile, build_args or {}, platform_args or {})
    names = _Names(dockerfile.stages, contexts or {})
    planned: list[PlannedStage] = []
    for stage in dockerfile.stages:
        base = _base(stage, values, names, dockerfile.escape)
        given: Sequence[str] = (triggers or {}).get(stage.index, ())
        if base.stage is not None:
            given = [each.expression for each in planned[base.stage].stage.instructions if isinstance(each, OnBuild)]
        if stage.name is not None and names.context(stage.name) is not None:
            stage = attrs.evolve(stage, instructions=())  # the context is all of it
        stage = with_triggers(stage, given)
        sources = _sources(stage, names)
        planned.append(PlannedStage(stage, base, sources, _uses_context(stage)))
    _refuse_circles(planned)
    wanted = _target(dockerfile.stages, target)
    needed = frozenset(range(len(planned))) if everything else _needed(planned, wanted)
    _refuse_later(planned, needed)
    known = tuple(stage.name for stage in dockerfile.stages if stage.name)
    return Plan(dockerfile, tuple(planned[index] for index in sorted(needed)), wanted, values, known)


def familiar(name: str) -> str:
    """The short form of an image's name, by which a named context stands in for it."""
    name = name.removeprefix("docker.io/").removeprefix("library/")
    return name.removesuffix(":latest")


@frozen
class _Names:
    """What a name means at a stage."""

    stages: Sequence[Stage]
    contexts: Mapping[str, object]

    def before(self, name: str, index: int) -> int | None:
        """The last stage of that name before `index`."""
        found = [stage.index for stage in self.stages[:index] if stage.name == name.lower()]
        return found[-1] if found else None

    def anywhere(self, name: str, index: int) -> int | None:
        """The same, or else the first one at `index` or behind; a number names a stage, too."""
        if name.isascii() and name.isdecimal() and int(name[:9]) < len(self.stages):
            return int(name)
        if (found := self.before(name, index)) is not None:
            return found
        return next((stage.index for stage in self.stages[index:] if stage.name == name.lower()), None)

    def context(self, name: str) -> str | None:
        """The named context that stands in for a stage or an image."""
        return next((given for given in (name, familiar(name)) if given in self.contexts), None)


def _base(stage: Stage, values: Mapping[str, str], names: _Names, escape: str) -> Base:
    """What a stage stands on. Raises `BuildError` for a name or platform that is blank."""
    place = stage.base.place
    name = _filled(stage.base.image, values, escape, place)
    if not name:
        raise BuildError(
            f"base name ({stage.base.image}) should not be blank",
            place=place,
            remedy="Give the ARG above the first FROM a default, or the build --build-arg.",
        )
    platform = None
    if stage.base.platform is not None:
        platform = _filled(stage.base.platform, values, escape, place)
        if not platform:
            raise BuildError(
                f"empty platform value from expression {stage.base.platform}",
                place=place,
                remedy="Only ARGs above the first FROM, and those of the platform, are known in FROM.",
            )
    if stage.name is not None and (given := names.context(stage.name)) is not None:
        return Base("context", given, platform=platform)
    if (earlier := names.before(name, stage.index)) is not None:
        return Base("stage", name, earlier, platform)
    return _elsewhere(name, names, platform)


def _elsewhere(name: str, names: _Names, platform: str | None = None) -> Base:
    if name == SCRATCH:
        return Base("scratch", name, platform=platform)
    if (given := names.context(name)) is not None:
        return Base("context", given, platform=platform)
    return Base("image", name, platform=platform)


def _filled(text: str, values: Mapping[str, str], escape: str, place: Place) -> str:
    try:
        return expand_word(text, values, escape)
    except ValueError as error:
        raise BuildError(str(error), place=place) from None


def _froms(instruction: Instruction) -> Sequence[str]:
    """The names of other places in an instruction."""
    if isinstance(instruction, Copy):
        return () if instruction.from_ is None else (instruction.from_,)
    if isinstance(instruction, Run):
        return [mount.from_ for mount in instruction.mounts if mount.from_]
    return ()


def _sources(stage: Stage, names: _Names) -> Mapping[str, Base]:
    found: dict[str, Base] = {}
    for instruction in stage.instructions:
        for name in _froms(instruction):
            # A stage that a named context replaces is looked for as a stage: its base is that context.
            at = names.anywhere(name, stage.index)
            if at is None and isinstance(instruction, Copy) and name.isascii() and name.isdecimal():
                raise BuildError(
                    f"invalid stage index {name}",
                    place=instruction.place,
                    remedy=f"The stages are 0 to {len(names.stages) - 1}; names are easier to keep right.",
                )
            found[name] = _elsewhere(name, names) if at is None else Base("stage", name, at)
    return found


def _uses_context(stage: Stage) -> bool:
    for instruction in stage.instructions:
        if isinstance(instruction, Copy | Add) and instruction.from_ is None and instruction.sources:
            return True
        if isinstance(instruction, Run):
            # One with variables may turn out to be another kind; then the context is opened in vain.
            plain = (mount for mount in instruction.mounts if not mount.from_)
            if any(mount.type == "bind" or "$" in mount.type for mount in plain):
                return True
    return False


def _refuse_circles(planned: Sequence[PlannedStage]) -> None:
    """Raise `BuildError` for stages that need each other, at the line that closes the circle."""
    done: set[int] = set()
    for start in range(len(planned)):
        path: list[int] = []
        # Depth first with a stack of our own: a Dockerfile may have more stages than Python has frames.
        stack: list[tuple[int, list[int]]] = [(start, sorted(planned[start].needs))]
        if start in done:
            continue
        path.append(start)
        while stack:
            index, rest = stack[-1]
            if not rest:
                stack.pop()
                path.pop()
                done.add(index)
                continue
            following = rest.pop(0)
            if following in path:
                circle = [*path[path.index(following) :], following]
                shown = " → ".join(planned[each].stage.shown for each in circle)
                raise BuildError(
                    f"circular dependency detected on stage: {planned[following].stage.shown}: {shown}",
                    place=_place_of(planned[index], following),
                    remedy="Put what both need into a stage of its own.",
                )
            if following not in done:
                path.append(following)
                stack.append((following, sorted(planned[following].needs)))


def _refuse_later(planned: Sequence[PlannedStage], needed: frozenset[int]) -> None:
    for index in sorted(needed):
        for other in sorted(planned[index].needs):
            if other > index:
                shown = planned[other].stage.shown
                raise BuildError(
                    f'cannot copy from stage "{shown}", it needs to be defined before current stage '
                    f'"{planned[index].stage.shown}"',
                    place=_place_of(planned[index], other),
                    remedy=f"Move stage {shown} up: it begins below the line that needs it.",
                )


def _place_of(stage: PlannedStage, other: int) -> Place:
    """The line of `stage` that needs stage `other`."""
    for instruction in stage.stage.instructions:
        if any(stage.sources[name].stage == other for name in _froms(instruction)):
            return instruction.place
    return stage.stage.base.place


def _needed(planned: Sequence[PlannedStage], target: int) -> frozenset[int]:
    needed: set[int] = set()
    waiting = [target]
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting += planned[index].needs
    return frozenset(needed)


def _target(stages: Sequence[Stage], target: str | None) -> int:
    if target is None or target == "":
        return len(stages) - 1
    named = [stage.index for stage in stages if stage.name == target.lower()]
    if named:
        return named[-1]
    if target.isascii() and target.isdecimal() and int(target[:9]) < len(stages):
        return int(target)
    names = [stage.name for stage in stages if stage.name]
    like = nearest(target, names)
    remedy = f"Did you mean {like}?" if like else f"There are {', '.join(names)}." if names else "No stage has a name."
    raise BuildError(f'target stage "{target}" could not be found', remedy=remedy)
