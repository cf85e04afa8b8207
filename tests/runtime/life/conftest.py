"""A store with an image whose programs run, and a runtime on it. No process and no cgroup of a test may be left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from layerstore import Container, Store
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.engine import cgroups
from layerstore.runtime.options import Isolation
from support import programs

Make = Callable[..., Container]


def eventually(what: Callable[[], object], wanted: object, seconds: float = 20) -> None:
    """Wait until it is as it should be."""
    deadline = time.monotonic() + seconds
    while what() != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="session")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an image with a shell and the like."""
    return programs.archive(tmp_path_factory.mktemp("image") / "programs.tar")


@pytest.fixture
def cgroup_parent() -> Iterator[str]:
    """Where the cgroups of one test's containers are: none may be left, and no process in one."""
    name = f"layerstore-test-{uuid4().hex[:12]}"
    yield f"/{name}"
    left, processes = [], []
    for folder in (*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")):
        processes += cgroups.processes_in(folder)
        for inner, _, _ in os.walk(folder, topdown=False):
            if inner != os.fspath(folder):
                left.append(inner)
            with suppress(OSError):
                os.rmdir(inner)
    assert not processes
    assert not left


@pytest.fixture
def loaded(store: Store, image_file: Path) -> Store:
    """The store, with the image as `debian`."""
    store.load(image_file)
    return store


@pytest.fixture
def runtime(loaded: Store) -> Runtime:
    """What runs its containers."""
    return Runtime(loaded)


@pytest.fixture
def make(runtime: Runtime, cgroup_parent: str) -> Iterator[Make]:
    """`make("sh", "-c", "exit 3", remove=True)`: a container that can be run. What runs at the end is removed."""
    made: list[Container] = []

    def create(*args: str, name: str | None = None, **options: Any) -> Container:
        if options.get("isolation", Isolation.FULL) is Isolation.FULL:
            options["cgroup_parent"] = cgroup_parent
        wanted = RunOptions(args=args, **options)
        made.append(runtime.create("debian", wanted, name=name))
        return made[-1]

    yield create
    for container in runtime.store.containers():
        runtime.remove(container, force=True)
