"""`Container.run`, `popen` and `arun`: as subprocess has them, in each isolation."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from layerstore import CannotRun, ConfigError, Container, NotFound, Running, Store, StoreClosed
from layerstore.runtime import RunOptions
from layerstore.runtime.options import MountOption
from runtime.life.conftest import eventually

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
ISOLATIONS = ("full", "process", "none")


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_runs_as_subprocess_does(box: Container, isolation: str) -> None:
    line = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    done = box.run(line, stdout=PIPE, stderr=PIPE, isolation=isolation)
    ours = subprocess.run(line, stdout=PIPE, stderr=PIPE)
    assert (done.args, done.returncode, done.stdout, done.stderr) == (line, ours.returncode, ours.stdout, ours.stderr)
    assert box.run(line, stdout=PIPE, stderr=STDOUT, text=True, isolation=isolation).stdout == "out\nerr\n"
    assert box.run(line, stdout=DEVNULL, stderr=DEVNULL, isolation=isolation).stdout is None
    with pytest.raises(subprocess.CalledProcessError) as failed:
        box.run(line, check=True, capture_output=True, isolation=isolation)
    assert (failed.value.returncode, failed.value.stderr) == (3, b"err\n")


def test_has_the_image_s_settings_and_what_is_said_instead(box: Container, isolation: str) -> None:
    line = ["sh", "-c", "echo $FROM $MORE; pwd; id -u; id -g; echo $HOME"]
    usual = box.run(line, stdout=PIPE, text=True, isolation=isolation)
    assert usual.stdout.split("\n") == ["image", "/tmp", "0", "0", "/root", ""]
    said = box.run(
        line, env={"MORE": "said"}, cwd="/var", user="someone:staff", stdout=PIPE, text=True, isolation=isolation
    )
    assert said.stdout.split("\n") == ["image said", "/var", "1000", "50", "/home/someone", ""]
    with pytest.raises(NotFound, match="unable to find user nobody-here"):
        box.run("true", user="nobody-here", isolation=isolation)


def test_input_goes_in_and_output_comes_out_at_once(box: Container, isolation: str) -> None:
    much = os.urandom(1 << 20)
    assert box.run("cat", input=much, stdout=PIPE, isolation=isolation).stdout == much
    # What a program does not read is no error.
    assert box.run("true", input=much, isolation=isolation).returncode == 0
    text = box.run("cat", input="größe\n", stdout=PIPE, encoding="latin-1", isolation=isolation)
    assert text.stdout == "größe\n"


def test_writes_stay_in_the_container(box: Container, isolation: str) -> None:
    box.run(["sh", "-c", "echo mine > /etc/motd"], check=True, isolation=isolation)
    assert box.run(["cat", "/etc/motd"], stdout=PIPE, isolation=isolation).stdout == b"mine\n"
    assert [str(change) for change in box.changes()] == ["C /etc", "A /etc/motd"]


@pytest.mark.parametrize("isolation", ["full", "process"])
def test_sees_only_its_own_processes(box: Container, isolation: str) -> None:
    seen = box.run(["ps", "-e", "-o", "comm="], stdout=PIPE, text=True, isolation=isolation).stdout.split()
    assert seen[-1] == "ps"
    assert len(seen) <= 2  # a first process of ours, perhaps, and itself


def test_a_program_that_is_not_there_or_not_executable(box: Container, isolation: str) -> None:
    with pytest.raises(CannotRun, match="nope") as missing:
        box.run("nope", stderr=DEVNULL, isolation=isolation)
    with pytest.raises(CannotRun) as refused:
        box.run("/etc/passwd", stderr=DEVNULL, isolation=isolation)
    assert (missing.value.code, refused.value.code) == (127, 126)
    with pytest.raises(CannotRun, match=r"Give a list of words: \['echo', 'hi'\]"):
        box.run("echo hi", stderr=DEVNULL, isolation=isolation)


def test_a_folder_to_begin_in_is_made_for_the_program(box: Container, tmp_path: Path, isolation: str) -> None:
    line = ["sh", "-c", "pwd; ls -ld ."]
    done = box.run(line, cwd="/deep/down", stdout=PIPE, text=True, isolation=isolation)
    assert done.stdout.split()[:2] == ["/deep/down", "drwxr-xr-x"]
    assert [str(change) for change in box.changes()] == []
    # What it has there stays.
    box.run(["touch", "kept"], cwd="/deep/down", check=True, isolation=isolation)
    assert [str(change) for change in box.changes()] == ["A /deep", "A /deep/down", "A /deep/down/kept"]
    # In what is mounted, it lies there.
    options = RunOptions(mounts=(MountOption("bind", "/given", str(tmp_path)),))
    box.run(["touch", "this"], cwd="/given/in", options=options, check=True, isolation=isolation)
    assert (tmp_path / "in" / "this").exists()


def test_a_file_is_no_folder_to_begin_in(box: Container, isolation: str) -> None:
    for folder in ("/etc/passwd", "/etc/passwd/more"):
        with pytest.raises(CannotRun, match="not a directory: /etc/passwd") as refused:
            box.run("true", cwd=folder, isolation=isolation)
        assert refused.value.code == 125
    with pytest.raises(ConfigError, match="the working directory 'etc' is invalid"):
        box.run("true", cwd="etc", isolation=isolation)
    assert [str(change) for change in box.changes()] == []


def test_what_is_too_long_for_a_program_is_refused_in_words(box: Container, isolation: str) -> None:
    for args, env in ((["true", "x" * (1 << 17)], {}), (["true"], {"A": "x" * (1 << 17)}), (["true"] * 1_000_000, {})):
        with pytest.raises(CannotRun, match="cannot execute true: argument list too long: ") as refused:
            box.run(args, env=env, isolation=isolation)
        assert refused.value.code == 126


def test_what_no_program_can_be_given_is_refused_as_subprocess_does(box: Container, isolation: str) -> None:
    for args, env in ((["echo", "a\0b"], {}), (["true"], {"A": "b\0c"}), (["true"], {"A\0": "b"})):
        with pytest.raises(ValueError, match="embedded null byte"):
            box.run(args, env=env, isolation=isolation)
    for name in ("A=", ""):
        with pytest.raises(ValueError, match="illegal environment variable name"):
            box.run(["true"], env={name: "b"}, isolation=isolation)


def test_a_signal_is_128_and_its_number(box: Container, isolation: str) -> None:
    with box.popen(["sleep", "60"], isolation=isolation) as running:
        assert running.poll() is None
        running.kill()
        assert running.wait() == 128 + signal.SIGKILL
        assert running.poll() == running.returncode == 137
        running.kill()
        running.terminate()


def test_time_that_is_over_ends_all_of_it(box: Container, isolation: str) -> None:
    line = ["sh", "-c", "echo begun; : >/tmp/begun; (sleep 61 & sleep 62) & exec sleep 60"]

    def started(running: Running) -> None:  # its time begins afterwards: an engine takes some of its own
        eventually(Path(f"/proc/{running.pid}/root/tmp/begun").exists, True)

    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as late:
        box.run(line, stdout=PIPE, timeout=0.3, isolation=isolation, started=started)
    assert late.value.output == b"begun\n"
    assert time.monotonic() - began < 50
    assert box.processes() == []  # and the pipe is at its end, which the others had open, too


def test_is_talked_to_while_it_runs(box: Container, isolation: str) -> None:
    with box.popen(["cat"], stdin=PIPE, stdout=PIPE, text=True, isolation=isolation) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write("one\n")
        running.stdin.flush()
        assert running.stdout.readline() == "one\n"
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.01)
        assert os.readlink(f"/proc/{running.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
        assert box.status == "running"
        out, err = running.communicate("two\n")
        assert (out, err, running.returncode) == ("two\n", None, 0)


def test_several_at_once_see_one_tree(box: Container, isolation: str) -> None:
    with (
        box.popen(["sh", "-c", "read x; cat /tmp/note"], stdin=PIPE, stdout=PIPE, isolation=isolation) as reader,
        box.popen(["sh", "-c", "echo hello > /tmp/note"], isolation=isolation) as writer,
    ):
        assert writer.wait() == 0
        assert reader.communicate(b"\n")[0] == b"hello\n"


def test_awaited_while_others_go_on(box: Container, isolation: str) -> None:
    async def many() -> list[bytes]:
        script = "echo >/tmp/here-$N; until [ $(ls /tmp | grep -c here) = 8 ]; do sleep 0.05; done; echo $N"
        runs = (box.arun(["sh", "-c", script], env={"N": str(n)}, **how) for n in range(8))
        return [done.stdout for done in await asyncio.gather(*runs)]

    how: dict[str, Any] = {"stdout": PIPE, "timeout": 60, "isolation": isolation}
    # One after another they would wait for ever.
    assert asyncio.run(many()) == [b"%d\n" % number for number in range(8)]


def test_cancelled_it_ends_all_of_it(box: Container, isolation: str) -> None:
    async def impatient() -> None:
        task = asyncio.create_task(box.arun(["sleep", "60"], isolation=isolation))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    began = time.monotonic()
    asyncio.run(impatient())
    assert box.processes() == []
    assert time.monotonic() - began < 50


def test_more_options(box: Container, tmp_path: Path, isolation: str) -> None:
    (tmp_path / "file").write_text("host\n")
    options = RunOptions(
        hostname="there" if isolation != "none" else None,
        mounts=(
            MountOption("bind", "/mnt", str(tmp_path), read_only=True),
            MountOption("tmpfs", "/scratch", options=("size=1m",)),
        ),
    )
    line = ["sh", "-c", "cat /mnt/file; touch /scratch/x && ls /scratch; touch /mnt/x || echo kept"]
    done = box.run(line, options=options, capture_output=True, isolation=isolation)
    assert done.stdout == b"host\nx\nkept\n"
    if isolation != "full":
        with pytest.raises(ConfigError, match="knows no memory: that takes an OCI runtime"):
            box.run("true", options=RunOptions(memory=1 << 26), isolation=isolation)


def test_what_cannot_be_asked_for(box: Container) -> None:
    with pytest.raises(ConfigError, match="'jail' is no isolation"):
        box.run("true", isolation="jail")
    with pytest.raises(ConfigError, match="nothing to run"):
        box.run([])
    with pytest.raises(ValueError, match="stdin and input"):
        box.run("true", input=b"", stdin=DEVNULL)
    with pytest.raises(ValueError, match="capture_output"):
        box.run("true", capture_output=True, stdout=DEVNULL)


def test_the_runner_is_found_by_its_entry_point_and_remembered(
    loaded: Store, box: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    from layerstore.containers import running

    assert box.run("true").returncode == 0
    (tmp_path / "someone.py").write_text(
        "def begin(store, container, args, **how):\n    return (args, how['isolation'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entry = metadata.EntryPoint("default", "someone:begin", running.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [entry])
    assert box.run("true").returncode == 0  # as it was found before
    loaded._containers.belong_to(loaded)
    assert box.run("true").returncode == 0  # and as the store remembers it
    monkeypatch.setattr(running, "_FACT", "other")
    loaded._containers.belong_to(loaded)
    assert box.popen("x") == ("x", "full")  # type: ignore[comparison-overlap]  # a runner of somebody else's
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [])
    monkeypatch.setattr(running, "_FACT", "third")
    loaded._containers.belong_to(loaded)
    with pytest.raises(CannotRun, match="nothing that runs containers is installed") as nothing:
        box.run("true")
    assert nothing.value.remedy == "Install it: pip install 'layerstore[run]'."


def test_the_library_imports_no_runtime() -> None:
    code = "import layerstore.store, layerstore.containers.running, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "layerstore.containers.running" in imported
    assert [name for name in imported if name.startswith("layerstore.runtime") or name == "asyncio"] == []


def test_of_a_store_that_was_let_go_of(data_root: Path) -> None:
    import layerstore

    settings = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"))
    store = layerstore.open(config=settings)
    container = store.create_container()
    store.close()
    del store
    with pytest.raises(StoreClosed, match="let go of"):
        container.run("true")


def test_what_is_running_has_the_shape_of_popen() -> None:
    shape = {name for name in dir(Running) if not name.startswith("_")} - {"args"}
    assert shape <= {name for name in dir(subprocess.Popen) if not name.startswith("_")} | {"pid"}
