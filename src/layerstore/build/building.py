"""`build`: from a Dockerfile and a context to an image, step by step, without doing again what is known."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from attrs import evolve

from layerstore import Image, InUse, LayerstoreError, NotFound, Store, platforms
from layerstore.build.cache import Cache
from layerstore.build.checks import refuse
from layerstore.build.context import Staging
from layerstore.build.events import Teller, Told, Warned
from layerstore.build.graph import Base, Plan, PlannedStage, plan
from layerstore.build.language import Dockerfile, Scope, begin_config, parse, platform_args
from layerstore.build.lines import places_of, remember
from layerstore.build.options import BuildOptions
from layerstore.build.steps.caches import Caches, keep_within
from layerstore.build.steps.epoch import epoch_of
from layerstore.build.steps.outputs import export
from layerstore.build.steps.requirements import require, require_allowed
from layerstore.build.steps.session import BuildSession, sweep
from layerstore.build.steps.sources import TRANSFER, Sources
from layerstore.build.steps.stage import build_stage, counted
from layerstore.build.steps.stages import Stages
from layerstore.build.steps.state import StageState, config_of, on_image, on_layers, on_nothing
from layerstore.build.steps.stopping import Stop
from layerstore.build.steps.together import together
from layerstore.build.steps.verifying import refusal
from layerstore.build.steps.work import Work
from layerstore.build.warnings import warnings_of
from layerstore.values import frozen
from layerstore.wording import in_words

__all__ = ["Built", "build"]


@frozen
class Built:
    """What came of a build."""

    image: Image
    digest: str | None = None
    """Of the manifest that the first output has which has one: an OCI archive, or what was pushed."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What `--metadata-file` has, in BuildKit's words."""
        found: dict[str, Any] = {"containerimage.config.digest": self.image.id}
        if self.digest is not None:
            found["containerimage.digest"] = self.digest
        if self.image.tags:
            found["image.name"] = ",".join(self.image.tags)
        return found


@in_words("build")
def build(
    store: Store,
    context: str | os.PathLike[str] | None,
    options: BuildOptions | None = None,
    *,
    progress: Told | None = None,
    **more: Any,
) -> Built:
    """Build an image from a Dockerfile.

    `context` is where COPY finds files: a folder, a tar, a URL, a git repository, `-` for standard input; None is
    none. `options` and `more` are what `BuildOptions` has, in docker's words: `tags=["app:1"]`, `target="final"`,
    `build_args={"V": "2"}`. `progress` is told what happens, one event at a time.

    Steps that were done before, here or in another build of this store, are not done again. A build that fails, is
    interrupted or killed leaves nothing but the results of the steps that it has finished.

    Raises `BuildError`, which knows the line; `ConfigError`, `NotFound`, `RegistryError`.
    """
    wanted = evolve(options or BuildOptions(), **_plain(more))
    sweep(store)
    teller = Teller(progress)
    with ExitStack() as after:
        stop = Stop()
        after.callback(stop.close)
        built = _Build(store, context, wanted, teller, stop, after).run()
    keep_within(store, teller)
    return built


