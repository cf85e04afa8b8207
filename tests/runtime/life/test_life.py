"""The life of a container: run, started, stopped, waited for, removed, by each engine that is here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from layerstore import CannotRun, ConfigError, InUse, NotFound, Store
from layerstore.runtime import Runtime
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.life import rows
from layerstore.runtime.options import Isolation, MountOption
from layerstore.runtime.streams import Streams
from runtime.life.conftest import Make, eventually

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "runc", "conmon")]


@contextmanager
def written() -> Iterator[tuple[Streams, Path]]:
    """Streams whose output and errors go to a file."""
    fd = os.memfd_create("written")
    try:
        yield Streams(stdin=None, stdout=fd, stderr=fd), Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("engine", ["crun", "runc"])
@pytest.mark.parametrize("how", ["directly", "held"])
def test_a_program_runs_and_its_exit_code_comes_back(make: Make, runtime: Runtime, engine: str, how: str) -> None:
    box = make("sh", "-c", "echo out; ps -ef; exit 7", runtime=engine, remove=how == "directly")
    with written() as (streams, file):
        assert runtime.run(box, streams) == 7
        lines = file.read_text().splitlines()
    assert lines[0] == "out"
    assert [line.split()[-1] for line in lines[1:]] == ["CMD", "7", "-ef"]  # its own processes, and no others
    if how == "directly":
        assert runtime.store.containers() == []
    else:
        state = runtime.state(box)
        assert (state.status, state.exit_code, state.pid) == ("exited", 7, 0)
        assert state.started is not None
        assert state.finished is not None
        assert state.started <= state.finished
        assert "stdout F out\n" in runtime.folder(box).log.read_text()
    assert runtime.places.all() == []


@pytest.mark.parametrize("how", ["directly", "held"])
def test_a_program_that_a_signal_ends_has_a_shell_s_exit_code(make: Make, runtime: Runtime, how: str) -> None:
    box = make("sh", "-c", "kill -9 $$; sleep 60", remove=how == "directly", init=False)

    def kill() -> None:
        eventually(lambda: bool(runtime.folder(box).init()) and runtime.state(box).is_running, True)
        runtime.kill(box)

    other = threading.Thread(target=kill)
    other.start()
    assert runtime.run(box, Streams(stdin=None)) == 137
    other.join()


@pytest.mark.parametrize("engine", ["crun", "runc"])
@pytest.mark.parametrize("how", ["directly", "held"])
@pytest.mark.parametrize(("program", "code"), [("nope", 127), ("/nope", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed_has_docker_s_exit_code(
    make: Make, runtime: Runtime, engine: str, how: str, program: str, code: int
) -> None:
    box = make(program, runtime=engine, remove=how == "directly")
    with written() as (streams, file), pytest.raises(CannotRun) as told:
        runtime.run(box, streams)
    assert told.value.code == code
    assert '"level"' not in str(told.value)
    if how == "directly":
        assert runtime.store.containers() == []
        assert not file.exists() or told.value.is_told
    else:
        state = runtime.state(box)
        assert (state.status, state.exit_code, state.error) == ("created", code, told.value.message)
    assert runtime.places.all() == []


@pytest.mark.parametrize("engine", ["crun", "runc"])
@pytest.mark.parametrize("how", ["directly", "held"])
def test_what_is_no_program_after_all_is_told_in_words(make: Make, runtime: Runtime, engine: str, how: str) -> None:
    box = make("/bad", runtime=engine, remove=how == "directly")
    with box.mount() as root:
        (root / "bad").write_bytes(b"\x7fELF, it says")
        (root / "bad").chmod(0o755)
    with written() as (streams, file):
        assert runtime.run(box, streams) == 1
        [line] = file.read_text().splitlines()
    assert line.lower().endswith("exec format error")
    assert "level" not in line


@pytest.mark.parametrize("engine", ["crun", "runc"])
def test_one_that_goes_on_by_itself(make: Make, runtime: Runtime, engine: str) -> None:
    box = make("sh", "-c", "echo begun; exec sleep 60", runtime=engine)
    assert runtime.state(box).status == "created"
    runtime.start(box)
    runtime.start(box)  # is left alone
    state = runtime.state(box)
    assert state.status == "running"
    eventually(lambda: Path(os.readlink(f"/proc/{state.pid}/exe")).name, "sleep")
    assert [box.id] == list(runtime.states())
    runtime.pause(box)
    assert runtime.state(box).status == "paused"
    with pytest.raises(NotRunning, match="already paused"):
        runtime.pause(box)
    runtime.unpause(box)
    with pytest.raises(NotRunning, match="is not paused"):
        runtime.unpause(box)
    with runtime.frozen(box):
        assert runtime.state(box).status == "paused"
    assert runtime.state(box).status == "running"
    with pytest.raises(NotRunning, match="container is running"):
        runtime.remove(box)
    with pytest.raises(InUse):
        box.remove()
    runtime.stop(box, 0.1)  # sleep as pid 1 does not listen to SIGTERM
    assert (runtime.state(box).status, runtime.state(box).exit_code) == ("exited", 137)
    assert runtime.wait(box) == 137
    runtime.start(box)  # once more
    assert runtime.state(box).exit_code == 0
    runtime.remove(box, force=True)
    with pytest.raises(NotFound):
        runtime.state(box)


def test_a_stop_signal_is_the_options_the_image_s_or_sigterm(make: Make, runtime: Runtime) -> None:
    script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    box = make("sh", "-c", script, stop_signal="SIGUSR1")
    runtime.start(box)
    eventually(lambda: "ready" in runtime.folder(box).log.read_text(), True)
    runtime.stop(box)
    assert runtime.state(box).exit_code == 5


def test_a_signal_that_is_sent_to_one_that_is_paused_lets_it_go_on(make: Make, runtime: Runtime) -> None:
    box = make("sleep", "60")
    runtime.start(box)
    runtime.pause(box)
    runtime.kill(box)
    assert runtime.state(box).exit_code == 137
    with pytest.raises(NotRunning, match="is not running"):
        runtime.kill(box)


def test_who_waits_is_told_the_exit_code_by_whoever_ran_it(make: Make, runtime: Runtime) -> None:
    box = make("sh", "-c", "sleep 0.3; exit 4")
    runtime.start(box)
    assert runtime.wait(box) == 4


def test_one_that_is_to_be_removed_at_its_end_goes_by_itself(make: Make, runtime: Runtime) -> None:
    box = make("sh", "-c", "until [ -e /tmp/go ]; do sleep 0.05; done", remove=True)
    runtime.start(box)
    state = runtime.state(box)
    assert state.status == "running"
    Path(f"/proc/{state.pid}/root/tmp/go").touch()
    eventually(lambda: runtime.store.containers(), [])
    eventually(lambda: runtime.places.all(), [])
    eventually(lambda: runtime.places.all_kept(), [])


def test_a_container_has_a_tree_of_its_own_and_a_run_leaves_no_trace(make: Make, runtime: Runtime) -> None:
    boxes = [make("sh", "-c", f"echo {n} > /tmp/mine; cat /tmp/mine") for n in range(3)]
    for n, box in enumerate(boxes):
        with written() as (streams, file):
            assert runtime.run(box, streams) == 0
            assert file.read_text() == f"{n}\n"
    assert [[str(change) for change in box.changes()] for box in boxes] == [["C /tmp", "A /tmp/mine"]] * 3


def test_a_mount_point_that_was_made_goes_with_the_run(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("there\n")
    box = make("cat", "/deep/in/here/file", mounts=(MountOption("bind", "/deep/in/here", str(tmp_path)),))
    with written() as (streams, file):
        assert runtime.run(box, streams) == 0
        assert file.read_text() == "there\n"
    assert list(box.changes()) == []


def test_a_bind_whose_source_is_missing_is_refused(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    box = make("true", mounts=(MountOption("bind", "/x", str(tmp_path / "nope")),))
    with pytest.raises(NotFound, match="bind source path does not exist"):
        runtime.run(box)
    assert runtime.state(box).status == "created"
    made = make("true", mounts=(MountOption("bind", "/x", str(tmp_path / "fresh"), make_source=True),))
    assert runtime.run(made) == 0
    assert (tmp_path / "fresh").is_dir()


def test_volumes_are_there_again_in_the_next_run(make: Make, runtime: Runtime) -> None:
    box = make("sh", "-c", "cat /data/x; echo kept > /data/x", mounts=(MountOption("volume", "/data", "keep"),))
    runtime.run(box, Streams(stdin=None, stdout=None, stderr=None))
    assert (runtime.store.volumes.get("keep").mountpoint / "x").read_text() == "kept\n"
    other = make("cat", "/data/x", mounts=(MountOption("volume", "/data", "keep", read_only=True),))
    with written() as (streams, file):
        assert runtime.run(other, streams) == 0
        assert file.read_text() == "kept\n"


def test_an_anonymous_volume_lies_in_its_folder_and_goes_with_the_container(make: Make, runtime: Runtime) -> None:
    box = make("touch", "/data/x", mounts=(MountOption("volume", "/data"),))
    assert runtime.run(box) == 0
    [folder] = (runtime.store.data_root / "volumes").iterdir()
    assert len(folder.name) == 64
    assert os.listdir(folder / "_data") == ["x"]
    runtime.remove(box, volumes=True)
    assert list((runtime.store.data_root / "volumes").iterdir()) == []


def test_two_containers_share_namespaces(make: Make, runtime: Runtime) -> None:
    first = make("sleep", "60", name="first")
    second = make("sh", "-c", "ps -ef | grep -c 'sleep 6[0]'", pid="container:first", remove=True)
    with pytest.raises(NotRunning, match="not running"):
        runtime.start(second)
    runtime.start(first)
    eventually(lambda: Path(os.readlink(f"/proc/{runtime.state(first).pid}/exe")).name, "sleep")
    third = make("sh", "-c", "ps -ef | grep -c 'sleep 6[0]'", pid="container:first", remove=True)
    with written() as (streams, file):
        assert runtime.run(third, streams) == 0
        assert file.read_text() == "1\n"


def test_what_inspect_tells(make: Make, runtime: Runtime) -> None:
    box = make("sleep", "60", env=("A=b",), mounts=(MountOption("volume", "/data", "vol"),), labels={"x": "y"})
    runtime.start(box)
    facts = json.loads(json.dumps(runtime.inspect(box)))
    assert (facts["State"]["Status"], facts["State"]["Running"]) == ("running", True)
    assert facts["State"]["Pid"] == runtime.state(box).pid
    assert (facts["Path"], facts["Args"]) == ("sleep", ["60"])
    assert facts["Config"]["Env"][-1] == "A=b"
    assert facts["Config"]["Labels"] == {"x": "y"}
    assert [mount["Name"] for mount in facts["Mounts"]] == ["vol"]
    assert Path(facts["LogPath"]).exists()


def test_an_image_whose_container_runs_is_not_removed(make: Make, runtime: Runtime) -> None:
    box = make("sleep", "60", name="web")
    runtime.start(box)
    with pytest.raises(InUse, match="web"):
        runtime.store.remove_image("debian")


def test_sixteen_containers_run_at_once(make: Make, runtime: Runtime) -> None:
    boxes = [make("sh", "-c", f"echo {n} > /tmp/n; sleep 60") for n in range(16)]
    for box in boxes:
        runtime.start(box)
    states = runtime.states()
    assert {states[box.id].status for box in boxes} == {"running"}
    assert len({states[box.id].pid for box in boxes}) == 16
    for box in boxes:
        runtime.remove(box, force=True)
    assert runtime.places.all() == []


def test_an_engine_s_failure_is_told_once_and_without_its_log_s_form(make: Make, runtime: Runtime) -> None:
    box = make("true", sysctls={"net.ipv4.ip_forward": "1"}, network="none", runtime="runc", cpuset_cpus="999")
    with pytest.raises(CannotRun) as told:
        runtime.start(box)
    assert told.value.code == 125
    assert told.value.message.count("cpuset") >= 1
    assert "time=" not in told.value.message
    assert runtime.state(box).status == "created"


def test_it_outlives_the_store_that_started_it(make: Make, runtime: Runtime) -> None:
    box = make("sleep", "60")
    runtime.start(box)
    pid = runtime.state(box).pid
    os.kill(pid, signal.SIGKILL)
    with layerstore.open(config=runtime.store.config) as again:
        other = Runtime(again)
        eventually(lambda: other.state(again.container(box.id)).status, "exited")
        assert other.state(again.container(box.id)).exit_code == 137


def test_nothing_of_a_container_is_mounted_on_the_host(make: Make, runtime: Runtime) -> None:
    box = make("sleep", "60")
    before = subprocess.run(["cat", "/proc/self/mountinfo"], capture_output=True).stdout
    runtime.start(box)
    assert subprocess.run(["cat", "/proc/self/mountinfo"], capture_output=True).stdout == before


def test_a_container_that_was_not_made_to_be_run_can_be(loaded: Store, runtime: Runtime) -> None:
    box = loaded.create_container("debian")
    assert runtime.state(box).status == "created"
    assert runtime.inspect(box)["State"]["Status"] == "created"
    runtime.remove(box)


@pytest.mark.parametrize("isolation", [Isolation.PROCESS, Isolation.NONE])
@pytest.mark.parametrize("tty", ["pipe", "terminal"])
def test_less_than_a_sandbox_runs_too(make: Make, runtime: Runtime, isolation: Isolation, tty: str) -> None:
    box = make("sh", "-c", "test -t 1 && echo here; echo $0; exit 6", isolation=isolation, tty=tty == "terminal")
    with written() as (streams, file):
        assert runtime.run(box, streams) == 6
        assert file.read_text().split() == ["here", "sh"] if tty == "terminal" else ["sh"]
    assert (runtime.state(box).status, runtime.state(box).exit_code) == ("exited", 6)
    with pytest.raises(CannotRun) as told:
        runtime.run(make("nope", isolation=isolation, remove=True))
    assert told.value.code == 127
    with pytest.raises(ConfigError, match="nobody keeps this one"):
        runtime.start(box)
    with pytest.raises(ConfigError, match="takes an OCI runtime"):
        runtime.run(make("true", isolation=isolation, memory=1 << 30))


def test_what_the_kernel_killed_for_want_of_memory_is_said(
    make: Make, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    box = make("sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", memory=24 << 20)
    assert runtime.run(box, Streams(None, None, None)) == 137
    assert runtime.state(box).oom_killed
    assert runtime.inspect(box)["State"]["OOMKilled"]
    assert os.listdir(tmp_path) == []


def test_a_number_that_was_given_to_another_process_is_not_the_container_s(make: Make, runtime: Runtime) -> None:
    box = make("sleep", "60")
    runtime.start(box)
    folder = runtime.folder(box)
    assert folder.init() is not None
    folder.place.pid.write_text(str(os.getpid()))
    assert folder.init() is None


def test_a_removal_that_was_broken_off_is_said_and_can_be_ended(make: Make, runtime: Runtime) -> None:
    box = make("true")
    with runtime.database.write() as tx:
        row = rows.find(tx, box.id)
        assert row is not None
        rows.put(tx, evolve(row, status="dead"))
    assert runtime.state(box).status == "dead"
    with pytest.raises(NotRunning, match="marked for removal"):
        runtime.start(box)
    runtime.remove(box)
    assert runtime.store.containers() == []


def test_one_that_is_mounted_at_its_end_stays_and_tells_how_it_ended(make: Make, runtime: Runtime) -> None:
    box = make("sh", "-c", "exit 5", remove=True)
    with box.mount():
        assert runtime.run(box, Streams(None, None, None)) == 5
        assert (runtime.state(box).status, runtime.state(box).exit_code) == ("exited", 5)
    runtime.remove(box)
    assert runtime.store.containers() == []


def test_what_has_ended_is_told_where_nothing_can_be_written(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    box = make("sleep", "60")
    runtime.start(box)
    runtime._ender.kill_all(box)
    config = runtime.store.config
    root = config.data_root
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
    try:
        with layerstore.open(config=config) as store:
            assert Runtime(store).states()[box.id].status == "exited"
    finally:
        subprocess.run(["umount", root], check=True)
    assert runtime.state(box).status == "exited"
