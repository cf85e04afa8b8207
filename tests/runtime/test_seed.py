"""What the course that this project began with shows of containers, on docker's words: run, exec, ps, volumes, rmi.

Each is done by the command, as its readers do it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

from layerstore import Container, Store
from layerstore import open as open_store
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.streams import Streams
from support import programs

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon")]

Command: TypeAlias = Callable[..., str]


@pytest.fixture
def layerstore(data_root: Path, tmp_path: Path) -> Iterator[Command]:
    """`layerstore("run", "debian", "true")`: what it prints; on a store that has the image debian:latest."""
    settings = tmp_path / "daemon.json"
    settings.write_text(
        json.dumps({"data-root": str(data_root), "exec-root": str(tmp_path / "exec"), "storage-driver": "overlay2"})
    )

    def command(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "layerstore.cli", "--config", settings, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"layerstore {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return (done.stdout if code == 0 else done.stderr).strip()

    with open_store(config=settings) as store:
        store.load(programs.archive(tmp_path / "debian.tar"))
    yield command
    with open_store(config=settings) as store:
        runtime = Runtime(store)
        for box in store.containers():
            runtime.remove(box, force=True, volumes=True)


def test_a_file_that_is_edited_in_a_container_is_not_changed_in_the_image(layerstore: Command) -> None:
    layerstore("run", "--name", "first", "debian", "sh", "-c", "echo edited >> /etc/group; rm /etc/passwd")

    assert layerstore("diff", "first").splitlines() == ["C /etc", "C /etc/group", "D /etc/passwd"]
    other = layerstore("run", "--rm", "debian", "cat", "/etc/group", "/etc/passwd")
    assert other == (programs.GROUP + programs.PASSWD).strip()


def test_hosts_of_a_container_is_its_own_and_is_in_no_layer(layerstore: Command) -> None:
    line = "echo 192.0.2.1 database >> /etc/hosts && cat /etc/hosts"
    said = layerstore("run", "--name", "first", "debian", "sh", "-c", line)

    assert said.endswith("192.0.2.1 database")
    assert "database" not in layerstore("run", "--rm", "debian", "cat", "/etc/hosts")
    assert layerstore("diff", "first") == ""


def test_ps_shows_the_processes_of_the_container_alone(layerstore: Command) -> None:
    head, *lines = layerstore("run", "--rm", "debian", "ps", "-ef").splitlines()

    assert head.split()[:3] == ["UID", "PID", "PPID"]
    assert [line.split()[1] for line in lines] == ["1"]
    assert lines[0].endswith("ps -ef")


def test_a_line_is_executed_in_a_container_that_runs(layerstore: Command) -> None:
    layerstore("run", "-d", "--name", "first", "debian", "sleep", "1000")

    assert layerstore("exec", "first", "sh", "-c", "echo hello > /tmp/hello; cat /tmp/hello") == "hello"
    processes = layerstore("exec", "first", "ps", "-ef").splitlines()[1:]
    assert [line.split(None, 7)[7] for line in processes] == ["sleep 1000", "ps -ef"]


def test_each_of_sixteen_containers_has_a_filesystem_of_its_own(store: Store, tmp_path: Path) -> None:
    [image] = store.load(programs.archive(tmp_path / "debian.tar"))
    runtime = Runtime(store)

    def life(number: int) -> tuple[Container, str]:
        line = f"echo {number} > /tmp/own-{number}; ls /tmp; cat /tmp/own-*"
        box = runtime.create(image, RunOptions(args=("sh", "-c", line)))
        written = os.memfd_create("written")
        try:
            assert runtime.run(box, Streams(stdin=None, stdout=written)) == 0
            return box, Path(f"/proc/self/fd/{written}").read_text()
        finally:
            os.close(written)

    with ThreadPoolExecutor(4) as threads:
        lives = list(threads.map(life, range(16)))

    for number, (box, said) in enumerate(lives):
        assert said.split() == [f"own-{number}", str(number)]
        assert [str(change) for change in box.changes()] == ["C /tmp", f"A /tmp/own-{number}"]
        runtime.remove(box)


def test_an_image_with_a_running_or_stopped_container_cannot_be_removed(layerstore: Command) -> None:
    layerstore("run", "-d", "--name", "first", "debian", "sleep", "1000")
    assert "image debian:latest is in use by container first (running)" in layerstore("rmi", "debian", code=1)

    layerstore("stop", "-t", "0", "first")
    said = layerstore("rmi", "debian", code=1).splitlines()
    assert said[0] == "layerstore: image debian:latest is in use by container first"

    layerstore("rm", "first")
    assert layerstore("rmi", "debian").splitlines()[0] == "Untagged: debian:latest"


def test_an_anonymous_volume_lies_in_its_folder(layerstore: Command, data_root: Path) -> None:
    layerstore("run", "--name", "first", "-v", "/data", "debian", "sh", "-c", "echo kept > /data/file")

    [volume] = layerstore("volume", "ls", "-q").split()
    assert re.fullmatch("[0-9a-f]{64}", volume)
    assert (data_root / "volumes" / volume / "_data" / "file").read_text() == "kept\n"
    assert layerstore("diff", "first") == ""
    [mount] = json.loads(layerstore("inspect", "first"))[0]["Mounts"]
    assert (mount["Name"], mount["Destination"]) == (volume, "/data")

    layerstore("rm", "-v", "first")
    assert layerstore("volume", "ls", "-q") == ""
