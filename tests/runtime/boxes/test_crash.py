"""Whoever runs a program in a container is killed: what it left goes, and a program that lives is known to live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import layerstore
from layerstore import Container, Store
from layerstore.runtime import Runtime
from runtime.life.conftest import eventually

from .conftest import left_in

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]

WORK = """
import sys, time
import layerstore
data_root, exec_root, isolation = sys.argv[1:]
settings = layerstore.Config(data_root=data_root, exec_root=exec_root)
store = layerstore.open(config=settings)
running = store.container("box").popen(["sleep", "60"], isolation=isolation)
print(running.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("isolation", ["full", "process", "none"])
def test_a_program_outlives_who_started_it_and_leaves_nothing(loaded: Store, box: Container, isolation: str) -> None:
    config = loaded.config
    worker = subprocess.Popen(
        [sys.executable, "-c", WORK, str(config.data_root), str(config.exec_root), isolation], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    program = int(worker.stdout.readline())
    worker.stdout.close()
    worker.kill()
    worker.wait()
    with layerstore.open(config=config) as later:
        Runtime(later)
        found = later.container("box")
        assert found.status == "running"
        with pytest.raises(layerstore.InUse, match="running"):
            found.remove()
        os.kill(program, signal.SIGKILL)
        eventually(lambda: found.status, "unmounted")
    with layerstore.open(config=config) as later:
        Runtime(later)
        assert left_in(config.exec_root, box) == []


WALK = """
import os, sys
import layerstore
data_root, exec_root, last = sys.argv[1:]
settings = layerstore.Config(data_root=data_root, exec_root=exec_root)
store = layerstore.open(config=settings)
box = store.container("box")
box.run("true")  # what is imported is imported
steps = 0

def count(frame, event, argument):
    global steps
    if event in ("call", "return") and "/layerstore/" in frame.f_code.co_filename:
        steps += 1
        if steps == int(last):
            os.kill(os.getpid(), 9)

sys.setprofile(count)
code = box.run(["sh", "-c", "sleep 0.1; exit 3"]).returncode
sys.setprofile(None)
print(steps, code)
"""
"""Runs a program, and is killed at the step of that number: as a function of ours is called, or has returned."""

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
POINTS = 200 if NIGHTLY else 5
STEPS: list[int] = []
"""How many there are in all, when that has been counted."""


@pytest.mark.parametrize("point", range(POINTS))
def test_killed_at_any_step_of_a_run(loaded: Store, box: Container, point: int) -> None:
    config = loaded.config
    line = [sys.executable, "-c", WALK, str(config.data_root), str(config.exec_root)]
    if not STEPS:
        whole = subprocess.run([*line, "0"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        assert whole[1] == "3"
        STEPS.append(int(whole[0]))
        assert STEPS[0] > 500
    step = 1 + (STEPS[0] * 95 // 100) * point // (POINTS - 1)  # not quite the last: it takes some more or fewer
    died = subprocess.run([*line, str(step)], capture_output=True)
    assert died.returncode == -signal.SIGKILL
    eventually(lambda: loaded.container("box").status == "running", False)
    with layerstore.open(config=config) as later:
        Runtime(later)
        assert left_in(config.exec_root, box) == []
        found = later.container("box")
        assert found.run(["sh", "-c", "exit 9"]).returncode == 9
        assert list(found.changes()) == []
