"""What the names in a Dockerfile mean in this build: images, stages, contexts.

Each is looked up once, when somebody needs it first, and told of then.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import Self

from layerstore import Image, LayerstoreError, NotFound, Store
from layerstore.build.errors import BuildError, Place
from layerstore.build.events import Teller
from layerstore.build.graph import Base
from layerstore.build.options import BuildOptions
from layerstore.build.steps.origins import FolderOfHost, Layers, Origin
from layerstore.build.steps.stages import Stages

__all__ = ["Sources"]

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
    ) -> None:
        self._store = store
        self._given = context
        self._options = options
        self._platform = platform
        self._teller = teller
        self._images: dict[tuple[str, str], Image] = {}
        self._lock = threading.Lock()
        self._after = ExitStack()
        self._stages: Stages | None = None

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
            return Layers(self._store, self.stages.state(base.stage).top)
        if base.kind == "scratch":
            return Layers(self._store, None)
        if base.kind == "context" and not self._is_image(base):
            return self._named(base.name, place)
        return Layers(self._store, self.image(base, place).chain_id)

    # --- contexts

    def _context(self) -> Origin:
        """The build's own."""
        return FolderOfHost(self._store, os.fspath(self._given or "."), self._ignored)

    def _named(self, name: str, place: Place) -> Origin:
        return FolderOfHost(self._store, self._options.contexts[name])

    @property
    def _ignored(self) -> tuple[str, ...]:
        for name in (f"{self._options.file or 'Dockerfile'}.dockerignore", ".dockerignore"):
            try:
                with open(os.path.join(self._given or ".", name)) as file:
                    lines = (line.strip() for line in file if not line.startswith("#"))
                    return tuple(line.lstrip("/") for line in lines if line)
            except FileNotFoundError:
                continue
        return ()

    def dockerfile(self) -> tuple[str, str]:
        """The text of the Dockerfile, and what it is called."""
        name = self._options.file or "Dockerfile"
        path = os.path.join(self._given or ".", name)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return file.read(), name
        except OSError as error:
            raise BuildError(
                f"failed to read dockerfile: open {name}: {error.strerror}", remedy="Name it with -f.", path=path
            ) from None

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
        with self._lock:
            known = self._images.get((name, platform))
            if known is None:
                try:
                    known = self._get(name, platform)
                except LayerstoreError as error:
                    raise BuildError(
                        f"{base.name}: failed to resolve source metadata: {error.message}",
                        place=place,
                        remedy=error.remedy,
                    ) from error
                self._images[name, platform] = known
            return known

    def _get(self, name: str, platform: str) -> Image:
        if name.startswith(_LAYOUT):
            folder, _, tag = name.removeprefix(_LAYOUT).partition(":")
            with self._teller.doing(f"[internal] load metadata for {name}"):
                [loaded] = self._store.load(folder, only=(tag,) if tag else (), platform=platform)
                return loaded
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
            return self._store.pull(name, platform=platform, progress=doing.progress)


def _fits(image: Image, platform: str) -> bool:
    """Is it made for what is asked for? One that says nothing is taken for it."""
    from layerstore import platforms

    if not image.architecture:
        return True
    offered = platforms.of({"os": image.os, "architecture": image.architecture, "variant": image.variant})
    return platforms.rank(platforms.parse(platform), offered) is not None
