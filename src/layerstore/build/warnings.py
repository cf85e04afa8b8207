"""What is probably not meant in a Dockerfile, told before anything of it is done, or instead of that (`--check`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from attrs import evolve

from layerstore import Image, InvalidReference, NotFound, Store, platforms
from layerstore.build import checks
from layerstore.build.checks import asked_of_context
from layerstore.build.context import Context, Staging, open_context
from layerstore.build.errors import BuildError
from layerstore.build.events import Warned
from layerstore.build.graph import Base, Plan, plan
from layerstore.build.language import parse, platform_args
from layerstore.build.options import BuildOptions
from layerstore.build.steps.session import BuildSession

__all__ = ["check", "warnings_of"]

_IMAGE = "docker-image://"


def warnings_of(
    found: Plan,
    options: BuildOptions,
    platform_args: Mapping[str, str],
    image_of: Callable[[Base], Image | None],
    ignore: Sequence[str],
) -> list[Warned]:
    """What the checks say of a plan. `image_of` gives the image that a base is, or None if it is none, or not here."""
    configs: dict[int, Mapping[str, Any]] = {}
    others: dict[int, tuple[str, str]] = {}
    for stage in found.stages:
        image = None if stage.base.kind in ("stage", "scratch") else image_of(stage.base)
        if image is None:
            continue
        configs[stage.index] = image.config.get("config") or {}
        wanted = platforms.parse(stage.base.platform or platform_args["TARGETPLATFORM"]).usual
        offered = platforms.of({"os": image.os, "architecture": image.architecture, "variant": image.variant}).usual
        if image.architecture and (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
            others[stage.index] = (str(wanted), str(offered))
    return checks.check(
        found,
        build_args=options.build_args,
        platform_args=platform_args,
        configs=configs,
        platforms=others,
        ignore=ignore,
    )


def check(
    store: Store, context: str | os.PathLike[str], options: BuildOptions | None = None, **more: Any
) -> list[Warned]:
    """What is probably not meant in a Dockerfile, of which nothing is done. `context`, `options`, `more` as in `build`.

    All of its stages are looked at, needed or not. Nothing is pulled: of what a base image that is not in the store
    defines nothing is known, and nothing is said. Raises `BuildError` for what could not be built at all.
    """
    wanted = evolve(options or BuildOptions(), **more)
    target = platforms.host() if wanted.platform is None else platforms.parse(wanted.platform)
    values = platform_args(str(target), str(platforms.host()), stage=wanted.target)

    def image_of(base: Base) -> Image | None:
        name = base.name if base.kind == "image" else wanted.contexts[base.name]
        if base.kind == "context" and not name.startswith(_IMAGE):
            return None
        try:
            return store.image(name.removeprefix(_IMAGE))
        except (InvalidReference, NotFound):
            return None

    with ExitStack() as after:
        staging = None
        if not os.path.isdir(context):  # which is read in place; all else has to be put somewhere
            session = after.enter_context(BuildSession(store))
            staging = Staging(session.folder, session.hold)
        opened = after.enter_context(
            open_context(context, store=store, file=wanted.file, reads_dockerfile=True, staging=staging)
        )
        assert opened.dockerfile is not None
        dockerfile = parse(opened.dockerfile.text, opened.dockerfile.name)
        ignore = opened.tree.ignore
        planned = partial(
            plan,
            dockerfile,
            target=wanted.target,
            build_args=wanted.build_args,
            platform_args=values,
            contexts=wanted.contexts,
            everything=True,
        )
        found = planned()
        bases = {stage.index: image_of(stage.base) for stage in found.stages if stage.base.kind in ("image", "context")}
        triggers = {
            index: (image.config.get("config") or {}).get("OnBuild") or () for index, image in bases.items() if image
        }
        found = planned(triggers=triggers)
        warnings = warnings_of(found, wanted, values, image_of, () if ignore is None else ignore.patterns)
        return [*warnings, *_heavy(opened, found, wanted, values, store.config.large_context)]


def _heavy(context: Context, found: Plan, options: BuildOptions, values: Mapping[str, str], limit: int) -> list[Warned]:
    """What there is to say if a build would look at more of its context than `limit`, which is 0 for never."""
    if not limit:
        return []
    tree = context.tree
    for sources, parents in asked_of_context(found, options.build_args, values):
        for source in filter(None, sources):
            with suppress(BuildError):  # whoever builds it will say so
                tree.choose([source], parents=parents)
    return [Warned(tree.told())] if tree.weight.size > limit else []
