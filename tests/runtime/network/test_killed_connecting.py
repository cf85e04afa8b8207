"""Whoever connects a container is killed between any two steps: the program that connects goes with the container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerstore import Config, Store
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


def connectors(config: Config) -> list[int]:
    """The programs that connect containers of this store: other tests have theirs.

    pasta is told a file in the store's folder, slirp4netns has a folder there open.
    """
    mark = config.exec_root.parent.name
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = os.fsdecode((place / "cmdline").read_bytes()).split("\0")  # a program may be told any bytes
            if any(name in words[0] for name in ("slirp4netns", "pasta")):
                seen = [*words, *(os.readlink(fd) for fd in (place / "fd").iterdir())]
                found += [int(place.name)] * any(mark in path for path in seen)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("network", ["slirp4netns", "pasta"])
def test_killed_while_it_connects(loaded: Store, cgroup_parent: str, network: str) -> None:
    config = loaded.config
    loaded.close()
    whole = run(loaded, cgroup_parent, network, 0)
    assert whole.returncode == 0, whole.stderr
    count = int(whole.stdout)
    assert count > 30
    numbers = range(1, count + 1) if NIGHTLY else sorted({1 + (count - 1) * n // (DAILY - 1) for n in range(DAILY)})
    for number in numbers:
        done = run(loaded, cgroup_parent, network, number)
        assert done.returncode in (-signal.SIGKILL, 0), (number, done.stderr)
        assert_true_and_clean(config)
        eventually(lambda: connectors(config), [])
