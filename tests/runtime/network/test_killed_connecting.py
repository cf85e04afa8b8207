"""Whoever connects a container is killed between any two steps: the program that connects goes with the container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerstore import Store
from runtime.life.conftest import eventually
from runtime.life.test_killed import NIGHTLY, assert_true_and_clean
from runtime.network import killed

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon", "slirp4netns", "pasta")]

DAILY = 3
TESTS = Path(__file__).parents[2]


def run(store: Store, parent: str, network: str, number: int) -> subprocess.CompletedProcess[str]:
    config = store.config
    command = [
        sys.executable,
        killed.__file__,
        str(config.data_root),
        str(config.exec_root),
        parent,
        network,
        str(number),
    ]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False
    )


def connectors() -> list[str]:
    """The programs that connect containers on this machine."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(name in words[0] for name in (b"slirp4netns", b"pasta")):
            found.append(place.name)
    return found


@pytest.mark.parametrize("network", ["slirp4netns", "pasta"])
def test_killed_while_it_connects(loaded: Store, cgroup_parent: str, network: str) -> None:
    config = loaded.config
    loaded.close()
    before = set(connectors())
    whole = run(loaded, cgroup_parent, network, 0)
    assert whole.returncode == 0, whole.stderr
    count = int(whole.stdout)
    assert count > 30
    numbers = range(1, count + 1) if NIGHTLY else sorted({1 + (count - 1) * n // (DAILY - 1) for n in range(DAILY)})
    for number in numbers:
        done = run(loaded, cgroup_parent, network, number)
        assert done.returncode in (-signal.SIGKILL, 0), (number, done.stderr)
        assert_true_and_clean(config)
        eventually(lambda: set(connectors()) - before, set())
