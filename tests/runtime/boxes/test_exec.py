"""One more program in a container that runs, and being its streams: by each engine, without a terminal and with one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerstore import CannotRun, ConfigError, Container, NotFound
from layerstore.runtime import ExecOptions, Runtime
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.life import runtime as life
from layerstore.runtime.life import state
from layerstore.runtime.life.places import Folder
from layerstore.runtime.life.rows import Row
from layerstore.runtime.streams import Streams, terminal
from runtime.life.conftest import Make, eventually
from runtime.streams.conftest import Screen, signal_ourselves

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "runc", "conmon")]


@pytest.fixture(params=["crun", "runc"])
def running(request: pytest.FixtureRequest, make: Make, runtime: Runtime) -> Container:
    """A container that does nothing, by each engine."""
    container = make("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done", runtime=request.param)
    runtime.start(container)
    return container


@contextmanager
def written() -> Iterator[tuple[Streams, Path, Path]]:
    out, err = os.memfd_create("out"), os.memfd_create("err")
    try:
        yield Streams(None, out, err), Path(f"/proc/self/fd/{out}"), Path(f"/proc/self/fd/{err}")
    finally:
        os.close(out)
        os.close(err)


def test_exec_is_in_the_container(runtime: Runtime, running: Container) -> None:
    with written() as (streams, out, err):
        options = ExecOptions(("sh", "-c", "echo $A; pwd; id -u; echo oh >&2; kill -0 1 && exit 5"), env=("A=b",))
        assert runtime.exec(running, options, streams) == 5
        assert (out.read_text(), err.read_text()) == ("b\n/tmp\n0\n", "oh\n")
    with written() as (streams, out, err):
        options = ExecOptions(("sh", "-c", "pwd; id -u; id -g"), working_dir="/var", user="someone:staff")
        assert runtime.exec(running, options, streams) == 0
        assert out.read_text() == "/var\n1000\n50\n"
    assert list(runtime.folder(running).path.glob("exec-*")) == []


def test_exec_of_what_cannot_be_executed(runtime: Runtime, running: Container) -> None:
    with written() as (streams, _, _):
        with pytest.raises(CannotRun, match="nope") as missing:
            runtime.exec(running, ExecOptions(("nope",)), streams)
        with pytest.raises(CannotRun) as refused:
            runtime.exec(running, ExecOptions(("/etc/passwd",)), streams)
        with pytest.raises(NotFound, match="unable to find user ghost"):
            runtime.exec(running, ExecOptions(("true",), user="ghost"), streams)
        with pytest.raises(ConfigError, match="no exec command"):
            runtime.exec(running, ExecOptions(()), streams)
    assert (missing.value.code, refused.value.code) == (127, 126)


@pytest.mark.parametrize("more", [{}, {"detach": True}, {"tty": True}], ids=["plain", "detached", "tty"])
def test_exec_where_there_is_no_folder_has_docker_s_exit_code(
    runtime: Runtime, running: Container, more: dict[str, bool]
) -> None:
    for folder in ("/nope", "/etc/passwd"):
        with written() as (streams, _, _), pytest.raises(CannotRun, match=folder) as refused:
            runtime.exec(running, ExecOptions(("true",), working_dir=folder, **more), streams)
        assert refused.value.code == 126
        assert refused.value.remedy == "Begin in a folder that the container has, and that its user may enter."


def test_exec_of_too_long_a_list_is_refused(runtime: Runtime, running: Container) -> None:
    with pytest.raises(CannotRun, match="cannot execute echo: argument list too long: the argument has") as refused:
        runtime.exec(running, ExecOptions(("echo", "x" * (1 << 17))))
    assert refused.value.code == 126


def test_exec_reads_what_it_is_given(runtime: Runtime, running: Container) -> None:
    with written() as (streams, out, _):
        source, ours = os.pipe()
        os.write(ours, b"given")
        os.close(ours)
        options = ExecOptions(("cat",), interactive=True)
        assert runtime.exec(running, options, Streams(source, streams.stdout, None)) == 0
        os.close(source)
        assert out.read_text() == "given"


def test_exec_that_is_detached_goes_on(runtime: Runtime, running: Container) -> None:
    assert runtime.exec(running, ExecOptions(("sh", "-c", "sleep 0.2; echo done > /tmp/it"), detach=True)) == 0
    with running.mount() as root:
        eventually(lambda: (root / "tmp/it").exists() and (root / "tmp/it").read_text(), "done\n")


def test_exec_that_is_detached_may_have_a_terminal(runtime: Runtime, running: Container) -> None:
    line = "test -t 0 && sleep 0.2 && echo on && echo done > /tmp/it"
    assert runtime.exec(running, ExecOptions(("sh", "-c", line), tty=True, detach=True)) == 0
    with running.mount() as root:
        eventually(lambda: (root / "tmp/it").exists() and (root / "tmp/it").read_text(), "done\n")
    with pytest.raises(CannotRun, match="nope") as missing:
        runtime.exec(running, ExecOptions(("nope",), tty=True, detach=True))
    assert missing.value.code == 127


def test_exec_has_a_terminal(runtime: Runtime, running: Container) -> None:
    screen = Screen()
    options = ExecOptions(("sh", "-c", "echo ready; read line; echo got $line; exit 6"), tty=True, interactive=True)

    def person() -> None:
        try:
            screen.wait_for(b"ready")
        finally:  # lest the other thread waits for ever
            screen.type(b"it\r")

    thread = threading.Thread(target=person)
    thread.start()
    assert runtime.exec(running, options, Streams(screen.fd, screen.fd, screen.fd)) == 6
    thread.join()
    assert b"got it" in screen.read()
    screen.close()


def test_what_cannot_be_executed_is_told_at_a_terminal_once(runtime: Runtime, running: Container) -> None:
    screen = Screen()
    streams = Streams(screen.fd, screen.fd, screen.fd)
    for options in (ExecOptions(("nope",), tty=True), ExecOptions(("true",), tty=True, working_dir="/no/such")):
        with pytest.raises(CannotRun, match=r"nope|/no/such") as missing:
            runtime.exec(running, options, streams)
        assert (b"o such" in screen.read() or b"not found" in screen.read()) is missing.value.is_told
        assert "\x1b" not in str(missing.value)
    screen.close()


def test_exec_has_the_size_of_our_terminal(runtime: Runtime, running: Container) -> None:
    screen = Screen()
    terminal.set_size(screen.fd, (24, 80))
    line = "echo ready; while read line; do stty size; done"
    options = ExecOptions(("sh", "-c", line), tty=True, interactive=True)

    def person() -> None:
        try:
            screen.wait_for(b"ready")
            screen.type_until(b"\r", b"24 80")
            terminal.set_size(screen.fd, (50, 132))
            signal_ourselves(signal.SIGWINCH)
            screen.type_until(b"\r", b"50 132")
        finally:
            screen.type(b"\x04")

    thread = threading.Thread(target=person)
    thread.start()
    assert runtime.exec(running, options, Streams(screen.fd, screen.fd, screen.fd)) == 0
    thread.join()
    assert b"50 132" in screen.read()
    screen.close()


def test_exec_goes_on_when_our_terminal_goes(runtime: Runtime, running: Container) -> None:
    screen = Screen()
    line = (
        "trap '' HUP; echo ready; until [ -e /tmp/gone ]; do sleep 0.05; done;"
        "for i in 1 2 3; do echo $i; sleep 0.05; done; touch /tmp/on"
    )
    options = ExecOptions(("sh", "-c", line), tty=True, interactive=True)

    def person() -> None:
        try:
            screen.wait_for(b"ready")
            # In the kernel's order: who sees that the terminal has gone was told before.
            signal_ourselves(signal.SIGHUP)
        finally:  # lest the other thread waits for ever
            os.close(screen.mine)

    thread = threading.Thread(target=person)
    thread.start()
    streams = Streams(screen.fd, screen.fd, screen.fd, signals=False)
    assert runtime.exec(running, options, streams) == 0
    thread.join()
    with running.mount() as root:
        assert not (root / "tmp/on").exists()
        (root / "tmp/gone").touch()
        eventually((root / "tmp/on").exists, True)
    os.close(screen.fd)


def test_exec_is_let_go_of_by_the_keys(runtime: Runtime, running: Container) -> None:
    screen = Screen()
    line = "echo ready; until [ -e /tmp/gone ]; do sleep 0.05; done; echo on; touch /tmp/on"
    options = ExecOptions(("sh", "-c", line), tty=True, interactive=True)

    def person() -> None:
        try:
            screen.wait_for(b"ready")
        finally:
            screen.type(b"\x10\x11")

    thread = threading.Thread(target=person)
    thread.start()
    assert runtime.exec(running, options, Streams(screen.fd, screen.fd, screen.fd)) == 0
    thread.join()
    with running.mount() as root:
        (root / "tmp/gone").touch()
        eventually((root / "tmp/on").exists, True)
    screen.close()


@pytest.mark.parametrize("is_noted", [False, True])
def test_exec_passes_signals_on(runtime: Runtime, running: Container, *, is_noted: bool) -> None:
    with written() as (streams, out, _):

        def person() -> None:
            eventually(out.read_text, "ready\n")
            signal_ourselves(signal.SIGUSR1, is_noted=is_noted)

        thread = threading.Thread(target=person)
        thread.start()
        script = "trap 'exit 8' USR1; echo ready; while [ $((n = n + 1)) -le 600 ]; do sleep 0.05; done"
        line = ("sh", "-c", script)
        assert runtime.exec(running, ExecOptions(line), streams) == 8
        thread.join()


def test_exec_needs_one_that_runs(runtime: Runtime, make: Make) -> None:
    container = make("sleep", "60")
    with pytest.raises(NotRunning, match="is not running"):
        runtime.exec(container, ExecOptions(("true",)))
    with pytest.raises(NotRunning, match="cannot attach to a stopped container"):
        runtime.attach(container)
    runtime.start(container)
    runtime.pause(container)
    with pytest.raises(NotRunning, match="paused, unpause"):
        runtime.exec(container, ExecOptions(("true",)))
    with pytest.raises(NotRunning, match="cannot attach to a paused container"):
        runtime.attach(container)
    runtime.unpause(container)


def test_attached_to_its_streams_until_its_end(runtime: Runtime, make: Make) -> None:
    container = make("sh", "-c", "read line; echo got $line; exit 4", interactive=True)
    runtime.start(container)
    with written() as (streams, out, _):
        source, ours = os.pipe()
        os.write(ours, b"it\n")
        assert runtime.attach(container, Streams(source, streams.stdout, None)) == 4
        os.close(source)
        os.close(ours)
        assert out.read_text() == "got it\n"


def test_input_that_ends_ends_that_of_one_that_was_attached_from_the_start(runtime: Runtime, make: Make) -> None:
    container = make("cat", interactive=True)
    with written() as (streams, out, _):
        source, ours = os.pipe()
        os.write(ours, b"all\n")
        os.close(ours)
        assert runtime.run(container, Streams(source, streams.stdout, None)) == 0
        os.close(source)
        assert out.read_text() == "all\n"


def test_what_ends_between_two_looks_and_is_removed_tells_its_code(
    runtime: Runtime, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []

    def late(row: Row, folder: Folder) -> bool:
        """It runs still at the first look, and has ended just after that."""
        looks.append(state.has_ended(row, folder))
        while not state.has_ended(row, folder):
            time.sleep(0.001)
        return len(looks) > 1

    container = make("sh", "-c", "exit 5", tty=True, remove=True)
    with written() as (streams, _, _):
        monkeypatch.setattr(life, "has_ended", late)
        assert runtime.run(container, streams) == 5
    assert len(looks) == 2
    with pytest.raises(NotFound):
        runtime.store.container(container.id)


def test_logs_are_followed_to_the_end(runtime: Runtime, make: Make) -> None:
    container = make("sh", "-c", "echo one; echo two >&2; sleep 0.3; echo three")
    runtime.start(container)
    found = [(entry.stream, entry.data) for entry in runtime.logs(container, follow=True)]
    assert found == [(1, b"one\n"), (2, b"two\n"), (1, b"three\n")]
    assert [entry.data for entry in runtime.logs(container, tail=1)] == [b"three\n"]
    began = runtime.state(container).started
    assert began is not None
    assert list(runtime.logs(container, until=int(began.timestamp() * 1e9) - 10**9)) == []


def test_who_runs_and_what_it_takes(runtime: Runtime, make: Make) -> None:
    line = "sleep 61 & while :; do :; done"
    busy = make("sh", "-c", line, memory=64 << 20)
    idle = make("sleep", "62")
    for container in (busy, idle):
        runtime.start(container)
    eventually(lambda: [row[-1] for row in runtime.top(busy).rows][1:], ["sleep 61"])  # a fork has its parent's words
    table = runtime.top(busy)
    assert table.titles == ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
    first, second = sorted(table.rows, key=lambda row: int(row[1]))
    assert (first[0], first[1], first[-1]) == ("root", str(runtime.state(busy).pid), f"sh -c {line}")
    assert (second[2], second[-1]) == (first[1], "sleep 61")
    assert first[4].count(":") == 1
    assert runtime.top(busy, ["-o", "pid,comm"]).rows == ((first[1], "sh"), (second[1], "sleep"))
    with pytest.raises(CannotRun, match="no column PID"):
        runtime.top(busy, ["-o", "comm"])
    with pytest.raises(CannotRun, match="ps --wrong"):
        runtime.top(busy, ["--wrong"])

    began = time.monotonic()
    taken = runtime.stats([busy, idle], interval=0.5)
    assert 0.5 <= time.monotonic() - began < 50
    assert set(taken) == {busy.id, idle.id}
    assert taken[idle.id].cpu < 10
    # Of one processor, which others want, too: it does not get a tenth of it at any moment.
    eventually(lambda: runtime.stats([busy], interval=0.2)[busy.id].cpu > 10, True, seconds=120)
    assert (taken[busy.id].pids, taken[idle.id].pids) == (2, 1)
    assert taken[busy.id].memory_limit == 64 << 20 < taken[idle.id].memory_limit
    assert 0 < taken[busy.id].memory < 64 << 20
    assert taken[busy.id].memory_share == pytest.approx(100 * taken[busy.id].memory / (64 << 20))
    runtime.kill(idle)
    assert set(runtime.stats([busy, idle], interval=0)) == {busy.id}
    with pytest.raises(NotRunning):
        runtime.top(idle)
