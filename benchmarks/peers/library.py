"""The same work by the library, in a process that is there: no peer, but it tells where the time of a command goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import layerstore
from benchmarks.peers.comparing import IN_PROCESS
from benchmarks.peers.images import Image
from benchmarks.peers.programs import BOX, BUILT, CHANGE, KEPT, Commands, Program
from layerstore.build import BuildOptions, build
from layerstore.runtime import RunOptions, Runtime


class Library(Program):
    """Files of what was removed are deleted by a thread. It is waited for, as the end of a command waits for it."""

    title = IN_PROCESS
    reads = ("conmon",)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._open()
        try:
            yield
        finally:
            self.store.close()

    def _open(self) -> None:
        config = layerstore.Config(
            data_root=self.home / "store", exec_root=self.home / "run", storage_driver="overlay2", storage_opts=()
        )
        self.store = layerstore.open(config=config)
        self.engine = Runtime(self.store)

    def empty(self) -> None:
        self.store.close()
        super().empty()
        self._open()

    def look(self) -> Commands:
        return [self.store.images]

    def load(self, image: Image) -> Commands | None:
        return [partial(self.store.load, image.archive)]

    def load_layout(self, image: Image) -> Commands | None:
        return [partial(self.store.load, image.layout, names=[image.name])] if image.layout else None

    def pull(self, image: Image, name: str) -> Commands | None:
        return [partial(self.store.pull, name)]

    def named(self, image: Image, name: str) -> Commands:
        return [partial(self.store.tag, name, image.name), partial(self.store.untag, name)]

    def targeted(self, image: Image, target: str) -> Commands:
        return [partial(self.store.tag, image.name, target)]

    def push(self, image: Image, target: str) -> Commands | None:
        return [partial(self.store.push, target)]

    def untargeted(self, target: str) -> Commands:
        return [partial(self.store.untag, target)]

    def save(self, image: Image, file: Path) -> Commands | None:
        return [partial(self.store.save, image.name, file)]

    def create(self, image: Image) -> Commands | None:
        return [partial(self._create, image)]

    def _create(self, image: Image) -> layerstore.Container:
        return self.engine.create(image.name, RunOptions(args=("/bin/true",), runtime=self.runtime), name=BOX)

    def mount(self, image: Image) -> Commands | None:
        return [partial(self._mount, image)]

    def _mount(self, image: Image) -> None:
        self.mounted = self._create(image).mount()

    def unmounted(self) -> Commands:
        return [lambda: self.mounted.unmount(), *self.removed()]

    def run(self, image: Image) -> Commands | None:
        return [partial(self._run, image), self.store.wait]

    def _run(self, image: Image) -> None:
        box = self.engine.create(image.name, RunOptions(args=("/bin/true",), remove=True, runtime=self.runtime))
        if code := self.engine.run(box):
            raise RuntimeError(f"true ended with {code}")

    def changed(self, image: Image, files: int) -> Commands:
        options = RunOptions(args=("/bin/sh", "-c", CHANGE.format(files=files)), runtime=self.runtime)
        return [lambda: self.engine.run(self.engine.create(image.name, options, name=BOX))]

    def changes(self) -> Commands | None:
        return [lambda: list(self.store.container(BOX).changes())]

    def commit(self, image: Image) -> Commands | None:
        return [lambda: self.store.container(BOX).commit(KEPT)]

    def removed(self) -> Commands:
        return [lambda: self.engine.remove(self.store.container(BOX), force=True), self.store.wait]

    def uncommitted(self) -> Commands:
        return [partial(self.store.remove_image, KEPT), self.store.wait]

    def build(self, context: Path, *, cached: bool) -> Commands | None:
        options = BuildOptions(tags=(BUILT,), network="host", no_cache=not cached, runtime=self.runtime)
        return [lambda: build(self.store, context, options)]

    def unbuilt(self) -> Commands:
        return [partial(self.store.remove_image, BUILT), self.store.wait]

    def remove(self, image: Image) -> Commands | None:
        return [partial(self.store.remove_image, image.name), self.store.wait]
