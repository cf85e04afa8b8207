"""Ports and health of containers by the command: run -p, port, ps, --health-cmd, healthcheck run."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from support import programs

Run = Callable[..., Result]

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon", "slirp4netns")]


@pytest.fixture
def boxes(run: Run, tmp_path: Path) -> Iterator[Run]:
    """A store with the image debian, in which programs run."""
    run("load", str(programs.archive(tmp_path / "debian.tar", config={"ExposedPorts": {"53/udp": {}}})))
    yield run
    names = run("ps", "-aq").stdout.split()
    if names:
        run("rm", "-f", "-v", *names)


def test_a_port_is_published_by_a_network_of_its_own(boxes: Run) -> None:
    boxes("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "-P", "debian", "sleep", "60")
    told = boxes("port", "web").stdout.splitlines()
    assert re.fullmatch(r"53/udp -> 0\.0\.0\.0:\d+", told[0])
    assert re.fullmatch(r"80/tcp -> 127\.0\.0\.1:\d+", told[1])
    assert boxes("port", "web", "80").stdout.strip() == told[1].rpartition(" ")[2]
    port = int(told[1].rpartition(":")[2])
    assert f"127.0.0.1:{port}->80/tcp" in boxes("ps", "--format", "{{.Ports}}").stdout
    with socket.create_connection(("127.0.0.1", port), timeout=30):
        pass  # it is taken by who connects the container
    boxes("stop", "-t", "0", "web")
    assert boxes("port", "web").stdout == ""


def test_what_cannot_be_is_told_in_docker_s_words(boxes: Run) -> None:
    told = boxes("run", "--rm", "--network", "host", "-p", "80:80", "debian", "true")
    assert told.stderr == "WARNING: Published ports are discarded when using host network mode\n"
    assert "there is no bridge network" in boxes("run", "--network", "bridge", "debian", "true", code=125).stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        told = boxes("run", "--rm", "-p", f"{taken}:80", "debian", "true", code=125)
    assert f"port {taken} cannot be published" in told.stderr
    assert boxes("ps", "-aq").stdout == ""


def test_health_is_checked_once_and_shown(boxes: Run) -> None:
    test = ("--health-cmd", "test -e /tmp/well", "--health-interval", "10m", "--health-retries", "1")
    boxes("run", "-d", "--name", "box", *test, "debian", "sleep", "60")
    assert re.search(r"^Up .*\(health: starting\)$", boxes("ps", "--format", "{{.Status}}").stdout, re.MULTILINE)
    assert boxes("healthcheck", "run", "box", code=1).stdout == "unhealthy\n"
    pid = boxes("inspect", "-f", "{{.State.Pid}}", "box").stdout.strip()
    Path(f"/proc/{pid}/root/tmp/well").touch()
    assert boxes("healthcheck", "run", "box").stdout == ""
    assert boxes("ps", "-q", "-f", "health=healthy").stdout != ""
    health = json.loads(boxes("inspect", "box").stdout)[0]["State"]["Health"]
    assert [entry["ExitCode"] for entry in health["Log"]] == [1, 0]
    boxes("run", "-d", "--name", "plain", "debian", "sleep", "60")
    assert "container plain has no health check" in boxes("healthcheck", "run", "plain", code=125).stderr
