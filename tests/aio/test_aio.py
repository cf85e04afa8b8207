"""The asyncio face: what is awaited, what becomes of what is cancelled, and what the faces say of themselves."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tools import aio_types, interface

import layerstore
from layerstore import aio
from layerstore.aio.faces import AT_ONCE, ENTERED, FACES, Face, Shape, attributes, class_of
from layerstore.aio.openings import Iteration
from layerstore.aio.streams import Stream
from layerstore.aio.threads import Threads
from layerstore.runtime import ExecOptions, RunOptions, Streams
from support import images, programs
from support.properties import NIGHTLY

PATIENCE = 60.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return programs.archive(tmp_path_factory.mktemp("image") / "programs.tar")


@pytest.fixture
def config(backing: Callable[[str], Path]) -> layerstore.Config:
    folder = backing("ext4")
    return layerstore.Config(data_root=folder / "store", exec_root=folder / "run")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


async def until(happens: asyncio.Event) -> None:
    await asyncio.wait_for(happens.wait(), PATIENCE)


class Gate:
    """Progress at which a load stands still, until it is opened."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self.opened = threading.Event()

    def __call__(self, label: str, done: int, size: int | None) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self.opened.wait(PATIENCE)


@pytest.mark.root
@pytest.mark.tools("sh", "cat", "sleep")
def test_a_store_is_used_and_a_hundred_containers_fork_at_once(config: layerstore.Config, archive: Path) -> None:
    async def work() -> None:
        async with aio.open_store(config=config, threads=8) as store:
            [image] = await store.load(archive)
            assert isinstance(image, aio.Image)
            assert image.id == store.sync.images()[0].id
            box = await store.create_container(image, name="first")
            async with box.mount() as root:
                (root / "etc/motd").write_text("hello\n")
                assert await box.status == "mounted"
                assert [found.id for found, _ in await store.mounted()] == [box.id]
            assert await box.mountpoint is None
            async with store.browse(box) as tree:
                assert "motd" in [entry.name async for entry in tree.walk("etc")]
                assert {entry.name for entry in await tree.walk("etc").rest()} >= {"motd", "passwd"}
            point = await box.checkpoint("warm")

            forks = await asyncio.gather(*(point.fork() for _ in range(100)))

            assert len({fork.id for [fork] in forks}) == 100
            assert sum(thread.name.startswith("layerstore-aio") for thread in threading.enumerate()) <= 8
            [last] = forks[-1]
            assert len(await last.changes(since=box)) == 0
            await last.remove(lasts=False)
            assert len(await store.containers()) == 100
            async with store.lock("test.aio") as held, store.lock("test.aio", wait=False) as again:
                assert (held, again) == (True, False)
            async with store.create_container(image) as other:
                done = await other.run(["cat", "/etc/passwd"], isolation="process", stdout=subprocess.PIPE, text=True)
                assert done.stdout == programs.PASSWD
                async with other.popen(
                    ["cat"], isolation="process", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                ) as program:
                    assert program.stdin is not None
                    assert program.stdout is not None
                    await program.stdin.write("one\ntw")
                    assert await program.stdout.readline() == "one\n"
                    await program.stdin.write("ö\n")
                    program.stdin.close()
                    assert [line async for line in program.stdout] == ["twö\n"]
                    assert await program.wait() == 0
            assert await store.check() == []

    run(work())


