"""Whoever builds is killed between any two lines: nothing is left, and what was finished is not done again."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import layerstore
from build.steps import life
from build.steps.apart import awaited, building, long_and_ours, running
from layerstore import Store
from layerstore.build.cache import Cache, prune, records
from layerstore.build.events import Ended
from layerstore.build.steps import guarding
from layerstore.build.steps.session import sweep
from layerstore.runtime import Runtime
from support.building import Builder

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
DAILY = 12
"""Points that are tried by day, of some hundreds; by night all."""

TESTS = Path(__file__).parents[2]


def run(config: layerstore.Config, context: Path, number: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, life.__file__, str(config.data_root), str(config.exec_root), str(context), str(number)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False
    )


def built_again(config: layerstore.Config, context: Path) -> tuple[str, set[str]]:
    """Build what was broken off; the image, and the steps that were there already. Nothing but that is left then."""
    with layerstore.open(config=config) as store:
        Runtime(store)
        sweep(store)
        assert [box.name for box in store.containers() if not box.name.startswith("build-cache-")] == []
        assert store.check() == []
        make = Builder(store, context)
        built = make(life.DOCKERFILE, tags=["built"], source_date_epoch=1_600_000_000)
        cached = {event.vertex.title for event in make.events if isinstance(event, Ended) and event.cached}
        assert store.check() == []
        places = Runtime(store).places
        assert places.all() == []
        built.image.remove(force=True)
        return built.image.id, cached


def test_killed_between_any_two_lines(based: Store, tmp_path: Path) -> None:
    config = based.config
    based.close()
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("file")
    (context / "Dockerfile").write_text(life.DOCKERFILE)
    whole = run(config, context, 0)
    assert whole.returncode == 0, whole.stderr
    count = int(whole.stdout.splitlines()[-1])
    image, cached = built_again(config, context)
    assert cached >= set(whole.stdout.splitlines()[:-1])
    numbers = range(1, count) if NIGHTLY else sorted({1 + count * n // DAILY for n in range(DAILY)})
    for number in numbers:
        with layerstore.open(config=config) as store:
            prune(Cache(store), all=True)
            assert records(Cache(store)) == []
        done = run(config, context, number)
        assert done.returncode in (-signal.SIGKILL, 0), (number, done.stderr)
        again, cached = built_again(config, context)
        assert again == image, number
        assert cached >= set(done.stdout.splitlines()) - {str(count)}, number


def test_a_program_that_goes_on_when_its_build_is_killed_ends_with_the_next(based: Store, tmp_path: Path) -> None:
    config = based.config
    based.close()
    context = tmp_path / "context"
    context.mkdir()
    seconds = long_and_ours()
    (context / "Dockerfile").write_text(f"FROM base\nRUN echo > /done\nRUN echo begun > /begun; exec sleep {seconds}\n")
    command = [sys.executable, life.__file__, str(config.data_root), str(config.exec_root), str(context), "0"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, stdout=subprocess.PIPE) as process:
        while not running("sleep", seconds):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    with layerstore.open(config=config) as store:
        assert sweep(store) == 1
        assert store.containers() == []
        assert Runtime(store).places.all() == []
        assert store.check() == []
        assert sweep(store) == 0
    assert running("sleep", seconds) == []


def test_a_program_that_ran_for_long_ends_with_a_build_that_is_killed(based: Store, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    seconds = long_and_ours()
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM base\nRUN sleep {seconds}\n")
    with building(based.config, tmp_path / "context", guarded=True) as process:
        awaited(lambda: running("sleep", seconds) and running(based.config.data_root.as_posix(), "sh"), process)
        process.kill()
        process.wait()
    awaited(lambda: not running("sleep", seconds), seconds=30)
    awaited(lambda: not running(based.config.data_root.as_posix()), seconds=30)
    assert sweep(based) == 0
    assert based.containers() == []
    assert Runtime(based).places.all() == []


def test_nobody_looks_after_a_build_that_has_ended(make: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "LATER", 0.0)
    make("FROM base\nRUN sleep 0.3\n")
    assert running(make.store.data_root.as_posix()) == []


def test_a_build_goes_on_without_a_guard_where_there_is_no_room_for_one(
    based: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(guarding, "Tie", refuse)
    monkeypatch.setattr(guarding, "LATER", 0.0)
    said: list[object] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    guard = guarding.Guard(based, "one")
    guard.need()
    guard.close()
    assert said == []
