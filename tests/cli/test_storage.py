"""info, check, prune, completion of names, signals and progress, on a real store."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from support import images as made

Run = Callable[..., Result]
Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]

pytestmark = pytest.mark.root

BASE = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"), made.file("big", b"x" * 100_000))
TOP = made.layer(made.file("etc/motd", "hello\n"))


@pytest.fixture
def filled(run: Run, tmp_path: Path) -> Run:
    """A store with base:1, a nameless image, and the container web on base:1."""
    labels = made.config([BASE], config={"Labels": {"keep": "yes"}})
    run("load", str(made.docker_archive(tmp_path / "base.tar", [BASE], ["base:1"], image_config=labels)))
    run("load", str(made.docker_archive(tmp_path / "top.tar", [TOP], [])))
    run("create", "--name", "web", "base:1")
    return run


def test_info_speaks_docker_s_words(filled: Run, data_root: Path) -> None:
    text = filled("info").stdout
    lines = text.splitlines()
    assert lines[:5] == ["Containers: 1", " Running: 0", " Paused: 0", " Stopped: 1", " Mounted: 0"]
    assert lines[5:7] == ["Images: 2", "Layers: 2"]
    assert "Storage Driver: overlay2\n Backing Filesystem: " in text
    assert " Supports d_type: true" in lines
    assert f"Data Root: {data_root}" in lines
    assert filled("info", "-f", "{{.Driver}} {{.Images}} {{.DockerRootDir}}").stdout == f"overlay2 2 {data_root}\n"
    facts = json.loads(filled("info", "-f", "json").stdout)
    assert facts["ContainersStopped"] == 1
    assert ["Supports d_type", "true"] in facts["DriverStatus"]


@pytest.mark.tools("crun", "runc", "conmon", "slirp4netns")
def test_info_says_what_runs_containers(filled: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = filled("info").stdout.splitlines()
    shown = dict(line.partition(": ")[::2] for line in lines)
    assert shown["Runtimes"].startswith("crun runc")
    assert shown[" crun"].startswith("crun version ")
    assert shown["Default Runtime"] == "crun"
    assert "Conmon Version" in shown
    assert "WARNING" not in shown
    facts = json.loads(filled("info", "-f", "json").stdout)
    assert facts["Runtimes"]["crun"]["path"] == shutil.which("crun")
    assert (facts["DefaultRuntime"], facts["LoggingDriver"], facts["Warnings"]) == ("crun", "json-file", None)
    assert "name=seccomp,profile=builtin" in facts["SecurityOptions"]


@pytest.mark.tools("slirp4netns", "pasta")
def test_info_says_how_containers_can_be_connected(filled: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert " Network: host none container pasta slirp4netns" in filled("info").stdout.splitlines()
    assert json.loads(filled("info", "-f", "json").stdout)["Plugins"]["Volume"] == ["local"]
    monkeypatch.setattr("layerstore.runtime.network.usable.program", lambda kind: None)
    lines = filled("info").stdout.splitlines()
    assert " Network: host none container" in lines
    assert (
        "WARNING: No ports of containers can be published: pasta is not installed; slirp4netns is not installed"
        in lines
    )


def test_info_says_why_no_container_can_be_run(filled: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.runtime.engine.engines._SEARCH", "/nowhere")
    monkeypatch.setattr("layerstore.runtime.engine.conmon._SEARCH", "/nowhere")
    lines = filled("info").stdout.splitlines()
    assert "Default Runtime: " in lines
    warnings = [line for line in lines if line.startswith("WARNING: ")]
    assert any(line.startswith("WARNING: No container can be run: no OCI runtime is installed") for line in warnings)
    assert "WARNING: No container can be run in the background: conmon is not installed" in warnings


def test_check_is_silent_when_all_is_well(filled: Run) -> None:
    assert filled("check").stdout == ""
    assert filled("check", "--content", "--format", "json").stdout == ""


def test_check_names_what_is_damaged_a_line_each(filled: Run) -> None:
    upper = filled("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "base:1").stdout.strip()
    (Path(upper) / "etc/hostname").write_text("altered, and longer\n")
    result = filled("check", "--content", code=1)
    assert "etc/hostname" in result.stdout
    assert result.stderr == ""
    [problem] = [
        json.loads(line) for line in filled("check", "--content", "--format", "json", code=1).stdout.splitlines()
    ]
    assert problem["Path"].endswith("etc/hostname")
    shutil.rmtree(upper)
    assert filled("check", code=1).stdout != ""


def test_prune_removes_and_tells_as_docker_does(filled: Run) -> None:
    [web] = filled("ps", "-aq", "--no-trunc").stdout.split()
    [nameless] = filled("images", "-q", "--no-trunc", "-f", "dangling=true").stdout.split()
    text = filled("prune", "-f").stdout
    assert f"Deleted Containers:\n{web}\n\n" in text
    assert f"Deleted Images:\ndeleted: {nameless}\n" in text
    assert text.splitlines()[-1].startswith("Total reclaimed space: ")
    assert filled("images", "--format", "{{.Repository}}").stdout == "base\n"
    everything = filled("prune", "-af").stdout
    assert "untagged: base:1\ndeleted: sha256:" in everything
    assert filled("prune", "-af").stdout == "Total reclaimed space: 0B\n"


def test_prune_of_images_spares_containers_and_what_they_stand_on(filled: Run) -> None:
    filled("prune", "-f", "-a", "--images")
    assert filled("ps", "-a", "--format", "{{.Names}}").stdout == "web\n"
    assert filled("images", "--format", "{{.Repository}}").stdout == "base\n"


def test_prune_asks_first(filled: Run) -> None:
    refused = filled("prune", stdin=b"n\n", code=1)
    assert refused.stdout == ""
    assert refused.stderr.startswith("WARNING! This will remove:\n  - all containers that neither run nor are mounted")
    assert refused.stderr.endswith("layerstore: nothing was removed\n")
    unanswered = filled("prune", code=1)
    assert "there was no answer" in unanswered.stderr
    assert len(filled("images", "-q").stdout.split()) == 2
    assert "Total reclaimed space" in filled("prune", stdin=b"y\n").stdout


def test_completion_offers_names(filled: Run, shell: Shell, settings: Path) -> None:
    def offered(*words: str) -> set[str]:
        line = ["layerstore", "--config", str(settings), *words]
        variables = {
            "_LAYERSTORE_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(line),
            "COMP_CWORD": str(len(line) - 1),
        }
        done = shell(variables=variables)
        assert (done.returncode, done.stderr) == (0, b"")
        return {text.partition(",")[2] for text in done.stdout.decode().split()}

    assert "base:1" in offered("rmi", "b")
    assert offered("rm", "w") == {"web"}
    assert offered("inspect", "w") == {"web"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_load_without_a_trace(
    filled: Run, shell: Shell, settings: Path, tmp_path: Path, number: signal.Signals
) -> None:
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "layerstore.cli", "--config", str(settings), "load"]
    reading, writing = os.pipe()
    # Whoever started the tests in the background had some of them ignored, and that is inherited.
    process = subprocess.Popen(
        command,
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    with open(writing, "wb", buffering=0) as stream, open(reading, "rb", buffering=0) as pipe:
        stream.write((tmp_path / "base.tar").read_bytes()[:60_000])
        while array("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]:  # until it has begun to load
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (128 + number, b"")
    assert b"Traceback" not in stderr
    assert shell("check").stdout == b""


def test_progress_is_shown_to_a_terminal_only(filled: Run, settings: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "layerstore.cli", "--config", str(settings), "load", str(tmp_path / "base.tar")],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
            check=True,
        )
        os.close(theirs)
        shown = os.read(ours, 100_000)
    finally:
        os.close(ours)
    assert done.stdout == b"Loaded image: base:1\n"
    assert b"Loading " in shown
