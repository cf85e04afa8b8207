"""A crowd on one store, of processes or of threads, some of which are killed: no error but those that are documented.

By day for seconds; by night sixteen of each for ten minutes. How long the database was locked, and for what, is printed
(`pytest -rP`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from core import crowd, worker
from core.test_crash import ENVIRONMENT, assert_in_order

pytestmark = pytest.mark.root

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
SECONDS = 600.0 if NIGHTLY else 2.0
EACH = 16 if NIGHTLY else 4


def start(data_root: Path, driver: str, seed: int, threads: int, seconds: float) -> subprocess.Popen[str]:
    words = [str(word) for word in (data_root, driver, seed, threads, seconds)]
    command = [sys.executable, crowd.__file__, *words]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("driver", "filesystem", "kind"),
    [
        *[("overlay2", "ext4", "threads"), ("btrfs", "btrfs", "threads"), ("btrfs", "btrfs", "processes")],
        *([("overlay2", "ext4", "processes")] if NIGHTLY else []),  # which test_crash.py has by day
    ],
)
def test_many_at_once(backing: Callable[[str], Path], driver: str, filesystem: str, kind: str) -> None:
    data_root = backing(filesystem) / "store"
    worker.archives(data_root.parent)
    dice = random.Random(time.time_ns())
    end = time.monotonic() + SECONDS
    several, threads = (EACH, 1) if kind == "processes" else (1, EACH)
    running = [start(data_root, driver, dice.randrange(1 << 30), threads, SECONDS) for _ in range(several)]
    killed = []
    while kind == "processes" and (left := end - time.monotonic()) > 1:
        time.sleep(dice.uniform(0.5, 1.0))
        victim = running.pop(dice.randrange(len(running)))
        victim.kill()
        killed.append(victim)
        running.append(start(data_root, driver, dice.randrange(1 << 30), threads, max(left - 1, 0.5)))
    steps, longest = 0, Counter[str]()
    for process in running:
        said, failure = process.communicate()
        assert process.returncode == 0, failure
        told = json.loads(said)
        steps += told["steps"]
        longest |= Counter(told["longest"])
    for process in killed:
        _, failure = process.communicate()
        assert process.returncode == -signal.SIGKILL, failure
    assert steps >= EACH
    parts = {what: longest[what] for what in (crowd.COMMIT, crowd.BEFORE, crowd.RECORDS)}
    print(f"{steps} steps, longest in ms: {parts}; by who held it: {longest.most_common(5)}")
    assert_in_order(data_root, driver)
