"""Agents that are lent to programs: what they can be asked, and that ours ends with the build."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from build.steps.apart import awaited, building, long_and_ours, running
from layerstore import ConfigError, Store
from layerstore.build import BuildError, Ssh
from layerstore.build.steps.agents import agent_of, passing_on
from layerstore.build.steps.session import sweep
from support import images, programs
from support.building import Builder, Look

AGENTS = pytest.mark.tools("ssh-agent", "ssh-add", "ssh-keygen")


@pytest.fixture
def key(tmp_path: Path) -> str:
    """The path of a key."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return str(path)


@AGENTS
@pytest.mark.root
@pytest.mark.tools("crun")
def test_an_agent_is_lent_and_its_keys_are_not(make: Builder, tmp_path: Path, look: Look, key: str) -> None:
    said = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True).stdout
    layer = programs.layer(("sh", "ls", "ssh-add", "test"))
    archive = images.docker_archive(tmp_path / "tools.tar", [layer], ["tools:latest"])
    make.store.load(archive)
    built = make(
        "FROM tools\nRUN --mount=type=ssh ssh-add -l > /said; ls -l $SSH_AUTH_SOCK > /socket\n"
        'RUN --mount=type=ssh,id=other test -z "$SSH_AUTH_SOCK"\n'
        "USER someone\nRUN --mount=type=ssh,uid=1000,mode=0640 ssh-add -l > /tmp/said\n",
        ssh=[Ssh("default", (key,))],
    )
    assert look(built, "/socket").split()[0] == "srw-------"
    assert said.split()[1] in look(built, "/said")
    assert said.split()[1] in look(built, "/tmp/said")
    with pytest.raises(BuildError, match="unset ssh forward key other"):
        make("FROM base\nRUN --mount=type=ssh,id=other,required true\n")


@AGENTS
@pytest.mark.root
@pytest.mark.tools("crun")
def test_an_agent_of_ours_dies_with_a_build_that_is_killed(based: Store, tmp_path: Path, key: str) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "context").mkdir()
    seconds = long_and_ours()
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM base\nRUN --mount=type=ssh sleep {seconds}\n")

    def agents() -> list[Path]:
        return [path for path in (tmp_path / "tmp").glob("*/agent") if running("ssh-agent", str(path))]

    with building(
        based.config, tmp_path / "context", environment={"TMPDIR": str(tmp_path / "tmp")}, ssh=[key]
    ) as process:
        [agent] = awaited(lambda: running("sleep", seconds) and agents(), process)
        process.kill()
        process.wait()
        awaited(lambda: not running("ssh-agent", str(agent)), seconds=30)
        awaited(lambda: not os.path.exists(agent.parent), seconds=30)
    assert sweep(based) == 1
    assert running("sleep", seconds) == []


@AGENTS
def test_an_agent_of_ours_ends_with_its_step(key: str) -> None:
    with agent_of(Ssh("default", (key,))) as path:
        assert running("ssh-agent", path)
    assert not os.path.exists(os.path.dirname(path))
    awaited(lambda: not running("ssh-agent", path), seconds=30)
    with pytest.raises(ConfigError, match="key"), agent_of(Ssh("default", (f"{key}.gone",))):
        pass


@AGENTS
def test_an_agent_of_ours_ends_though_a_fork_lives_on(key: str) -> None:
    ours, its = os.pipe2(os.O_CLOEXEC)
    with agent_of(Ssh("default", (key,))) as path:
        child = os.fork()
        if child == 0:
            os.close(its)
            os.read(ours, 1)
            os._exit(0)
    awaited(lambda: not running("ssh-agent", path), seconds=30)
    os.close(its)
    os.close(ours)
    os.waitpid(child, 0)


@pytest.fixture
def echoing(tmp_path: Path) -> Iterator[str]:
    """The path of a socket that says again what it is told."""
    path = str(tmp_path / "echo")
    with ExitStack() as after, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            while True:
                try:
                    came = after.enter_context(listening.accept()[0])
                except OSError:
                    return
                with suppress(OSError):  # who asked has gone
                    came.sendall(came.recv(100))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield path
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_crowd_that_asks_nothing_takes_few_descriptors(echoing: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with passing_on(path, echoing, mode=0o600, uid=os.getuid(), gid=os.getgid()):
        before = len(os.listdir("/proc/self/fd"))
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(150)]
        with ExitStack() as after:
            for one in crowd:
                after.enter_context(one).connect(path)
            awaited(lambda: len(os.listdir("/proc/self/fd")) >= before + 150 + 2 * 64)
            time.sleep(0.1)
            assert len(os.listdir("/proc/self/fd")) <= before + 150 + 2 * 64 + 2  # and one that the other end has taken
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(60)
            asking.connect(path)
            asking.sendall(b"word")
            assert asking.recv(100) == b"word"


def test_an_agent_is_lent_by_a_process_with_many_files(echoing: str, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    try:
        with ExitStack() as after:
            for _ in range(1100):
                after.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            after.enter_context(
                passing_on(str(tmp_path / "socket"), echoing, mode=0o600, uid=os.getuid(), gid=os.getgid())
            )
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as asking:
                    asking.settimeout(60)
                    asking.connect(str(tmp_path / "socket"))
                    asking.sendall(b"word")
                    assert asking.recv(100) == b"word"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
