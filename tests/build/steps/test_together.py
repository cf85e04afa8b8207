"""What is done side by side, and what waits for whom."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from layerstore import Image, KernelError, Store
from layerstore.build import Secret
from layerstore.build.cache import claims
from layerstore.build.steps.agents import passing_on
from layerstore.build.steps.sources import Sources
from layerstore.build.steps.stopping import Stop, Stopped
from layerstore.build.steps.together import Once, together
from support.building import Builder

OURS = ("layerstore-stage", "layerstore-ssh", "layerstore-first-process")
"""What threads of a build are called."""


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives no thread for what is done together."""
    plain = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(OURS) or isinstance(thread, threading.Timer):
            raise RuntimeError("can't start new thread")
        plain(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.root
@pytest.mark.usefixtures("without_threads")
def test_stages_for_which_there_is_no_thread_are_built_one_after_the_other(make: Builder) -> None:
    files = {"f": "f"}
    make("FROM scratch AS a\nCOPY f /a\nFROM scratch AS b\nCOPY --from=a /a /b\nFROM b\nCOPY --from=a /a /c\n", files)
    assert len(make.done) == 3


@pytest.mark.root
@pytest.mark.tools("crun")
@pytest.mark.usefixtures("without_threads")
def test_programs_run_without_threads_that_watch_them(make: Builder, tmp_path: Path) -> None:
    make("FROM base\nRUN --mount=type=secret,id=key,env=KEY echo $KEY > /x\n", secrets=[Secret("key", value=b"k")])
    assert len(make.done) == 1
    with pytest.raises(KernelError, match="clone"), passing_on(str(tmp_path / "s"), "", mode=0, uid=0, gid=0):
        pass


def test_the_first_failure_ends_the_others() -> None:
    stop, begun = Stop(), threading.Event()

    def fail() -> None:
        begun.wait(10)
        raise ValueError("first")

    def wait() -> None:
        begun.set()
        while True:
            stop.check()

    with pytest.raises(ValueError, match="first"):
        together([fail, wait], stop, name="layerstore-test")
    with pytest.raises(Stopped):
        stop.check()
    stop.close()


def test_an_interrupt_that_was_only_noted_ends_them_all() -> None:
    """As one that comes in the moment before the main thread waits for them."""
    stop = Stop()
    was_told: list[bool] = []

    def wait() -> None:
        deadline = time.monotonic() + 20
        while not stop.is_set and time.monotonic() < deadline:
            time.sleep(0.01)
        was_told.append(stop.is_set)

    def note() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        wait()

    with pytest.raises(KeyboardInterrupt):
        together([wait, note], stop, name="layerstore-test")
    assert was_told == [True, True]
    stop.close()


def test_whoever_asks_for_another_key_waits_for_nobody() -> None:
    once: Once[str, str] = Once()
    second = threading.Event()
    thread = threading.Thread(target=once.get, args=("a", lambda: str(second.wait(10))))
    thread.start()
    assert once.get("b", lambda: second.set() or "b") == "b"
    thread.join()
    assert once.get("a", lambda: "again") == "True"


@pytest.mark.root
def test_bases_are_looked_up_side_by_side(make: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    make("FROM scratch\nCOPY f /\n", {"f": "f"}, tags=["other"])
    together_here = threading.Barrier(2)
    plain = Sources._get

    def get(sources: Sources, *wanted: Any) -> Image:
        together_here.wait(20)
        return plain(sources, *wanted)

    monkeypatch.setattr(Sources, "_get", get)
    make("FROM base AS one\nFROM other\nCOPY --from=one /etc/passwd /\n")


def test_to_look_who_has_a_lock_hinders_nobody(store: Store) -> None:
    assert claims.is_free(store, "build mount x")
    for shared in (False, True):
        with store.lock("build mount x", shared=shared):
            assert not claims.is_free(store, "build mount x")
    looking = threading.Event()

    def look() -> None:
        while not looking.is_set():
            claims.is_free(store, "build mount x")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(2000):
            with store.lock("build mount x", wait=False) as is_mine:
                assert is_mine
    finally:
        looking.set()
        thread.join()
