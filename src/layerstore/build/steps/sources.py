"""What the names in a Dockerfile mean in this build: images, stages, contexts.

Each is looked up once, when somebody needs it first, and told of then.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from layerstore import Ambiguous, Image, LayerstoreError, NotFound, Store
from layerstore.build.context import Context, Staging, Text, Tree, open_context
from layerstore.build.errors import BuildError, Place
from layerstore.build.events import Doing, Teller, Warned
from layerstore.build.graph import Base, familiar
from layerstore.build.language import nearest
from layerstore.build.options import BuildOptions
from layerstore.build.steps.origins import Files, LayerOrigin, Origin
from layerstore.build.steps.stages import Stages
from layerstore.build.steps.together import Once

__all__ = ["TRANSFER", "Sources"]

TRANSFER = "transferring context:"
"""BuildKit's words for what is read of a context. Here it is read where it lies."""

_PIECE = 1 << 20
"""Bytes that are read between two words about it."""

_IMAGE = "docker-image://"
_LAYOUT = "oci-layout://"


class Sources:
    """See the module's text. A context manager; any thread of the build may use it."""

    def __init__(
        self,
        store: Store,
        context: str | os.PathLike[str] | None,
        options: BuildOptions,
        platform: str,
        teller: Teller,
        staging: Staging,
    ) -> None:
        self._store = store
        self._given = context
        self._options = options
        self._platform = platform
        self._teller = teller
        self._staging = staging
        self._images: Once[tuple[str, str], Image] = Once()
        self._files: Once[str | None, Files] = Once()
        self._lock = threading.Lock()
        self._after = ExitStack()
        self._stages: Stages | None = None
        self.names: tuple[str, ...] = ()
        """Those of the stages, for errors about names that mean nothing."""
        self._own: Context | None = None
        self._heavy: list[Tree] = []
        self._was_read = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._after.close()

    def know(self, stages: Stages) -> None:
        """The stages of the build, now that there are any."""
        self._stages = stages

    @property
    def stages(self) -> Stages:
        """The stages of the build."""
        assert self._stages is not None
        return self._stages

    def find(self, base: Base | None, place: Place) -> Origin:
        """Where files come from that are copied or bound; None is the build's context."""
        if base is None:
            return self._context()
        if base.kind == "stage":
            assert base.stage is not None
            return LayerOrigin(self._store, self.stages.state(base.stage).top, f"stage {base.name}")
        if base.kind == "scratch":
            return LayerOrigin(self._store, None, "scratch")
        if base.kind == "context" and not self._is_image(base):
            return self._named(base.name)
        return LayerOrigin(self._store, self.image(base, place).chain_id, f"image {base.name}")

    # --- contexts

    def _context(self) -> Origin:
        """The build's own."""
        own = self._own
        if own is None:
            raise BuildError("there is no build context", remedy="Name a folder: layerstore build PATH.")
        return self._files.get(None, lambda: Files(self._store, own, self._staging.hold, self._weigh, self._reading))

    def _named(self, name: str) -> Origin:
        """One of those that were given a name."""
        return self._files.get(name, lambda: self._opened(name))

    def _opened(self, name: str) -> Files:
        self._staging.check()  # whoever was waited for may have been told to end
        with ExitStack() as after:
            opened = open_context(
                self._options.contexts[name], store=self._store, name=f"context {name}", staging=self._staging
            )
            files = Files(self._store, after.enter_context(opened), self._staging.hold, self._weigh)
            with self._lock:
                self._after.push(after.pop_all())
            return files

    @contextmanager
    def _reading(self) -> Iterator[Callable[[int], object]]:
        """Tell what of the build's context has to be read: the first time that it is asked for, and whenever any is."""
        with self._lock:
            is_first, self._was_read = not self._was_read, True
        done = shown = 0
        told: Doing | None = None
        with ExitStack() as after:

            def read(size: int) -> None:
                nonlocal done, shown, told
                if told is None:
                    told = after.enter_context(self._teller.doing("[internal] load build context"))
                done += size
                if done - shown >= _PIECE:  # not of each of many small files
                    shown = done
                    told.progress(TRANSFER, done, None)

            if is_first:
                read(0)
            yield read
            if told is not None:
                told.progress(TRANSFER, done, done)

    def _weigh(self, tree: Tree) -> None:
        """Tell once of a context of which more is looked at than people mean as a rule."""
        limit = self._store.config.large_context
        if limit and tree.weight.size > limit:
            with self._lock:
                if tree in self._heavy:
                    return
                self._heavy.append(tree)
            self._teller.tell(Warned(tree.told()))

    def dockerfile(self) -> Text:
        """The Dockerfile; with it, the build's context is opened."""
        if self._given is None:
            raise BuildError("there is no build context", remedy="Name a folder: layerstore build PATH.")
        opened = open_context(
            self._given, store=self._store, file=self._options.file, reads_dockerfile=True, staging=self._staging
        )
        self._own = self._after.enter_context(opened)
        assert self._own.dockerfile is not None
        return self._own.dockerfile

    @property
    def file(self) -> str:
        """The Dockerfile as people know it: its path on this machine, if it is a file there."""
        assert self._own is not None
        assert self._own.dockerfile is not None
        name = self._own.dockerfile.name
        if self._options.file is not None and os.path.isfile(self._options.file):
            return os.path.abspath(self._options.file)
        if self._own.folder is not None:
            return os.path.join(self._own.folder, name)
        return f"{os.fspath(self._given or '')}:{name}"

    @property
    def ignore_size(self) -> int:
        """The bytes of what says what is no part of the build's context; 0 if nothing does."""
        ignore = None if self._own is None else self._own.tree.ignore
        return 0 if ignore is None else ignore.size

    @property
    def ignored(self) -> tuple[str, ...]:
        """The patterns of what is no part of the build's context."""
        ignore = None if self._own is None else self._own.tree.ignore
        return () if ignore is None else tuple(ignore.patterns)

    # --- images

    def is_image(self, base: Base) -> bool:
        """Does it mean an image?"""
        return base.kind == "image" or (base.kind == "context" and self._is_image(base))

    def _is_image(self, base: Base) -> bool:
        return self._options.contexts[base.name].startswith((_IMAGE, _LAYOUT))

    def image(self, base: Base, place: Place) -> Image:
        """The image of a name: the store's own, or a registry's. Raises `BuildError`."""
        name = base.name if base.kind == "image" else self._options.contexts[base.name]
        platform = base.platform or self._platform
        try:
            return self._images.get((name, platform), lambda: self._get(name, platform))
        except LayerstoreError as error:
            raise BuildError(
                f"{base.name}: failed to resolve source metadata: {error.message}",
                place=place,
                remedy=error.remedy if base.kind == "context" else self._meant(base.name) or error.remedy,
            ) from error

    def _meant(self, name: str) -> str | None:
        """What somebody may have meant who names an image that is not to be had."""
        like = nearest(name, (*self.names, *self._options.contexts))
        if like is not None:
            return f"Did you mean {like}? No stage or context is named {name}, so it names an image."
        like = nearest(familiar(name), (familiar(tag) for image in self._store.images() for tag in image.tags))
        if like is None or like == familiar(name):
            return None
        return f"Did you mean {like}? The store has no image {name}, so a registry was asked."

    def _get(self, name: str, platform: str) -> Image:
        self._staging.check()  # whoever was waited for may have been told to end
        if name.startswith(_LAYOUT):
            with self._teller.doing(f"[internal] load metadata for {name}"):
                return self._of_layout(name.removeprefix(_LAYOUT), platform)
        name = name.removeprefix(_IMAGE)
        title = f"[internal] load metadata for {name}"
        if not self._options.pull:
            try:
                found = self._store.image(name)
            except NotFound:
                pass
            else:
                if _fits(found, platform):
                    with self._teller.doing(title) as doing:
                        doing.cached = True
                    return found
        with self._teller.doing(title) as doing:

            def progress(what: str, done: int, total: int | None) -> None:
                self._staging.check()
                doing.progress(what, done, total)

            return self._store.pull(name, platform=platform, progress=progress)

    def _of_layout(self, text: str, platform: str) -> Image:
        """The image of a folder: `FOLDER[:TAG][@DIGEST]`. Without either it is the only one, or else `latest`."""
        rest, at, digest = text.partition("@sha256:")
        folder, _, tag = rest.partition(":")
        wanted = f"sha256:{digest}" if at else tag
        if not wanted and os.path.isdir(folder):
            try:
                with self._store.look_into(folder, platform=platform):
                    pass
            except Ambiguous:
                try:
                    return self._loaded(folder, "latest", platform)
                except NotFound:
                    pass
                raise
        return self._loaded(folder, wanted, platform)

    def _loaded(self, folder: str, wanted: str, platform: str) -> Image:
        found = self._store.load(folder, only=(wanted,) if wanted else (), platform=platform)
        if len(found) > 1:
            raise Ambiguous(
                f"{folder} has {len(found)} images", remedy=f"Say which is meant: {_LAYOUT}{folder}:TAG, or @DIGEST."
            )
        return found[0]


def _fits(image: Image, platform: str) -> bool:
    """Is it made for what is asked for? One that says nothing is taken for it."""
    from layerstore import platforms

    if not image.architecture:
        return True
    offered = platforms.of({"os": image.os, "architecture": image.architecture, "variant": image.variant})
    return platforms.rank(platforms.parse(platform), offered) is not None
