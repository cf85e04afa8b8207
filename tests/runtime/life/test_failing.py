"""What fails on the way: an engine that refuses, is gone or says nothing, no conmon, no room. Nothing is left of it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import layerstore
from layerstore import CannotRun, InUse, KernelError, NotFound, Store
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.engine import conmon
from layerstore.runtime.errors import EngineNotFound, NotRunning
from layerstore.runtime.streams import Streams
from runtime.life.conftest import Make

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon")]

NOTHING = Streams(None, None, None)

REFUSES = """#!/bin/sh
# crun, but for one command: that writes to the log as crun does, and fails.
log= last=
for word; do
    [ "$last" = --log ] && log=$word
    case $word in
    VERB)
        if [ -n "$log" ]; then
            printf '{"msg":"no more today","level":"error","time":"now"}\\n' >>"$log"
        fi
        exit 1
        ;;
    esac
    last=$word
done
exec crun "$@"
"""


def refusing(folder: Path, verb: str) -> str:
    """An engine that does all but one thing."""
    path = folder / "engine"
    path.write_text(REFUSES.replace("VERB", verb))
    path.chmod(0o755)
    return os.fspath(path)


@pytest.mark.parametrize("verb", ["create", "start"])
def test_an_engine_that_refuses_to_start(make: Make, runtime: Runtime, tmp_path: Path, verb: str) -> None:
    box = make("sleep", "60", runtime=refusing(tmp_path, verb), name="web")
    for _ in range(2):
        with pytest.raises(CannotRun) as told:
            runtime.start(box)
        assert told.value.message.endswith(": no more today")
        assert told.value.code == 125
        assert (runtime.state(box).status, runtime.state(box).exit_code) == ("created", 125)
        assert box.processes() == []
        assert runtime.places.all() == []


def test_an_engine_that_refuses_to_run_directly(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    box = make("true", runtime=refusing(tmp_path, "run"), remove=True)
    with pytest.raises(CannotRun, match="no more today"):
        runtime.run(box, NOTHING)
    assert runtime.store.containers() == []


def test_an_engine_that_refuses_to_kill(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    box = make("sleep", "60", runtime=refusing(tmp_path, "kill"))
    runtime.start(box)
    with pytest.raises(CannotRun, match="no more today"):
        runtime.stop(box, 0)
    runtime.remove(box, force=True)
    assert runtime.store.containers() == []


@pytest.mark.parametrize("verb", ["delete", "VERB"])
def test_an_engine_that_cleans_up_no_more_or_is_gone(make: Make, runtime: Runtime, tmp_path: Path, verb: str) -> None:
    box = make("sleep", "60", runtime=refusing(tmp_path, verb))
    runtime.start(box)
    if verb == "VERB":
        (tmp_path / "engine").unlink()
    runtime.remove(box, force=True)
    assert runtime.store.containers() == []
    assert runtime.places.all() == []
    assert list((runtime.places.root / "engines" / "engine").iterdir()) == []


def test_without_conmon_only_what_is_removed_at_its_end_runs(
    make: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conmon, "_SEARCH", "/nowhere")
    box = make("true")
    with pytest.raises(EngineNotFound, match="conmon is not installed"):
        runtime.start(box)
    assert runtime.state(box).status == "created"
    assert runtime.run(make("true", remove=True), NOTHING) == 0


def test_an_engine_that_is_not_there_is_said_before_anything_is_made(runtime: Runtime) -> None:
    with pytest.raises(EngineNotFound, match="unknown or invalid runtime name: nope"):
        runtime.create("debian", RunOptions(runtime="nope"))
    with pytest.raises(NotFound):
        runtime.create("no/such/image", RunOptions())
    assert runtime.store.containers() == []


def test_no_room_for_a_bundle(loaded: Store, cgroup_parent: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=12", "none", small], check=True)
    try:
        config = evolve(loaded.config, exec_root=small)
        loaded.close()
        with layerstore.open(config=config) as store:
            runtime = Runtime(store)
            box = runtime.create("debian", RunOptions(args=("sleep", "9"), cgroup_parent=cgroup_parent))
            (small / "full").write_bytes(b"x" * (48 << 10))
            with pytest.raises(KernelError, match="No space left"):
                runtime.start(box)
            assert runtime.state(box).status == "created"
            assert runtime.places.all() == []
            runtime.remove(box)
    finally:
        subprocess.run(["umount", small], check=True)


def test_who_is_interrupted_in_the_foreground_leaves_nothing(
    make: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerstore.runtime.streams import Foreground

    def interrupted(*_: Any, **__: Any) -> None:
        time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(Foreground, "attend", interrupted)
    box = make("sleep", "60", remove=True)
    with pytest.raises(KeyboardInterrupt):
        runtime.run(box, NOTHING)
    assert runtime.store.containers() == []
    assert runtime.places.all() == []


def test_many_do_everything_to_the_same_containers(make: Make, runtime: Runtime) -> None:
    """What each of them may be told is that another was faster; in the end all is as it should be."""
    names = ["one", "two"]
    until = time.monotonic() + 2
    failures: list[BaseException] = []

    def live(seed: int) -> None:
        dice = random.Random(seed)
        while time.monotonic() < until:
            name = dice.choice(names)
            try:
                box = runtime.store.container(name)
                deed = dice.choice(["start", "start", "stop", "kill", "pause", "unpause", "state", "remove"])
                if deed == "stop":
                    runtime.stop(box, 0)
                elif deed == "remove":
                    runtime.remove(box, force=dice.random() < 0.5)
                else:
                    getattr(runtime, deed)(box)
            except NotFound:
                try:
                    make("sleep", "60", name=name)
                except (layerstore.NameInUse, NotFound):
                    pass
            except (NotRunning, InUse):
                pass
            except CannotRun as error:
                # An engine is asked what it is asked while another changes what it was asked about.
                if "cannot be" not in error.message:
                    failures.append(error)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for box in runtime.store.containers():
        assert runtime.state(box).is_running == bool(box.processes())
        runtime.remove(box, force=True)
    assert runtime.places.all() == []
    assert shutil.which("crun") is not None
