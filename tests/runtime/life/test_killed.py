"""Whoever runs containers is killed between any two steps: the next open says what is true, and nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from attrs import evolve

import layerstore
from layerstore import Container, Store
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.life import rows
from layerstore.runtime.life.processes import wait_for
from layerstore.runtime.streams import Streams
from runtime.life import life
from runtime.life.conftest import eventually

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon")]

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
DAILY = 9
"""Points that are tried by day, of some hundreds; by night all."""

TESTS = Path(__file__).parents[2]


def run(store: Store, parent: str, number: int) -> subprocess.CompletedProcess[str]:
    config = store.config
    command = [sys.executable, life.__file__, str(config.data_root), str(config.exec_root), parent, str(number)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False
    )


def tells_the_truth(runtime: Runtime, box: Container) -> bool:
    """Does a container run if, and only if, it is said to? What ends by itself may do so in between."""
    state = runtime.state(box)
    assert state.status in ("created", "running", "paused", "exited", "dead")
    return state.is_running == bool(box.processes()) and (not state.pid or os.path.exists(f"/proc/{state.pid}"))


def assert_true_and_clean(config: layerstore.Config) -> None:
    """What the store says of its containers is so; each can be removed, and then nothing of any is left."""
    with layerstore.open(config=config) as store:
        runtime = Runtime(store)
        for box in store.containers():
            eventually(lambda box=box: tells_the_truth(runtime, box), True)
            if not runtime.state(box).is_running:
                assert runtime.folder(box).path.exists() is False
                assert [str(change) for change in box.changes() if "deep" in str(change)] == []
            runtime.remove(box, force=True, volumes=True)
    with layerstore.open(config=config) as store:
        runtime = Runtime(store)
        assert (runtime.places.all(), runtime.places.all_kept()) == ([], [])
        assert [volume.name for volume in store.volumes.all() if not volume.is_anonymous] == []
        store.volumes.prune()
        assert store.check() == []
        engines = runtime.places.root / "engines"
        assert [list(folder.iterdir()) for folder in engines.iterdir()] == [[]]


def test_killed_between_any_two_steps(loaded: Store, cgroup_parent: str) -> None:
    config = loaded.config
    loaded.close()
    whole = run(loaded, cgroup_parent, 0)
    assert whole.returncode == 0, whole.stderr
    assert_true_and_clean(config)
    count = int(whole.stdout)
    numbers = range(1, count) if NIGHTLY else sorted({1 + count * n // DAILY for n in range(DAILY)})
    for number in numbers:
        done = run(loaded, cgroup_parent, number)
        assert done.returncode in (-signal.SIGKILL, 0), (number, done.stderr)
        assert_true_and_clean(config)


def test_after_a_reboot_nothing_runs(loaded: Store, cgroup_parent: str) -> None:
    """As after one: the processes are gone without a word, and rows and folders tell of another boot."""
    runtime = Runtime(loaded)
    options = RunOptions(args=("sleep", "60"), cgroup_parent=cgroup_parent)
    stays = runtime.create("debian", options)
    goes = runtime.create("debian", evolve(options, remove=True))
    for box in (stays, goes):
        runtime.start(box)
        runtime._ender.kill_all(box)
        runtime._ender.clear(runtime.folder(box))
    with runtime.database.write() as tx:
        for row in rows.every(tx):
            rows.put(tx, evolve(row, status="running", boot="another"))
    (runtime.places.above / "before").mkdir()

    loaded.close()
    with layerstore.open(config=loaded.config) as store:
        after = Runtime(store)
        # What waits for the end of a program, and was started before the "boot", may be at it: then it removes it.
        eventually(lambda: [box.id for box in store.containers()], [stays.id])
        box = store.container(stays.id)
        assert (after.state(box).status, after.state(box).exit_code) == ("exited", 255)
        assert not (after.places.above / "before").exists()
        after.start(box)
        assert after.state(box).status == "running"
        after.remove(box, force=True)


def test_what_a_power_cut_brought_back_of_a_run_that_goes_is_removed(loaded: Store) -> None:
    """Neither its row nor the removal of that is synced: it may be there again, and its files not."""
    runtime = Runtime(loaded)
    box = runtime.create("debian", RunOptions(args=("true",), remove=True))
    with runtime.database.write() as tx:
        row = rows.find(tx, box.id)
        assert row is not None
        rows.put(tx, evolve(row, status="running", boot="another"))
        [[key]] = tx.execute("SELECT key FROM containers WHERE id = ?", (box.id,))
    shutil.rmtree(loaded.data_root / "overlay2" / key)
    loaded.close()

    with layerstore.open(config=loaded.config) as store:
        Runtime(store)
        assert store.containers() == []
        assert store.check() == []


def test_a_removal_that_was_broken_off_is_ended_where_the_container_was_to_go(
    loaded: Store, cgroup_parent: str
) -> None:
    runtime = Runtime(loaded)
    boxes = {}
    for goes in (True, False):
        options = RunOptions(args=("true",), cgroup_parent=cgroup_parent, remove=goes)
        boxes[goes] = runtime.create("debian", options)
        with runtime.database.write() as tx:
            row = rows.find(tx, boxes[goes].id)
            assert row is not None
            rows.put(tx, evolve(row, status="dead"))
    loaded.close()
    with layerstore.open(config=loaded.config) as store:
        after = Runtime(store)
        assert [box.id for box in store.containers()] == [boxes[False].id]
        left = store.container(boxes[False].id)
        assert after.state(left).status == "dead"  # it is for whoever began that to ask again
        after.remove(left)
        assert store.containers() == []


def test_conmon_is_killed_and_the_program_goes_on(loaded: Store, cgroup_parent: str) -> None:
    runtime = Runtime(loaded)
    box = runtime.create("debian", RunOptions(args=("sleep", "60"), cgroup_parent=cgroup_parent))
    runtime.start(box)
    with runtime.database.read() as tx:
        row = rows.find(tx, box.id)
    assert row is not None
    assert row.keeper is not None
    os.kill(row.keeper.pid, signal.SIGKILL)
    wait_for(row.keeper, 5)
    assert Runtime(loaded).state(box).status == "running"
    runtime.kill(box)
    assert (runtime.state(box).status, runtime.state(box).exit_code) == ("exited", 255)  # nobody knows
    runtime.remove(box)
    assert runtime.places.all() == []


def test_an_engine_in_the_foreground_is_killed_and_the_program_goes_on(loaded: Store, cgroup_parent: str) -> None:
    runtime = Runtime(loaded)
    box = runtime.create("debian", RunOptions(args=("sleep", "60"), cgroup_parent=cgroup_parent, remove=True))
    codes: list[int] = []
    thread = Thread(target=lambda: codes.append(runtime.run(box, Streams(None, None, None))))
    thread.start()
    eventually(lambda: runtime.folder(box).init() is not None, True)
    first = runtime.folder(box).init()
    assert first is not None
    eventually(lambda: first.pid in [process.pid for process in box.processes()], True)  # its engine may go now
    with runtime.database.read() as tx:
        row = rows.find(tx, box.id)
    assert row is not None
    assert row.keeper is not None
    os.kill(row.keeper.pid, signal.SIGKILL)
    thread.join()
    assert codes == [137]
    assert not first.lives
    assert loaded.containers() == []
    assert runtime.places.all() == []
