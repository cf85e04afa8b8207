"""The store and the runtime of `tests/runtime/life`, and boxes in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore import Container, Store
from runtime.life.conftest import cgroup_parent, make, runtime
from support import programs

__all__ = ["cgroup_parent", "make", "runtime"]

Box = Callable[[], Container]


@pytest.fixture(scope="session")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an image with a shell and the like."""
    config = {"Env": ["PATH=/usr/bin:/bin", "FROM=image"], "Cmd": ["/bin/sh"], "WorkingDir": "/tmp"}
    return programs.archive(tmp_path_factory.mktemp("image") / "programs.tar", config=config)


@pytest.fixture
def loaded(store: Store, image_file: Path) -> Store:
    """The store, with the image as `debian`."""
    store.load(image_file)
    return store


@pytest.fixture
def box(loaded: Store) -> Iterator[Container]:
    """A container. What ran in it has left no process, no cgroup, no file of the host, and no mount."""
    container = loaded.create_container("debian", name="box")
    yield container
    assert container.processes() == []
    assert container.status != "running"
    assert left_in(loaded.config.exec_root, container) == []
    container.remove()
    assert not (loaded.data_root / "containers" / container.id).exists()
    for parent in (Path("/sys/fs/cgroup/layerstore"), *Path("/sys/fs/cgroup").glob("*/layerstore")):
        with contextlib.suppress(OSError):  # it is not there, or others have theirs in it
            parent.rmdir()


def left_in(exec_root: Path, container: Container) -> list[str]:
    """What is left of the programs of a container: folders, and cgroups."""
    found = [os.fspath(path) for path in exec_root.rglob(f"{container.id}*")]
    groups = Path("/sys/fs/cgroup")
    patterns = (f"layerstore/{container.id}*", f"*/layerstore/{container.id}*")
    return found + [os.fspath(path) for pattern in patterns for path in groups.glob(pattern)]
