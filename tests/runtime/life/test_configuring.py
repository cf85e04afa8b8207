"""What a container was made with, over what its image says, is what it is run with."""

from __future__ import annotations

from typing import Any

import pytest

from layerstore.runtime import HealthCheck, RunOptions
from layerstore.runtime.engine import Engine
from layerstore.runtime.health import check_of
from layerstore.runtime.life.configuring import configured

CHECK = {"Test": ["CMD", "look"], "Interval": 5_000_000_000, "Retries": 9}


@pytest.mark.parametrize(
    "health",
    [
        HealthCheck(),
        HealthCheck(interval=0.0, retries=0),
        HealthCheck(test=("CMD-SHELL", "true"), timeout=2.0),
        HealthCheck(interval=7.0, retries=1, start_period=0.5),
        HealthCheck(disabled=True),
    ],
)
@pytest.mark.parametrize("said", [{}, {"Healthcheck": CHECK}, {"Healthcheck": {"Test": ["NONE"]}}])
def test_a_health_check_is_the_same_from_the_image(said: dict[str, Any], health: HealthCheck) -> None:
    options = RunOptions(health=health)
    assert check_of({"config": configured(said, options)}, RunOptions()) == check_of({"config": said}, options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RunOptions(), {"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=1", "B=2"]}),
        (RunOptions(args=("x",)), {"Entrypoint": ["/e"], "Cmd": ["x"], "Env": ["A=1", "B=2"]}),
        (RunOptions(entrypoint=("/n",)), {"Entrypoint": ["/n"], "Env": ["A=1", "B=2"]}),
        (RunOptions(entrypoint=(), args=("x",)), {"Cmd": ["x"], "Env": ["A=1", "B=2"]}),
        (RunOptions(env=("A=3", "B")), {"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=3"]}),
    ],
)
def test_commands_and_variables(given: RunOptions, expected: dict[str, Any]) -> None:
    assert configured({"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=1", "B=2"]}, given) == expected


def test_engines_that_may_add_something_are_not_plain() -> None:
    """Of them nobody can say which programs a container will have."""
    assert Engine("crun", "/usr/bin/crun").is_plain
    assert not Engine("runc", "/usr/bin/runc", ("--systemd-cgroup",)).is_plain
    assert not Engine("nvidia", "/usr/bin/nvidia-container-runtime").is_plain
