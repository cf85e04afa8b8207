"""The command, run within the test's process and as one of its own, on a store of the test's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import CliRunner, Result

from layerstore.cli.front import front

Run: TypeAlias = Callable[..., Result]
Shell: TypeAlias = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def settings(data_root: Path) -> Path:
    """A daemon.json that leads to an empty store on ext4."""
    path = data_root.with_name("daemon.json")
    exec_root = data_root.with_name("exec")
    path.write_text(
        json.dumps({"data-root": str(data_root), "exec-root": str(exec_root), "storage-driver": "overlay2"})
    )
    return path


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`zone("EST5")` lets the machine be in that time zone."""

    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def bare() -> Run:
    """`bare("images", "--help")`: the command in this process, without any store."""

    def run(*args: str, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(front, args, input=stdin)

    return run


@pytest.fixture
def run(settings: Path) -> Run:
    """`run("images", "-q")`: the command in this process, on the store of `settings`. It has to succeed."""

    def run(*args: str, stdin: bytes = b"", code: int = 0) -> Result:
        result = CliRunner().invoke(front, ["--config", str(settings), *args], input=stdin)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def bare_shell() -> Shell:
    """`bare_shell("version")`: the command as a process, without any store."""

    def run(
        *args: str, stdin: bytes = b"", stdout: int = subprocess.PIPE, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "layerstore.cli", *args],
            input=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, **(variables or {})},
            check=False,
        )

    return run


@pytest.fixture
def shell(settings: Path, bare_shell: Shell) -> Shell:
    """`shell("images")`: the command as a process, on the store of `settings`."""

    def run(*args: str, **more: object) -> subprocess.CompletedProcess[bytes]:
        return bare_shell("--config", str(settings), *args, **more)

    return run
