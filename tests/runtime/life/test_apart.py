"""What is compared, committed and forked of a container that runs: what programs have written, and nothing else."""

from __future__ import annotations

import time

import pytest

from layerstore import Container
from layerstore.runtime import Runtime
from layerstore.runtime.life import apart, processes
from layerstore.runtime.options import MountOption
from runtime.life.conftest import Make

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon")]


@pytest.fixture
def box(make: Make, runtime: Runtime) -> Container:
    """One that runs, and has written one file. Its image has neither /etc/resolv.conf nor the other mount points."""
    mounts = (MountOption("volume", "/made/for/data"), MountOption("tmpfs", "/scratch"))
    script = "echo written > /root/file; touch /made/for/data/x /tmp/ready; exec sleep 60"
    container = make("sh", "-c", script, mounts=mounts, working_dir="/work", name="box")
    runtime.start(container)
    with container.mount() as root:
        while not (root / "tmp/ready").exists():
            assert runtime.state(container).is_running
        (root / "tmp/ready").unlink()
    return container


def changed(container: Container) -> set[str]:
    return {str(change) for change in container.changes() if str(change) not in ("C /tmp", "C /root")}


def test_what_runs_has_changed_what_programs_have_changed(box: Container, runtime: Runtime) -> None:
    assert {"A /root/file", "A /made", "A /work"} <= changed(box)
    with runtime.written(box) as twin:
        assert changed(twin) == {"A /root/file"}
    assert [container.name for container in runtime.store.containers()] == ["box"]
    assert runtime.state(box).is_running
    runtime.remove(box, force=True)


def test_a_commit_of_what_runs_keeps_what_programs_have_written(box: Container, runtime: Runtime) -> None:
    with runtime.written(box) as twin:
        image = twin.commit("kept")
    assert {str(change) for change in image.changes()} - {"C /root", "C /tmp"} == {"A /root/file"}
    assert image.parent == box.image_id
    runtime.stop(box, 0)
    assert changed(box) == {"A /root/file"}


def test_forks_of_what_runs_have_no_mount_points(box: Container, runtime: Runtime) -> None:
    for fork in runtime.fork(box, names=("one", "two")):
        assert changed(fork) == {"A /root/file"}
    assert changed(box) > {"A /root/file"}
    runtime.stop(box, 0)
    [after] = runtime.fork(box)
    assert changed(after) == {"A /root/file"}


def test_what_does_not_run_stands_for_itself(make: Make, runtime: Runtime) -> None:
    container = make("true")
    with runtime.written(container) as found:
        assert found is container


def test_what_the_dead_left_goes_with_the_next(
    box: Container, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "here", lambda: processes.ProcessId(2**22 + 1, 7))
    monkeypatch.setattr(Container, "remove", lambda *_, **__: None)
    with runtime.written(box):
        pass
    monkeypatch.undo()
    assert len(runtime.store.containers()) == 2
    with runtime.written(box):
        assert len(runtime.store.containers()) == 2
    assert [container.name for container in runtime.store.containers()] == ["box"]


def test_what_has_just_ended_has_no_mount_points_before_anybody_has_looked_at_it(make: Make, runtime: Runtime) -> None:
    container = make("true", name="short")
    for look in ("written", "fork"):
        runtime.start(container)
        while container.processes():
            time.sleep(0.005)
        if look == "written":
            with runtime.written(container) as found:
                assert changed(found) == set()
        else:
            [found] = runtime.fork(container)
            assert changed(found) == set()
        assert changed(container) == set()
