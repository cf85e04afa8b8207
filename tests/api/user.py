"""A program of somebody who uses layerstore: mypy holds it to the types that the package has (mypy: strict)."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import layerstore
from layerstore import aio, registry
from layerstore.runtime import RunOptions


class Told:
    """Progress, as a `layerstore.Progress`."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, label: str, done: int, size: int | None) -> None:
        self.bytes = max(self.bytes, done)


def tree() -> io.BytesIO:
    """The tar of a root filesystem."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = 6
        tar.addfile(entry, io.BytesIO(b"hello\n"))
    buffer.seek(0)
    return buffer


def synchronous(config: layerstore.Config) -> list[str]:
    """What changed in a container."""
    told = Told()
    progress: layerstore.Progress = told
    with layerstore.open(config=config) as store:
        image: layerstore.Image = store.import_tar(tree(), "hello:1", progress=progress)
        box: layerstore.Container = store.create_container(image, name="greeter")
        with box.mount() as root:
            file: Path = root / "hello"
            file.write_text("goodbye\n")
        changes: layerstore.Changes = box.changes()
        point: layerstore.Checkpoint = box.checkpoint("changed")
        forks: list[layerstore.Container] = point.fork(2)
        names = [fork.name for fork in forks]
        assert len(set(names)) == 2
        try:
            store.remove_image("hello:1")
        except layerstore.InUse as error:
            holders: tuple[str, ...] = tuple(error.holders)
            assert "container greeter" in holders
        problems: list[layerstore.Problem] = store.check()
        assert not problems
        return [str(change) for change in changes]


async def asynchronous(config: layerstore.Config) -> str:
    """The same file, read by tasks."""
    async with aio.open_store(config=config, threads=4) as store:
        image: aio.Image = await store.image("hello:1")
        size: int = image.size
        assert size > 0
        box: aio.Container = await store.container("greeter")
        status: str = await box.status
        assert status != "running"
        async with box.mount() as root:
            file: Path = root / "hello"
            text = file.read_text()
        async for problem in store.check_iter():
            found: layerstore.Problem = problem
            raise AssertionError(str(found))
        mounted: list[tuple[aio.Container, Path]] = await store.mounted()
        assert not mounted
        options: RunOptions = await aio.Runtime(store).options(box)
        assert options == RunOptions()
        entries: list[aio.Entry] = []
        async with store.browse(box) as tree:
            entries = [entry async for entry in tree.walk()]
        assert [entry.path for entry in entries] == ["", "hello"]
        return text


async def copied(source: str, target: str) -> registry.Copied:
    """A function of the library that no store is asked for."""
    return await aio.call(registry.copy, source, target)


def main(config: layerstore.Config) -> tuple[list[str], str]:
    """All of it."""
    return synchronous(config), asyncio.run(asynchronous(config))