@pytest.mark.root
@pytest.mark.tools("sh", "sleep")
def test_who_is_cancelled_leaves_no_program(config: layerstore.Config, archive: Path) -> None:
    async def work() -> None:
        async with aio.open_store(config=config, threads=1) as store:
            await store.load(archive)
            box = await store.create_container("debian")
            begun = asyncio.Event()
            loop = asyncio.get_running_loop()
            sleeping = asyncio.create_task(
                box.run(
                    ["sleep", "1000"],
                    isolation="process",
                    started=lambda _: loop.call_soon_threadsafe(begun.set),
                )
            )
            await until(begun)
            assert await box.status == "running", "the pool's one thread is free meanwhile"
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping
            assert await box.processes() == []

            async def inside() -> None:
                async with box.popen(["sleep", "1000"], isolation="process"):
                    begun.set()
                    await asyncio.sleep(PATIENCE)

            begun.clear()
            sleeping = asyncio.create_task(inside())
            await until(begun)
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping
            assert await box.processes() == []

            program = await box.popen(["sleep", "1000"], isolation="process")
            waiting = asyncio.create_task(program.wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await program.poll() is None, "whoever waits no more has not ended it"
            await program.send_signal(signal.SIGKILL)
            assert await program.wait() == 137

    run(work())


@pytest.mark.root
@pytest.mark.tools("crun", "conmon")
@pytest.mark.skipif(not NIGHTLY, reason="by night: containers are started by an engine")
def test_who_waits_for_a_container_and_is_cancelled_lets_it_go_on(config: layerstore.Config, archive: Path) -> None:
    async def cancelled(work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        await asyncio.sleep(0.3)  # whether it waits by then or not, the same becomes of it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def work() -> None:
        async with aio.open_store(config=config) as store:
            await store.load(archive)
            runtime = aio.Runtime(store)
            box = await runtime.create("debian", RunOptions(args=("sleep", "1000")))
            await runtime.start(box)
            await cancelled(runtime.exec(box, ExecOptions(args=("sleep", "1000")), Streams(None, None, None)))
            await cancelled(runtime.wait(box))
            await cancelled(runtime.logs(box, follow=True).rest())
            assert (await runtime.state(box)).is_running
            await runtime.remove(box, force=True)
            assert await store.check() == []

    run(work())


@pytest.mark.root
def test_a_load_is_cancelled_in_the_middle_and_nothing_is_left(config: layerstore.Config, tmp_path: Path) -> None:
    layers = [images.layer(images.file(f"file{number}", bytes(1 << 20))) for number in range(4)]
    archive = images.docker_archive(tmp_path / "several.tar", layers, ["several:latest"])

    async def work() -> None:
        store = await aio.open_store(config=config)
        gate = Gate()
        loading = asyncio.create_task(store.load(archive, progress=gate))
        await until(gate.reached)
        loading.cancel()
        loading.cancel()  # a second time changes nothing
        await asyncio.sleep(0)
        assert not loading.done(), "it waits for the thread"
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert await store.images() == []
        assert await store.check() == []
        [image] = await store.load(archive)  # no lock is in the way
        assert len(image.layers) == 4
        await store.close()

        async with aio.open_store(config=config) as store:
            assert await store.check(content=True) == []

    run(work())


@pytest.mark.root
def test_errors_pass_as_they_are_and_closing_waits(config: layerstore.Config, tmp_path: Path) -> None:
    archive = images.docker_archive(tmp_path / "one.tar", [images.layer(images.file("file", "x"))], ["one:latest"])
    own = ValueError("the caller's")

    def raising(label: str, done: int, size: int | None) -> None:
        raise own

    async def work() -> None:
        store = await aio.open_store(config=config)
        with pytest.raises(layerstore.NotFound) as caught:
            await store.image("nothing")
        with pytest.raises(layerstore.NotFound) as same:
            store.sync.image("nothing")
        assert (str(caught.value), caught.value.remedy) == (str(same.value), same.value.remedy)
        with pytest.raises(ValueError, match="the caller's") as mine:
            await store.load(archive, progress=raising)
        assert mine.value is own

        gate = Gate()
        loading = asyncio.create_task(store.load(archive, progress=gate))
        await until(gate.reached)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        with pytest.raises(layerstore.StoreClosed):
            await store.images()
        assert not closing.done()
        closing.cancel()  # who is told to go closes first
        await asyncio.sleep(0)
        assert not closing.done()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(layerstore.StoreClosed):
            store.sync.images()
        assert [image.tags for image in await loading] == [("one:latest",)]
        with pytest.raises(layerstore.StoreClosed):
            async with store.browse("one"):
                pass

    run(work())


def test_what_nobody_waits_for_is_given_back_and_what_has_not_begun_never_does() -> None:
    entered, done = threading.Event(), threading.Event()
    given_back: list[str] = []
    never: list[str] = []

    def mounting() -> str:
        entered.set()
        assert done.wait(PATIENCE)
        return "mount"

    async def work() -> None:
        threads = Threads(1)
        first = asyncio.create_task(threads.do(mounting, undo=given_back.append))
        second = asyncio.create_task(threads.do(lambda: never.append("begun")))
        await asyncio.to_thread(entered.wait, PATIENCE)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        first.cancel()
        await asyncio.sleep(0)
        done.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert threads.was_stopped
        await threads.close()

    run(work())
    assert (given_back, never) == (["mount"], [])


def test_all_that_is_left_of_a_pipe_and_who_is_cancelled_takes_nothing() -> None:
    async def work() -> None:
        end, write = os.pipe()
        with open(end, "rb", buffering=0) as file, open(write, "wb", buffering=0) as into:
            stream = Stream(file)
            reading = asyncio.create_task(stream.read())
            into.write(b"one\ntwo")
            while select.select([file], [], [], 0)[0]:
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            into.write(b" and three")
            into.close()
            assert await stream.readline() == b"one\n"
            assert await stream.read() == b"two and three"
            assert await stream.read() == b""

    run(work())


def test_a_function_that_stops_an_iteration_cancels_nobody() -> None:
    async def work() -> None:
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await aio.call(next, iter(()))
        assert isinstance(caught.value.__cause__, StopIteration)

    run(work())


def test_of_two_threads_that_use_a_face_first_one_makes_what_is_behind_it() -> None:
    begun, go_on, made = threading.Event(), threading.Event(), list[object]()

    def make() -> object:
        begun.set()
        assert go_on.wait(PATIENCE)
        made.append(object())
        return made[-1]

    own = Face(None, Threads(1), make=make)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: own.sync)
        assert begun.wait(PATIENCE)
        second = pool.submit(lambda: own.sync)
        go_on.set()
        assert first.result(PATIENCE) is second.result(PATIENCE) is made[0]
    assert len(made) == 1


# --- what the faces say of themselves


def test_each_public_class_that_asks_the_system_has_a_face() -> None:
    """But for values, drivers, and what a registry has, for which `aio.call` is enough."""
    kinds = {
        thing.__name__: thing
        for _, _, thing in interface.names(but="layerstore.aio")
        if isinstance(thing, type) and any(hasattr(found, "__wrapped__") for found in vars(thing).values())
    }
    assert kinds.keys() - FACES.keys() <= {
        "Changes",
        "IdMap",
        "Manifest",
        "Order",
        "RegistryFileSystem",
        "RemoteTree",
        "StorageDriver",
    }
    for name, home in FACES.items():
        kind = getattr(import_module(home), name)
        assert hasattr(kind, "__enter__") == (name in ENTERED) or name in ("Tree",), name
        assert set(AT_ONCE.get(name, ())) <= {one for one, *_ in attributes(kind)}, name


def test_the_types_are_those_of_the_classes_of_today() -> None:
    assert aio_types.stub() == aio_types.FILE.read_text(), "run `python -m tools.aio_types`"


@pytest.mark.skipif(not NIGHTLY, reason="by night: mypy reads the whole library")
def test_mypy_finds_the_types_and_the_classes_alike(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text("layerstore\\.aio\\.faces\\..*\nlayerstore\\.aio\\.Runtime\\.__init__\n")
    words = [
        sys.executable,
        "-m",
        "mypy.stubtest",
        "--allowlist",
        allowed,
        "--ignore-missing-stub",
        "--ignore-unused-allowlist",
    ]
    done = subprocess.run([*words, "layerstore.aio"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.root
def test_what_is_told_at_once_asks_nobody_and_what_is_awaited_does(config: layerstore.Config, archive: Path) -> None:
    with layerstore.open(config=config) as store:
        [image] = store.load(archive)
        box = store.create_container(image, name="first")
        point = box.checkpoint("one")
        volume = store.volumes.create("data")
        live: dict[str, Any] = {"Store": store, "Image": image, "Container": box, "Checkpoint": point, "Volume": volume}
        with store.browse(box) as tree:
            live["Entry"] = tree.find("etc/passwd")
            wrong = []
            for name, thing in live.items():
                for attribute, shape, found in attributes(getattr(layerstore, name)):
                    if shape not in (Shape.AT_ONCE, Shape.AWAITED) or not isinstance(found, property | cached_property):
                        continue
                    with asked() as calls:
                        getattr(thing, attribute)
                    if bool(calls) != (shape == Shape.AWAITED):
                        wrong.append((name, attribute, calls[:3]))
        assert wrong == []


@contextmanager
def asked() -> Iterator[list[str]]:
    """While inside: the calls of C that ask the system or the database."""
    calls: list[str] = []

    def profile(frame: Any, event: str, function: Any) -> None:
        if event == "c_call":
            home = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
            if home in ("posix", "sqlite3", "fcntl", "_io", "select") or "cffi" in str(home):
                function.__name__ == "fspath" or calls.append(f"{home}.{function.__name__}")

    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def test_a_face_has_the_words_of_what_is_behind_it() -> None:
    for name in FACES:
        kind, shown = getattr(import_module(FACES[name]), name), class_of(name)
        assert shown.__doc__ == kind.__doc__
        with suppress(AttributeError):
            assert shown.load.__doc__ == kind.load.__doc__  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["break", "return", "aclosing", "end", "rest", "error"])
def test_what_an_iterator_holds_is_given_back_at_once_and_beside_the_loop(how: str) -> None:
    closed: list[threading.Thread] = []
    gate = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            yield 1
            yield 2
            if how == "error":
                raise LookupError
        finally:
            if how in ("break", "return"):
                assert gate.wait(PATIENCE)
            closed.append(threading.current_thread())

    async def leave(threads: Threads) -> None:
        items = Iteration(threads, numbers, lambda one: one, alone=False)
        if how == "aclosing":
            async with aclosing(items):
                async for _ in items:
                    break
            return
        if how == "rest":
            assert await items.rest() == [1, 2]
            return
        async for _ in items:
            if how == "break":
                break
            if how == "return":
                return

    async def work() -> None:
        threads = Threads(2)
        with suppress(LookupError):
            await leave(threads)
        if how in ("break", "return"):
            assert closed == [], "nobody waits"
            gate.set()
        else:
            assert len(closed) == 1
        await threads.close()
        [thread] = closed
        assert thread is not threading.main_thread()

    run(work())


def test_an_iterator_that_outlives_its_loop_is_closed_by_whoever_lets_go_of_it() -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(1)

    kept: list[Iteration[int]] = []

    async def work() -> None:
        kept.append(Iteration(Threads(1), numbers, lambda one: one, alone=False))
        async for _ in kept[0]:
            break

    run(work())
    assert closed == []
    kept.clear()
    gc.collect()
    assert closed == [1]


def test_what_is_let_go_where_there_is_no_thread_is_done_and_closing_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def work() -> None:
        threads = Threads(1)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none_left)
            threads.let_go(lambda: done.append("closed"))
        async with asyncio.timeout(PATIENCE):
            await threads.close()

    run(work())
    assert done == ["closed"]
