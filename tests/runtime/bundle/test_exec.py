"""The process of an `exec`: as that of the container, apart from what the options say."""

from __future__ import annotations

from typing import Any

import pytest

from layerstore import ConfigError, NotFound
from layerstore.runtime import bundle
from layerstore.runtime.options import ExecOptions, RunOptions, Ulimit

from .conftest import HOST, check


@pytest.fixture
def config(place: bundle.Place) -> dict[str, Any]:
    options = RunOptions(
        args=("serve",),
        env=("A=1", "B=2"),
        user="web",
        working_dir="/srv",
        ulimits=(Ulimit("nofile", 5, 9),),
        security_opt=("no-new-privileges",),
        cap_drop=("MKNOD",),
        init=True,
    )
    return bundle.make({}, options, HOST, place)


def process_of(config: dict[str, Any], tree: int, *args: str, **said: Any) -> dict[str, Any]:
    process = bundle.for_exec(config, ExecOptions(args, **said), HOST, tree)
    check(config | {"process": process})
    return process


def test_it_is_as_the_container_s_own(config: dict[str, Any], tree: int) -> None:
    own = config["process"]
    process = process_of(config, tree, "ls", "-l")
    assert process == own | {"args": ["ls", "-l"], "terminal": False}
    assert process["rlimits"]
    assert process["noNewPrivileges"]


def test_options_stand_over_it(config: dict[str, Any], tree: int) -> None:
    process = process_of(config, tree, "sh", user="bare:more", env=("A=3", "B"), working_dir="/tmp/..", tty=True)
    assert process["user"] == {"uid": 70, "gid": 55, "additionalGids": [55], "umask": 0o022}
    assert process["env"][-3:] == ["HOME=/", "A=3", "TERM=xterm"]
    assert process["cwd"] == "/"
    assert process["terminal"]
    assert "consoleSize" not in process


def test_its_terminal_has_a_size_from_the_start(config: dict[str, Any], tree: int) -> None:
    process = process_of(config, tree, "sh", tty=True, console_size=(24, 80))
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert "consoleSize" not in process_of(config, tree, "sh", console_size=(24, 80))


def test_privileged_and_root_have_more(config: dict[str, Any], tree: int) -> None:
    assert process_of(config, tree, "x")["capabilities"].keys() == {"bounding"}
    root = process_of(config, tree, "x", user="root")["capabilities"]
    assert len(root["effective"]) == 13
    assert len(process_of(config, tree, "x", user="root", privileged=True)["capabilities"]["effective"]) == 41


def test_what_cannot_be_is_refused(config: dict[str, Any], tree: int) -> None:
    with pytest.raises(ConfigError, match="no exec command specified"):
        process_of(config, tree)
    with pytest.raises(NotFound, match="unable to find user nobody"):
        process_of(config, tree, "x", user="nobody")
    with pytest.raises(ConfigError, match="needs to be an absolute path"):
        process_of(config, tree, "x", working_dir="tmp")
