"""A checkpoint while programs are run beside each other: they stand still for it, or it says that they did not."""

from __future__ import annotations

import time
from subprocess import PIPE

import pytest

from layerstore import Container, Store
from layerstore.runtime import Runtime
from layerstore.runtime.errors import NotRunning

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "runc")]

WRITER = ["sh", "-c", "n=0; echo ready; while :; do n=$((n + 1)); echo $n > /tmp/one; echo $n > /tmp/two; done"]


def test_programs_beside_each_other_stand_still(loaded: Store, box: Container) -> None:
    runtime = Runtime(loaded)
    with box.popen(WRITER, stdout=PIPE) as first, box.popen(["sleep", "60"]) as second:
        assert first.stdout is not None
        assert first.stdout.readline() == b"ready\n"
        with runtime.frozen(box), box.mount() as root:
            seen = (root / "tmp/one").read_bytes()
            time.sleep(0.1)
            assert (root / "tmp/one").read_bytes() == seen
        kept = box.checkpoint("kept", quiet=runtime.frozen(box))
        assert kept.consistent
        assert first.poll() is None
        first.kill()
        second.kill()
    [fork] = box.fork(1)
    fork.remove()
    box.rollback("kept")
    one, two = (box.run(["cat", f"/tmp/{name}"], stdout=PIPE).stdout for name in ("one", "two"))
    assert b"" in (one, two) or int(one) - int(two) in (0, 1)  # between any two of its steps


def test_one_that_is_just_being_started_is_waited_for(loaded: Store, box: Container) -> None:
    runtime = Runtime(loaded)
    for _ in range(5):
        with box.popen(["sleep", "60"]) as running:
            with runtime.frozen(box):
                time.sleep(0.01)
            running.kill()


def test_what_has_no_cgroup_cannot_stand_still(loaded: Store, box: Container) -> None:
    runtime = Runtime(loaded)
    with box.popen(["sleep", "60"], isolation="process") as running:
        with pytest.raises(NotRunning, match="has no cgroup, so it cannot be frozen"), runtime.frozen(box):
            pass
        assert not box.checkpoint("moving").consistent
        running.kill()
    with runtime.frozen(box):
        pass