def _plain(more: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as the tuples that options have."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in more.items()}


class _Build:
    """One build, of which `after` closes what it opens."""

    def __init__(
        self,
        store: Store,
        context: str | os.PathLike[str] | None,
        options: BuildOptions,
        teller: Teller,
        stop: Stop,
        after: ExitStack,
    ) -> None:
        self._store = store
        self._options = options
        self._teller = teller
        self._stop = stop
        self._context = context
        self._platform = platforms.host() if options.platform is None else platforms.parse(options.platform)
        self._cache = after.enter_context(Cache(store))
        self._caches = Caches(self._cache, options, teller)
        require(options)
        self._session = after.enter_context(BuildSession(store, lambda text: teller.tell(Warned(text))))
        staging = Staging(self._session.folder, self._session.hold, stop.check)
        self._sources = after.enter_context(Sources(store, context, options, str(self._platform), teller, staging))

    def run(self) -> Built:
        dockerfile = self._read()
        found = self._plan(dockerfile)
        self._check(found)
        work = Work(
            store=self._store,
            options=self._options,
            cache=self._cache,
            session=self._session,
            teller=self._teller,
            stop=self._stop,
            sources=self._sources,
            epoch=epoch_of(self._options, dockerfile, self._context),
            turns=threading.Semaphore(max(2, os.cpu_count() or 1)),
        )
        self._caches.use()
        stages = Stages(found, lambda stage: self._stage(work, found, stage), self._stop)
        self._sources.know(stages)
        state = stages.run()
        if work.unequal:
            raise refusal(work.unequal)
        built = self._finish(work, state)
        remember(self._store, built.image.id, self._sources.file, places_of(found))
        return built

    # --- what is asked for

    def _read(self) -> Dockerfile:
        name = self._options.file or "Dockerfile"
        with self._teller.doing(f"[internal] load build definition from {os.path.basename(name)}") as doing:
            found = self._sources.dockerfile()
            size = len(found.text.encode(errors="surrogateescape"))
            doing.progress("transferring dockerfile:", size, size)
            dockerfile = parse(found.text, found.name)
            self._sources.names = tuple(stage.name for stage in dockerfile.stages if stage.name)
        with self._teller.doing("[internal] load .dockerignore") as doing:
            doing.progress(TRANSFER, self._sources.ignore_size, self._sources.ignore_size)
        return dockerfile

    def _plan(self, dockerfile: Dockerfile) -> Plan:
        """The stages that are needed, with the triggers of the images that they stand on."""
        triggers: dict[int, Sequence[str]] = {}
        while True:
            found = plan(
                dockerfile,
                target=self._options.target,
                build_args=self._options.build_args,
                platform_args=self._platform_args,
                contexts=self._options.contexts,
                triggers=triggers,
            )
            unknown = [
                stage for stage in found.stages if self._sources.is_image(stage.base) and stage.index not in triggers
            ]
            bases = {(stage.base.name, stage.base.platform): stage for stage in unknown}
            look = [partial(self._triggers, stage) for stage in bases.values()]
            if look:
                together(look, self._stop, name="layerstore-base")
            new = {stage.index: self._triggers(stage) for stage in unknown}
            triggers |= new
            if not any(new.values()):
                return found

    def _check(self, found: Plan) -> None:
        """Tell what is probably not meant. Raises `BuildError` for what cannot be, and for that if the file says so."""
        places = {id(stage.base): stage.stage.base.place for stage in found.stages}

        def image_of(base: Base) -> Image | None:
            return self._sources.image(base, places[id(base)]) if self._sources.is_image(base) else None

        warnings = warnings_of(found, self._options, self._platform_args, image_of, self._sources.ignored)
        for warning in warnings:
            self._teller.tell(warning)
        refuse(found.dockerfile, warnings)
        require_allowed(found, self._options)

    def _triggers(self, planned: PlannedStage) -> tuple[str, ...]:
        image = self._sources.image(planned.base, planned.stage.base.place)
        return tuple((image.config.get("config") or {}).get("OnBuild") or ())

    @property
    def _platform_args(self) -> dict[str, str]:
        return platform_args(str(self._platform), str(platforms.host()), stage=self._options.target)

    # --- stages

    def _stage(self, work: Work, found: Plan, planned: PlannedStage) -> StageState:
        stage = planned.stage
        prefix = "" if len(found.stages) == 1 else f"{stage.shown} "
        base = planned.base
        if base.kind == "stage":
            assert base.stage is not None
            state = self._sources.stages.state(base.stage)
            state = evolve(state, scope=state.scope.child(), run=begin_config(state.run))
        else:
            state = self._begin(found, planned)
            total = str(counted(planned))
            title = f"[{prefix}{1:{len(total)}}/{total}] FROM {base.name}"
            if base.kind != "scratch":
                with self._teller.doing(title, stage.base.place) as doing:
                    doing.cached = True
        return build_stage(work, planned, state, prefix)

    def _begin(self, found: Plan, planned: PlannedStage) -> StageState:
        """What a stage on an image or on nothing begins as."""
        base, place = planned.base, planned.stage.base.place

        def scope(config: Mapping[str, Any] | None) -> Scope:
            return Scope.start(
                found.global_args,
                self._options.build_args,
                self._platform_args,
                (config or {}).get("Env") or (),
                escape=found.dockerfile.escape,
            )

        if base.kind == "scratch":
            platform = self._platform if base.platform is None else platforms.parse(base.platform)
            return on_nothing(platform.usual.fields, scope(None))
        if not self._sources.is_image(base):  # a folder, which is the whole tree
            origin = self._sources.find(base, place)
            return on_layers(self._store, origin.layers(), self._platform.usual.fields, scope(None))
        image = self._sources.image(base, place)
        return on_image(image, scope(image.config.get("config")))

    # --- the image

    def _finish(self, work: Work, state: StageState) -> Built:
        image = self._add(work, state)
        digests: list[str] = []
        asked_for = bool(image.tags) or any(wanted.kind == "image" for wanted in self._options.outputs)
        try:
            self._caches.give(state.top, self._platform.usual.fields)
            for wanted in self._options.outputs:
                if wanted.kind not in ("image", "cacheonly") or wanted.push:
                    with self._teller.doing(f"exporting to {wanted.kind}"):
                        digest = export(self._session, image, wanted, self._options.tags, self._options.annotations)
                    digests += [] if digest is None else [digest]
        except LayerstoreError as error:
            name = ", ".join(image.tags) or image.id
            what = f"The image is in the store: {name}." if asked_for else "The steps are done, and are remembered."
            error.remedy = what if error.remedy is None else f"{error.remedy}\n{what}"
            raise
        finally:
            if not asked_for:
                with suppress(NotFound, InUse):  # it was asked for elsewhere alone
                    image.remove()
        return Built(image, digests[0] if digests else None)

    def _add(self, work: Work, state: StageState) -> Image:
        options = self._options
        with self._teller.doing("exporting to image") as doing:
            more = self._caches.inline(state.top)
            config = config_of(state, work.told(), work.told_always, labels=options.labels, more=more)
            names = () if options.squash else self._names
            image = self._store.add_image(config, state.top, names, parent=self._parent(state))
            if options.squash:
                image = self._squashed(image, state)
            doing.output("stdout", f"writing image {image.id}\n".encode())
            for tag in image.tags:
                doing.output("stdout", f"naming to {tag}\n".encode())
        return image

    @property
    def _names(self) -> tuple[str, ...]:
        """What the image is called in the store; nothing, where it is not to be there."""
        if all(wanted.kind == "cacheonly" for wanted in self._options.outputs):
            return ()
        named = (name for wanted in self._options.outputs if wanted.kind == "image" for name in wanted.names)
        return tuple(dict.fromkeys((*self._options.tags, *named)))

    def _squashed(self, image: Image, state: StageState) -> Image:
        """The image with the layers of this build as one, in place of itself."""
        found = self._store.squash(image, since=self._parent(state), tags=self._names)
        if found.id != image.id:
            with suppress(NotFound, InUse):  # it may be somebody's: an equal one that was there before
                image.remove()
        return self._store.image(found.id)

    def _parent(self, state: StageState) -> Any:
        """The base image, if it is in the store still."""
        try:
            return None if state.base is None else self._store.image(state.base).id
        except LayerstoreError:
            return None
