"""How builds end before their end, and what they do at the same time: interrupts, failures, other builds."""

from __future__ import annotations

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
from layerstore import Store
from layerstore.build import BuildError, build
from layerstore.build.events import Event, Output
from layerstore.runtime import Runtime
from support.building import Builder, Look

TESTS = Path(__file__).parents[2]

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]


def test_an_interrupt_leaves_nothing_and_keeps_what_is_finished(make: Builder) -> None:
    text = "FROM base\nRUN echo > /done\nRUN echo begun; sleep 600\n"

    def interrupt(event: Event) -> None:
        if isinstance(event, Output) and b"begun" in event.data:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    (make.context({}) / "Dockerfile").write_text(text)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build(make.store, make.folder, progress=interrupt)
    assert time.monotonic() - began < 20
    assert make.store.containers() == []
    assert Runtime(make.store).places.all() == []
    make("FROM base\nRUN echo > /done\nRUN true\n")
    assert make.done == ["RUN true"]


def test_an_interrupt_that_was_only_noted_ends_a_program(make: Builder) -> None:
    """As one that comes in the moment before the program is waited for."""
    others: list[threading.Timer] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, Output) and b"begun" in event.data:
            others.append(threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)))
            others[0].start()

    (make.context({}) / "Dockerfile").write_text("FROM base\nRUN echo begun; sleep 60\n")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build(make.store, make.folder, progress=interrupt)
    assert time.monotonic() - began < 50
    others[0].join()


def test_an_interrupt_ends_all_stages(make: Builder) -> None:
    text = (
        "FROM base AS a\nRUN echo begun; sleep 600\nFROM base AS b\nRUN sleep 600\n"
        "FROM base\nCOPY --from=a /etc /a\nCOPY --from=b /etc /b\n"
    )

    def interrupt(event: Event) -> None:
        if isinstance(event, Output) and b"begun" in event.data:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    (make.context({}) / "Dockerfile").write_text(text)
    with pytest.raises(KeyboardInterrupt):
        build(make.store, make.folder, progress=interrupt)
    assert make.store.containers() == []
    assert [thread.name for thread in threading.enumerate() if "stage" in thread.name] == []


def test_two_processes_that_need_one_step_do_it_once(based: Store, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("file")
    slow = life.DOCKERFILE.replace("RUN echo 1 > /one", "RUN sleep 1; head -c 8 /dev/urandom > /one")
    (context / "Dockerfile").write_text(slow)
    config = based.config
    based.close()
    command = [sys.executable, life.__file__, str(config.data_root), str(config.exec_root), str(context), "0"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0, 0]
    with layerstore.open(config=config) as store:
        images = [image for image in store.images() if "base:latest" not in image.tags]
        assert len(images) == 1, "random content is there once"
        assert store.check() == []


def test_what_fails_can_be_looked_into(make: Builder, look: Look) -> None:
    with pytest.raises(BuildError) as caught:
        make("FROM base\nENV A=b\nWORKDIR /w\nRUN echo half > half; exit 1\n", on_failure="checkpoint")
    box = make.store.container(str(caught.value.container))
    assert [point.label for point in box.checkpoints()] == ["failed"]
    runtime = Runtime(make.store)
    options = runtime.options(box)
    assert options.working_dir == "/w"
    assert "A=b" in options.env
    box.remove()
