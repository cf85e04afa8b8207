"""A checkpoint while programs are run beside each other: they stand still for it, or it says that they did not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE

import pytest

from layerstore import Container, Running, Store
from layerstore.runtime import Runtime
from layerstore.runtime.errors import NotRunning

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "runc")]

WRITER = [
    "sh",
    "-c",
    "n=0; while :; do n=$((n + 1)); echo $n > /tmp/one; echo $n > /tmp/two; [ $n -gt 1 ] || echo ready; done",
]


@contextmanager
def ended(running: Running) -> Iterator[Running]:
    """It is killed afterwards, whatever happens."""
    with running:
        try:
            yield running
        finally:
            running.kill()


def test_programs_beside_each_other_stand_still(loaded: Store, box: Container) -> None:
    runtime = Runtime(loaded)
    with ended(box.popen(WRITER, stdout=PIPE)) as first, ended(box.popen(["sleep", "60"])):
        assert first.stdout is not None
        assert first.stdout.readline() == b"ready\n"
        with runtime.frozen(box), box.mount() as root:
            seen = (root / "tmp/one").read_bytes()
            time.sleep(0.1)
            assert (root / "tmp/one").read_bytes() == seen
        kept = box.checkpoint("kept", quiet=runtime.frozen(box))
        assert kept.consistent
        assert first.poll() is None
    [fork] = box.fork(1)
    fork.remove()
    box.rollback("kept")
    one, two = (box.run(["cat", f"/tmp/{name}"], stdout=PIPE).stdout for name in ("one", "two"))
    assert b"" in (one, two) or int(one) - int(two) in (0, 1)  # between any two of its steps


def test_one_that_is_just_being_started_is_waited_for(loaded: Store, box: Container) -> None:
    runtime = Runtime(loaded)
    for _ in range(5):
        with ended(box.popen(["sleep", "60"])), runtime.frozen(box):
            time.sleep(0.01)


def test_what_has_no_cgroup_cannot_stand_still(loaded: Store, box: Container) -> None:
    runtime = Runtime(loaded)
    with ended(box.popen(["sleep", "60"], isolation="process")):
        with pytest.raises(NotRunning, match="has no cgroup, so it cannot be frozen"), runtime.frozen(box):
            pass
        assert not box.checkpoint("moving").consistent
    with runtime.frozen(box):
        pass
