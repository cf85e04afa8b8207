"""What a Dockerfile's image costs, measured in the image that a build of it makes; and what of its context none of its
lines uses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from attrs import evolve

from layerstore import ImageID, InUse, NotFound, Store, platforms
from layerstore.build import BuildError, BuildOptions, build
from layerstore.build.context import Chosen, Context, ignore_names, open_context
from layerstore.build.events import Told
from layerstore.build.graph import Plan, PlannedStage, plan
from layerstore.build.language import Add, Copy, Instruction, Run, Scope, parse, platform_args
from layerstore.looking.advice import Advice, Finding, Subject, advise, places_of
from layerstore.looking.costs import Payload

__all__ = ["advise_build", "unused"]

_REMEDY = "Name them in .dockerignore: then no build looks at them, or sends them anywhere."
_URL = ("http://", "https://", "git@", "git://", "ssh://")


def advise_build(
    store: Store,
    context: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    least: int = 4096,
    progress: Told | None = None,
    **more: Any,
) -> Advice:
    """What each line of a Dockerfile costs, and what could be saved.

    It is built for that; steps that were built before are not done again. The image goes when it was looked at, unless
    `options` give it a name; what its steps made stays remembered. `context`, `options` and `more` are as for `build`.
    Raises `BuildError`.
    """
    wanted = evolve(options or BuildOptions(), **more)
    before = {image.id for image in store.images()}
    image = build(store, context, wanted, progress=progress).image
    try:
        advice = advise(store, image, least=least)
    finally:
        if image.id not in before and not wanted.tags:
            _remove(store, image.id)
    left = unused(store, context, wanted) if os.path.isdir(context) else None
    findings = advice.findings if left is None or left.bytes < least else (*advice.findings, left)
    title = advice.of if image.tags else os.fspath(context)
    return evolve(advice, of=title, findings=tuple(sorted(findings, key=lambda one: -one.bytes)))


def _remove(store: Store, image: ImageID) -> None:
    with suppress(NotFound, InUse):  # somebody has it by now
        store.remove_image(image)


def unused(store: Store, context: str | os.PathLike[str], options: BuildOptions) -> Finding | None:
    """The files of a context, a folder, that no COPY, ADD or bound mount of the target uses; None if there are none.

    What its ignore file leaves out is no part of it. Raises `BuildError`.
    """
    with open_context(context, store=store, file=options.file, reads_dockerfile=True) as opened:
        text = opened.dockerfile
        assert text is not None  # it was asked for
        host = str(platforms.host())
        known = platform_args(options.platform or host, host, stage=options.target)
        found = plan(
            parse(text.text, text.name),
            target=options.target,
            build_args=options.build_args,
            platform_args=known,
            contexts=options.contexts,
        )
        used = set(_used(store, opened, found, options, known))
        own = {os.fsencode(name) for name in (text.name, *ignore_names(text.name))}
        left = [
            Payload(one.path, 0, one.size)
            for one in opened.tree.listing(b"")
            if not one.is_folder and one.path not in used and one.path not in own
        ]
    if not left:
        return None
    size = sum(one.size for one in left)
    return Finding(Subject.UNUSED, (), size, len(left), places_of(left), "of the context: no line uses it", _REMEDY)


def _used(store: Store, context: Context, found: Plan, options: BuildOptions, known: dict[str, str]) -> Iterator[bytes]:
    """The paths that lines take from the context, those below folders among them."""
    ends: dict[int, Scope] = {}
    for stage in found.stages:
        if stage.base.stage is not None:
            scope = ends[stage.base.stage].child()
        else:
            escape = found.dockerfile.escape
            env = _environment(store, stage)
            scope = Scope.start(found.global_args, options.build_args, known, env, escape=escape)
        for written in stage.stage.instructions:
            instruction = scope.expand(written)
            for chosen in _taken(context, instruction):
                yield chosen.path
                yield from (path for path, _ in chosen.below)
            scope = scope.after(instruction)
        ends[stage.index] = scope


def _environment(store: Store, stage: PlannedStage) -> tuple[str, ...]:
    """What the base of a stage sets, if it is an image of the store."""
    try:
        config = store.image(stage.base.name).config.get("config") if stage.base.kind == "image" else None
    except NotFound:
        config = None
    return tuple((config or {}).get("Env") or ())


def _taken(context: Context, instruction: Instruction) -> list[Chosen]:
    """What one line takes from the context. What is not there has failed its build, and is no question here."""
    with suppress(BuildError):
        if isinstance(instruction, Copy | Add) and not instruction.from_:
            sources = [source for source in instruction.sources if not source.startswith(_URL)]
            return context.choose(sources, parents=instruction.parents, exclude=instruction.exclude)
        if isinstance(instruction, Run):
            bound = [mount.source or "/" for mount in instruction.mounts if mount.type == "bind" and not mount.from_]
            return context.choose(bound)
    return []
