"""Whoever starts a program dies at any point, or the program before it begins: nothing runs of which nobody knows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pytest

import layerstore
from core import worker
from layerstore.store import Store
from support import programs

pytestmark = [pytest.mark.root, pytest.mark.tools("strace")]

TESTS = Path(__file__).parents[1]
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

LIFE = """
import sys, layerstore
from core import worker
from pathlib import Path
root = Path(sys.argv[1])
place = root.with_name("place")
with layerstore.open(config=worker.settings(root)) as store:
    box = store.container("box")
    launched = box.launch(["sh", "-c", f"echo >{place}/launched; sleep 0.1"], root=place)
    started = box.start(["sh", "-c", "echo >/started; sleep 0.1"])
    with box.mount() as tree:
        (tree / "mounted").write_text("")
    started.wait()
    launched.wait()
    assert box.status == "unmounted"
"""


def lived_in(data_root: Path, call: str, inject: str) -> subprocess.CompletedProcess[str]:
    log = str(data_root.with_name("calls"))
    command = ["strace", "-f", "-o", log, "-e", f"trace={call}", "-e", f"inject={call}:{inject}"]
    return subprocess.run(
        [*command, sys.executable, "-c", LIFE, data_root],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_nothing_is_left(data_root: Path) -> None:
    """What still runs is known, ends, and then the container is as any other."""
    with layerstore.open(config=worker.settings(data_root)) as store:
        box = store.container("box")
        key = next(name for name in os.listdir(data_root / "overlay2") if len(name) == 32 and name in text_of(box))
        deadline = time.monotonic() + 10
        while box.status == "running":
            assert time.monotonic() < deadline
            for process in box.processes():
                process.wait()
        assert (box.processes(), box.mountpoint, store.mounted()) == ([], None, [])
        assert seen_by_anybody(key) == []
        assert store.check() == []
        with box.mount() as root:
            os.listdir(root)
        store.create_container(box.image, name="next").remove()


def text_of(box: layerstore.Container) -> str:
    return str(box.inspect()["GraphDriver"]["Data"])


def seen_by_anybody(key: str) -> list[str]:
    """The processes that have a mount of a layer."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if key.encode() in Path(f"/proc/{process}/mountinfo").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


@pytest.fixture
def life(store: Store, data_root: Path, tmp_path: Path) -> Path:
    """The data-root of a store with a container that programs run in."""
    [image] = store.load(programs.archive(tmp_path / "image.tar"))
    store.create_container(image, name="box")
    data_root.with_name("place").mkdir()
    store.close()
    return data_root


def points(by_day: int) -> Iterable[int]:
    """Which of the calls: one by day, all by night."""
    return count(1) if NIGHTLY else (by_day,)


@pytest.mark.parametrize(
    ("call", "by_day"),
    [
        *(("clone", 1), ("move_mount", 1), ("mount", 3), ("umount2", 1), ("pivot_root", 1), ("execveat", 1)),
        *(("write", 1), ("pwrite64", 9), ("open_tree", 1), ("setns", 1), ("waitid", 2), ("execve", 2)),
    ],
)
def test_killed_before_a_system_call(life: Path, call: str, by_day: int) -> None:
    """Whoever makes the call makes no other: of each process or thread its first, second, ..."""
    deaths = 0
    for nth in points(by_day):
        done = lived_in(life, call, f"signal=KILL:when={nth}")
        killed = "killed by SIGKILL" in life.with_name("calls").read_text()
        assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL) or "Error" in done.stderr, done.stderr
        assert_nothing_is_left(life)
        if not killed:
            break
        deaths += 1
    assert deaths > 0


@pytest.mark.parametrize(
    ("call", "error"),
    [("clone", "EAGAIN"), ("open_tree", "ENOMEM"), ("move_mount", "ENOMEM")],
)
def test_a_failed_system_call_is_an_error(life: Path, call: str, error: str) -> None:
    failures = 0
    for nth in points(1):
        done = lived_in(life, call, f"error={error}:when={nth}")
        if "INJECTED" not in life.with_name("calls").read_text():
            break
        failures += 1
        assert done.returncode == 0 or "layerstore.errors." in done.stderr, done.stderr
        assert_nothing_is_left(life)
    assert failures > 0
