"""The command `pull`: docker's lines, what is quiet, what is refused, and bars on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import CliRunner, Result

import layerstore
from layerstore.cli.front import front
from support import images as make

from .servers import quirks as spoil
from .servers.quirks import Quirks

pytestmark = pytest.mark.root

Run: TypeAlias = Callable[..., Result]

BASE = make.layer(make.file("etc/hostname", "base\n"))


@pytest.fixture
def settings(data_root: Path) -> Path:
    path = data_root.with_name("daemon.json")
    content = {"data-root": str(data_root), "exec-root": str(data_root) + ".exec", "storage-driver": "overlay2"}
    path.write_text(json.dumps({**content, "max-download-attempts": 1}))
    return path


@pytest.fixture
def run(settings: Path) -> Run:
    """`run("pull", "x", code=1)`: the command in this process."""

    def run(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(front, ["--config", str(settings), *args])
        assert result.exit_code == code, result.output
        return result

    return run


def test_docker_s_lines(run: Run, quirks: Quirks) -> None:
    name, digest = f"{quirks.host}/team/app", quirks.put_image("team/app", "latest", [BASE])
    first = run("pull", name)
    assert first.stdout.splitlines() == [
        "Using default tag: latest",
        "latest: Pulling from team/app",
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}:latest",
        f"{name}:latest",
    ]
    assert first.stderr == ""
    assert run("pull", f"{name}:latest").stdout.splitlines() == [
        "latest: Pulling from team/app",
        f"Digest: {digest}",
        f"Status: Image is up to date for {name}:latest",
        f"{name}:latest",
    ]
    assert run("image", "pull", "-q", name).stdout == f"{name}:latest\n"
    assert run("images", "--format", "{{.Digest}}").stdout == f"{digest}\n"
    assert run("inspect", "-f", "{{json .RepoDigests}}", name).stdout == f'["{name}@{digest}"]\n'


def test_by_digest(run: Run, quirks: Quirks) -> None:
    digest = quirks.put_image("team/app", None, [BASE])
    name = f"{quirks.host}/team/app@{digest}"
    assert run("pull", name).stdout.splitlines() == [
        f"{name}: Pulling from team/app",
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}",
        name,
    ]


def test_all_tags(run: Run, quirks: Quirks) -> None:
    digests = [quirks.put_image("team/app", tag, [BASE], config=make.config([BASE], author=tag)) for tag in "12"]
    name = f"{quirks.host}/team/app"
    assert run("pull", "-a", name).stdout.splitlines() == [
        "1: Pulling from team/app",
        f"Digest: {digests[0]}",
        "2: Pulling from team/app",
        f"Digest: {digests[1]}",
        f"Status: Downloaded newer image for {name}",
        name,
    ]
    assert "Image is up to date" in run("pull", "-a", name).stdout
    assert run("pull", "-a", "-q", name).stdout == f"{name}\n"
    assert "tag can't be used with --all-tags/-a" in run("pull", "-a", f"{name}:1", code=2).stderr
    assert "give --lazy, too" in run("pull", "--prefetch-from", "order", f"{name}:1", code=2).stderr


def test_what_cannot_be_had_is_told_in_words(run: Run, quirks: Quirks) -> None:
    failed = run("pull", f"{quirks.host}/team/none:1", code=1)
    assert failed.stdout == ""
    assert failed.stderr.startswith(f"layerstore: reading the manifest of {quirks.host}/team/none:1: ")
    assert "invalid image name" in run("pull", "Team/App", code=1).stderr
    assert "is no platform" in run("pull", "--platform", "?", f"{quirks.host}/team/none", code=1).stderr


def test_the_registry_s_warnings_and_waits_are_told(run: Run, quirks: Quirks) -> None:
    quirks.put_image("team/app", "latest", [BASE])
    quirks.spoil("GET", "/manifests/", spoil.headers(Warning='299 - "this \x1b[31mrepository moves"'))
    told = run("pull", "-q", f"{quirks.host}/team/app").stderr
    assert "repository moves" in told
    assert "\x1b" not in told


def test_a_terminal_sees_a_bar_for_each_layer(settings: Path, quirks: Quirks) -> None:
    quirks.put_image("team/app", "latest", [BASE, make.layer(make.file("x", b"x" * 100_000))])
    quirks.spoil("GET", "/blobs/", spoil.late(0.2))
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "layerstore.cli", "--config", str(settings), "pull", f"{quirks.host}/team/app"],
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as command:
        os.close(slave)
        shown = b""
        while True:
            try:
                shown += os.read(master, 4096)
            except OSError:
                break
        out, _ = command.communicate()
    os.close(master)
    assert command.returncode == 0
    assert b"Status: Downloaded newer image" in out
    digests = [path for _, path in quirks.blobs]
    layers = [seen.path[-64:][:12] for seen in quirks.requests if "/blobs/" in seen.path][1:]
    assert len(digests) == 3
    assert all(f"Pulling {layer}".encode() in shown for layer in layers)


def test_interrupt_ends_it_at_once(settings: Path, quirks: Quirks) -> None:
    """Although the server is silent, and would be for as long as it may."""
    quirks.put_image("team/app", "latest", [BASE, make.layer(make.file("x", b"x" * 100_000))])
    quirks.spoil("GET", "/blobs/", spoil.stall(100), after=1)
    with subprocess.Popen(
        [sys.executable, "-m", "layerstore.cli", "--config", str(settings), "pull", f"{quirks.host}/team/app"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        while not command.stdout.readline().startswith(b"latest: Pulling"):
            pass
        while len([seen for seen in quirks.requests if "/blobs/" in seen.path]) < 3:
            time.sleep(0.01)
        began = time.monotonic()
        command.send_signal(signal.SIGINT)
        _, told = command.communicate(timeout=60)
    assert command.returncode == 128 + signal.SIGINT, told
    assert time.monotonic() - began < 50
    assert b"Traceback" not in told
    with layerstore.open(config=settings) as store:
        assert (store.images(), store.check()) == ([], [])
