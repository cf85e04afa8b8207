"""Which engine is taken, of daemon.json and of PATH."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerstore import Config
from layerstore.config import Engine as Told
from layerstore.runtime.engine import engines
from layerstore.runtime.engine.engines import Engine, all_of, find
from layerstore.runtime.errors import EngineNotFound


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which commands are looked for."""
    monkeypatch.setattr(engines, "_SEARCH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str) -> str:
    file = folder / name
    file.write_text(f"#!/bin/sh\necho {name} version 9\n")
    file.chmod(0o755)
    return os.fspath(file)


def test_crun_comes_before_runc(path: Path) -> None:
    runc = program(path, "runc")
    assert find(Config()) == Engine("runc", runc)
    crun = program(path, "crun")
    assert find(Config()) == Engine("crun", crun)
    assert find(Config(), "runc") == Engine("runc", runc)


def test_the_default_runtime_of_daemon_json_counts(path: Path) -> None:
    program(path, "crun")
    other = program(path, "other")
    config = Config(engines=(Told("lean", other, ("--debug",)),), default_engine="lean")
    assert find(config) == Engine("lean", other, ("--debug",))
    assert [engine.name for engine in all_of(config)] == ["lean", "crun"]
    assert engines.version_of(find(config)) == "other version 9"


def test_a_path_is_an_engine(path: Path) -> None:
    other = program(path, "other")
    assert find(Config(), other) == Engine("other", other)


def test_none_at_all_says_which_package(path: Path) -> None:
    with pytest.raises(EngineNotFound, match="no OCI runtime is installed") as told:
        find(Config())
    assert "apt-get install crun" in str(told.value)
    assert told.value.code == 125


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(default_engine="nope"), "unknown or invalid runtime name: nope"),
        (Config(engines=(Told("x", "/no/such"),), default_engine="x"), "/no/such, the runtime x of daemon.json"),
        (Config(engines=(Told("kata", ""),), default_engine="kata"), "only containerd can run"),
    ],
)
def test_an_engine_that_cannot_be_had_is_named(path: Path, config: Config, words: str) -> None:
    with pytest.raises(EngineNotFound, match=words):
        find(config)
