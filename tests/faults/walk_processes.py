"""kernel/processes under faults: a program launched beside a container's tree, and one started in it."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore import Bind, Container, Tmpfs
from layerstore.store import Store
from support import programs
from support.faults import Faults, Kind, Outcome


@pytest.fixture
def box(store: Store, tmp_path: Path) -> Container:
    [image] = store.load(programs.archive(tmp_path / "image.tar"))
    made = store.create_container(image)
    assert starter(tmp_path)(made) == 0  # what is made once (a staging folder) is made
    return made


def launcher(place: Path) -> Callable[[Container], object]:
    """Launches a program, waits for it, and has nothing of it any more."""

    more = place.with_name("more")
    more.mkdir()

    def launch(box: Container) -> object:
        image = box.image
        assert image is not None
        with open("/dev/null") as kept, image.open_tree() as tree:
            process = box.launch(
                ["/bin/true"],
                root=place,
                cwd="/",
                stdin=subprocess.DEVNULL,
                fds=[kept.fileno()],
                hide=["/not-there"],
                new_session=True,
                trees={str(more): tree},
            )
            code = process.wait()
            process.close()
            return code

    return launch


def starter(folder: Path, *, terminal: bool = False) -> Callable[[Container], object]:
    """The same of one that is started with all that it can be given."""
    mounts = [Bind(str(folder), "/data/here"), Bind("/dev/null", "/data/file"), Tmpfs("/tmp")]

    def start(box: Container) -> object:
        process = box.start(["true"], mounts=mounts, limits={7: (64, 64)}, stdout=1, terminal=terminal)
        code = process.wait()
        process.close()
        return code

    return start


def nothing_runs(outcome: Outcome[Container]) -> None:
    assert outcome.case.processes() == []
    assert outcome.case.status != "running"


@pytest.mark.parametrize(
    ("kind", "number"), [(Kind.MEMORY, errno.ENOMEM), (Kind.THREAD, errno.EAGAIN), (Kind.CALL, errno.EIO)]
)
@pytest.mark.parametrize("way", ["launch", "start", "terminal"])
def test_each_failure_is_told_and_leaves_nothing(
    faults: Faults, box: Container, tmp_path: Path, kind: Kind, number: int, way: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    children = os.listdir(f"/proc/self/task/{os.getpid()}")
    act = launcher(place) if way == "launch" else starter(tmp_path, terminal=way == "terminal")
    met = faults.walk(kind, number, lambda: box, act, nothing_runs)
    assert met >= (30 if kind is Kind.CALL and way != "launch" else 1)
    assert os.listdir(f"/proc/self/task/{os.getpid()}") == children
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
