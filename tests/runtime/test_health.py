"""Health checks: docker's rules, one check, and checks again and again while a container runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from layerstore import LayerstoreError
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.engine.cgroups import folders_of
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.health import Check, Result, after, begin, check_of, pause, probe
from layerstore.runtime.options import HealthCheck
from runtime.life.conftest import Make
from runtime.life.conftest import cgroup_parent as cgroup_parent
from runtime.life.conftest import image_file as image_file
from runtime.life.conftest import loaded as loaded
from runtime.life.conftest import make as make
from runtime.life.conftest import runtime as runtime

START = datetime(2026, 1, 1, tzinfo=UTC)

# --- rules


def image(**said: Any) -> dict[str, Any]:
    return {"config": {"Healthcheck": said}}


def test_the_options_say_more_than_the_image() -> None:
    said = image(Test=["CMD", "a"], Interval=2_000_000_000, Retries=5, StartPeriod=500_000_000)
    assert check_of(said, RunOptions()) == Check(("a",), interval=2, retries=5, start_period=0.5)
    options = RunOptions(health=HealthCheck(("CMD-SHELL", "b c"), interval=1, timeout=4, retries=1))
    assert check_of(said, options) == Check(
        ("/bin/sh", "-c", "b c"), interval=1, timeout=4, retries=1, start_period=0.5
    )
    assert check_of({}, options) == Check(("/bin/sh", "-c", "b c"), interval=1, timeout=4, retries=1)


def test_a_shell_of_the_image_s_own_runs_the_check() -> None:
    config = {"config": {"Healthcheck": {"Test": ["CMD-SHELL", "x"]}, "Shell": ["/bin/bash", "-ec"]}}
    assert check_of(config, RunOptions()) == Check(("/bin/bash", "-ec", "x"))


@pytest.mark.parametrize("said", [{}, image(), image(Test=[]), image(Test=["NONE"]), image(Test=["CMD"])])
def test_what_says_nothing_is_no_check(said: dict[str, Any]) -> None:
    assert check_of(said, RunOptions()) is None


def test_a_check_can_be_taken_away() -> None:
    assert check_of(image(Test=["CMD", "a"]), RunOptions(health=HealthCheck(disabled=True))) is None


def result(code: int, seconds: float = 100) -> Result:
    moment = START + timedelta(seconds=seconds)
    return Result(moment, moment, code, "")


def lived(check: Check, *results: Result) -> list[tuple[str, int]]:
    health, found = begin(), []
    for one in results:
        health = after(health, one, check, START)
        found.append((health["Status"], health["FailingStreak"]))
    return found


def test_so_many_failures_in_a_row_are_unhealthy() -> None:
    check = Check(("a",), retries=2)
    assert lived(check, *map(result, (1, 0, 1, 1, -1, 0))) == [
        ("starting", 1),
        ("healthy", 0),
        ("healthy", 1),
        ("unhealthy", 2),
        ("unhealthy", 3),
        ("healthy", 0),
    ]


def test_while_it_starts_failures_do_not_count() -> None:
    check = Check(("a",), retries=1, start_period=10)
    assert lived(check, result(1, 3), result(1, 9.9), result(1, 10)) == [
        ("starting", 0),
        ("starting", 0),
        ("unhealthy", 1),
    ]
    assert lived(check, result(0, 3), result(1, 5)) == [("healthy", 0), ("unhealthy", 1)]  # once healthy, they do


def test_it_is_checked_more_often_while_it_starts() -> None:
    check = Check(("a",), interval=30, start_interval=2, start_period=10)
    early, late = START + timedelta(seconds=9), START + timedelta(seconds=10)
    assert pause(begin(), check, START, early) == 2
    assert pause(begin(), check, START, late) == 30
    assert pause({"Status": "healthy"}, check, START, early) == 30


@given(some.lists(some.sampled_from([0, 1, -1, 137]), max_size=30), some.integers(1, 5))
def test_it_is_unhealthy_exactly_after_that_many_failures(codes: list[int], retries: int) -> None:
    found = lived(Check(("a",), retries=retries), *map(result, codes))
    for number, (status, streak) in enumerate(found, 1):
        failures = next((n for n, code in enumerate(reversed(codes[:number])) if code == 0), number)
        assert streak == failures
        assert (status == "unhealthy") == (failures >= retries)
        assert (status == "starting") == (failures < retries and 0 not in codes[:number] and failures == number)


def test_five_checks_are_remembered() -> None:
    health = begin()
    for code in range(9):
        health = after(health, result(code), Check(("a",)), START)
    assert [entry["ExitCode"] for entry in health["Log"]] == [4, 5, 6, 7, 8]
    assert health["Log"][0]["Start"] == "2026-01-01T00:01:40Z"


# --- containers

needs = pytest.mark.tools("crun", "runc", "conmon")


def shell(text: str, **more: Any) -> HealthCheck:
    return HealthCheck(("CMD-SHELL", text), **more)


def eventually(what: Callable[[], object], wanted: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while (found := what()) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


@pytest.mark.root
@needs
@pytest.mark.parametrize("engine", ["crun", "runc"])
def test_a_check_runs_in_the_container(make: Make, runtime: Runtime, engine: str) -> None:
    test = "echo seen; test -e /tmp/well"
    box = make("sleep", "60", runtime=engine, health=shell(test, interval=600, retries=1))
    with pytest.raises(NotRunning):
        runtime.healthcheck(box)
    runtime.start(box)
    state = runtime.state(box)
    assert state.health == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert runtime.healthcheck(box)["Status"] == "unhealthy"
    Path(f"/proc/{state.pid}/root/tmp/well").touch()
    health = runtime.healthcheck(box)
    assert (health["Status"], health["FailingStreak"]) == ("healthy", 0)
    assert [(entry["ExitCode"], entry["Output"]) for entry in health["Log"]] == [(1, "seen\n"), (0, "seen\n")]
    assert runtime.inspect(box)["State"]["Health"] == health
    runtime.stop(box, timeout=0)
    assert runtime.inspect(box)["State"]["Health"]["Status"] == "unhealthy"
    runtime.start(box)
    assert runtime.state(box).health == {"Status": "starting", "FailingStreak": 0, "Log": []}


@pytest.mark.root
@needs
def test_one_that_takes_too_long_or_cannot_be_run_is_a_failure(make: Make, runtime: Runtime) -> None:
    box = make("sleep", "60", health=HealthCheck(("CMD", "sleep", "30"), interval=600))
    runtime.start(box)
    slow = probe(runtime, box, Check(("sleep", "30"), timeout=0.3))
    assert (slow.exit_code, slow.output) == (-1, "Health check exceeded timeout (300ms)")
    assert [line for line in processes_of(runtime, box) if line != "sleep 60"] == []
    missing = probe(runtime, box, Check(("no-such-program",)))
    assert missing.exit_code == -1
    assert "no-such-program" in missing.output
    long = probe(runtime, box, Check(("sh", "-c", "while echo 0123456789; do :; done"), timeout=0.5))
    assert long.exit_code == -1
    assert len(probe(runtime, box, Check(("sh", "-c", "ls -R /usr; ls -R /proc/1"))).output) <= 4096
    assert [name for name in os.listdir(runtime.folder(box).path) if name.startswith("health-")] == []


@pytest.mark.root
@needs
@pytest.mark.parametrize("engine", ["crun", "runc"])
def test_all_that_a_check_has_started_ends_when_its_time_is_over(make: Make, runtime: Runtime, engine: str) -> None:
    box = make("sleep", "60", runtime=engine)
    runtime.start(box)
    # One is the shell's child, one is nobody's any more, and has a session of its own.
    slow = probe(runtime, box, Check(("sh", "-c", "(setsid sleep 31 &); sleep 30; true"), timeout=0.7))
    assert slow.exit_code == -1
    assert living(runtime, box) == ["sleep 60"]
    # What is well leaves what it has started, as in docker, and that is the container's.
    well = probe(runtime, box, Check(("sh", "-c", "sleep 32 > /dev/null 2>&1 &"), timeout=20))
    assert well.exit_code == 0
    while (found := living(runtime, box))[0].startswith("sh "):
        time.sleep(0.01)  # what the shell has forked has not executed it yet
    assert found == ["sleep 32", "sleep 60"]
    whole = runtime.folder(box).cgroup()
    for cgroup in folders_of(whole, within=runtime.folder(box).name):
        assert [entry.name for entry in os.scandir(cgroup) if entry.is_dir()] == []


def living(runtime: Runtime, box: Any) -> list[str]:
    """What has not ended, for its first process buries nobody."""
    return sorted(line for line in processes_of(runtime, box) if line)


@pytest.mark.root
@needs
def test_one_whose_time_is_over_before_it_begins_does_not_stay(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\ncase " $* " in *" exec "*) sleep 0.5;; esac\nexec crun "$@"\n')
    engine.chmod(0o755)
    box = make("sleep", "60", runtime=str(engine), health=HealthCheck(("CMD", "sleep", "30"), interval=600))
    runtime.start(box)
    late = probe(runtime, box, Check(("sleep", "30"), timeout=0.1))
    assert (late.exit_code, late.output) == (-1, "Health check exceeded timeout (100ms)")
    assert living(runtime, box) == ["sleep 60"]


def processes_of(runtime: Runtime, box: Any) -> list[str]:
    space = os.readlink(f"/proc/{runtime.state(box).pid}/ns/pid")
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.readlink(f"/proc/{name}/ns/pid") == space:
                found.append(Path(f"/proc/{name}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.root
@needs
def test_it_is_checked_while_it_runs_and_not_while_it_is_paused(make: Make, runtime: Runtime) -> None:
    box = make("sleep", "60", health=shell("test -e /tmp/well", interval=0.2, retries=2))
    runtime.start(box)

    def status() -> str:
        return str((runtime.state(box).health or {}).get("Status"))

    def log() -> list[Any]:
        return list((runtime.state(box).health or {})["Log"])

    eventually(status, "unhealthy")
    Path(f"/proc/{runtime.state(box).pid}/root/tmp/well").touch()
    eventually(status, "healthy")
    runtime.pause(box)
    paused = datetime.now(UTC).isoformat()
    time.sleep(0.9)
    before = log()
    assert len([entry for entry in before if entry["Start"] > paused]) <= 1  # one may be about to begin
    runtime.unpause(box)
    eventually(lambda: log() != before, True)
    runtime.stop(box, timeout=0)
    assert runtime.state(box).status == "exited"


@pytest.mark.root
@needs
def test_a_container_of_an_image_with_a_check_and_one_without(
    runtime: Runtime, make: Make, tmp_path: Path, cgroup_parent: str
) -> None:
    from support import programs

    test = {"Test": ["CMD", "true"], "Interval": 200_000_000}
    runtime.store.load(programs.archive(tmp_path / "checked.tar", ("checked:1",), {"Healthcheck": test}))
    options = RunOptions(args=("sleep", "60"), cgroup_parent=cgroup_parent)
    box = runtime.create("checked:1", options)
    runtime.start(box)
    eventually(lambda: json.loads(json.dumps(runtime.state(box).health or {})).get("Status"), "healthy")
    plain = make("sleep", "60")
    runtime.start(plain)
    assert runtime.state(plain).health is None
    with pytest.raises(LayerstoreError, match="has no health check"):
        runtime.healthcheck(plain)
