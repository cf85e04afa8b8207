"""Processes die at any point, and many use one store at once: what is committed is there, nothing half-made is seen."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import layerstore
from core import worker
from layerstore.build.cache import Cache
from layerstore.build.cache.pruning import prune
from layerstore.build.steps.session import sweep
from layerstore.store import Store

pytestmark = pytest.mark.root

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *os.environ.get("PYTHONPATH", "").split()])}
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
DEATHS = 200 if NIGHTLY else 12

WHOLE_LIFE = """
import sys, layerstore
from core import worker
from pathlib import Path
root = Path(sys.argv[1])
with layerstore.open(config=worker.settings(root)) as store:
    [image] = store.load(root.with_name("image2.tar"))
    box = store.create_container(image, name="box")
    with box.mount() as tree:
        (tree / "mine").write_text("x")
    box.commit("made")
    with box.mount() as tree:
        (tree / "other").write_text("y")
        box.commit("live")
    with store.image("made").mount() as tree:
        assert (tree / "mine").read_text() == "x"
    box.remove()
    for name in ("live", "made", "image2"):
        store.remove_image(name)
"""

BRANCHES = """
import sys, layerstore
from core import worker
from pathlib import Path
root = Path(sys.argv[1])
with layerstore.open(config=worker.settings(root)) as store:
    [image] = store.load(root.with_name("image2.tar"))
    box = store.create_container(image, name="box")
    with box.mount() as tree:
        for number in range(5):
            (tree / "mine").write_text(str(number))
            box.checkpoint(f"p{number}")
        store.wait()
        box.rollback("p2")
        assert (tree / "mine").read_text() == "2"
    [other] = box.fork(names=["other"])
    with other.mount() as tree:
        (tree / "more").write_text("x")
    box.checkpoint_named("p2").remove()
    box.rollback("p4")
    other.commit("made")
    with store.image("made").mount() as tree:
        assert ((tree / "mine").read_text(), (tree / "more").read_text()) == ("2", "x")
    box.remove()
    other.remove()
    for name in ("made", "image2"):
        store.remove_image(name)
"""

STACKS = """
import sys, layerstore
from core import worker
from pathlib import Path
root = Path(sys.argv[1])
with layerstore.open(config=worker.settings(root)) as store:
    worker.build(store, worker.stacks()[1], "made")
    folder = root.with_name("folder")
    folder.mkdir(exist_ok=True)
    (folder / "mine").write_text("2")
    store.image("made").append(folder, tags=["grown"]).with_config(cmd=["x"], tags=["grown"])
    store.squash("grown", since="made", tags=["squashed"])
    store.squash("grown", tags=["flat"])
    for name, text in {"made": "1", "grown": "2", "squashed": "2", "flat": "2"}.items():
        with store.image(name).mount() as tree:
            assert (tree / "mine").read_text() == text
    store.end_leases("worker", store.leases("worker"))
    for name in ("flat", "squashed", "grown", "made"):
        store.remove_image(name)
"""

LIVES = {"whole": WHOLE_LIFE, "branches": BRANCHES, "stacks": STACKS}


def start(data_root: Path, seed: int, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, worker.__file__, str(data_root), str(seed), str(rounds)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def assert_in_order(data_root: Path, driver: str = "overlay2") -> None:
    """Open the store, as the next process would: all that is there is whole, can be used, and goes without trace."""
    with layerstore.open(config=worker.settings(data_root, driver)) as store:
        for box in store.containers():
            for process in box.processes():  # which outlive who has launched them
                process.wait()
        assert [str(problem) for problem in store.check(content=True)] == []
        assert store.mounted() == []
        for box in store.containers():
            assert list(box.changes()) is not None
            for point in box.checkpoints():
                box.rollback(point)
                assert list(box.changes(point)) == []
            with box.mount() as root:
                os.listdir(root)
        for image in store.images():
            with image.mount() as root:
                assert all(path.lstat() for path in root.rglob("*"))
        for name, chain in store.leases("worker").items():
            with store.open_layers(chain) as tree:
                assert os.listdir(tree)
            with store.create_container(on=chain, name="on-a-lease") as box, box.mount() as root:
                (root / "more").write_text(name)
            box.remove()
        store.end_leases("worker", store.leases("worker"))
        for volume in store.volumes.all():
            assert len(os.listdir(volume.mountpoint)) % 40 <= 1, f"{volume} has not all that an image has in /etc"
        sweep(store)  # builds that died
        prune(Cache(store), all=True)
        store.prune(all_images=True, containers=True)
        store.volumes.prune(all=True)
        assert (store.images(), store.containers(), store.check()) == ([], [], [])
    assert everything(data_root) == []


def everything(data_root: Path) -> list[str]:
    folders = [data_root / name for name in ("overlay2", "skeletons", "staging", "volumes")]
    there = [folder for folder in folders if folder.exists()]
    return [path.name for folder in there for path in folder.iterdir() if not path.name.startswith(".")]


def test_many_processes_do_everything_at_once(store: Store, data_root: Path) -> None:
    worker.archives(data_root.parent)
    others = [start(data_root, seed, 40 if NIGHTLY else 12) for seed in range(8)]
    failures = [failure for other in others if (failure := other.communicate()[1])]
    assert failures == []
    store.close()
    assert_in_order(data_root)


def test_processes_are_killed_at_random(store: Store, data_root: Path) -> None:
    store.close()
    worker.archives(data_root.parent)
    dice = random.Random(time.time_ns())
    running: list[tuple[subprocess.Popen[str], float]] = []
    deaths = 0
    while deaths < DEATHS:
        while len(running) < 4:
            running.append(
                (start(data_root, dice.randrange(1 << 30), 10**6), time.monotonic() + dice.uniform(0.4, 1.5))
            )
        for process, until in list(running):
            if process.poll() is None and time.monotonic() < until:
                continue
            process.kill()
            _, failure = process.communicate()
            assert process.returncode == -signal.SIGKILL, failure
            running.remove((process, until))
            deaths += 1
        time.sleep(0.02)
    for process, _ in running:
        process.kill()
        process.communicate()
    assert_in_order(data_root)


KILLED = [
    *[("whole", "rename", 18), ("whole", "fdatasync", 10), ("whole", "fsync", 10), ("whole", "syncfs", 6)],
    *[("whole", "umount2", 1), ("whole", "move_mount", 4), ("whole", "mkdir", 22)],
    *[("branches", "rename", 46), ("branches", "fdatasync", 22), ("branches", "umount2", 12)],
    *[("branches", "move_mount", 8), ("branches", "fsmount", 34), ("branches", "mkdir", 74)],
    *[("stacks", "rename", 14), ("stacks", "fdatasync", 8), ("stacks", "fsync", 10), ("stacks", "syncfs", 4)],
    *[("stacks", "utimensat", 10), ("stacks", "fsmount", 14), ("stacks", "umount2", 4)],
]
"""What is done, the call before which its process dies, and each which of these. By day some: the torture has all."""


@pytest.mark.tools("strace")
@pytest.mark.parametrize(
    ("life", "call", "step"),
    KILLED if NIGHTLY else KILLED[::3],
)
def test_killed_before_a_system_call(store: Store, data_root: Path, life: str, call: str, step: int) -> None:
    """The call is the last thing that the process does; `step` leaves some out, for time."""
    step = 1 if NIGHTLY else step
    store.close()
    worker.archives(data_root.parent)
    count = 0
    for count in range(1, 200, step):
        inject = [
            "strace",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:signal=KILL:when={count}",
        ]
        done = subprocess.run(
            [*inject, sys.executable, "-c", LIVES[life], data_root],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        assert_in_order(data_root)
    assert count > 1


FAILED = [
    ("whole", "mkdir", "ENOSPC", 18),
    ("whole", "rename", "EIO", 18),
    ("whole", "fdatasync", "EIO", 10),
    ("whole", "fsync", "EIO", 8),
    ("whole", "syncfs", "EIO", 4),
    ("whole", "fsmount", "ENOMEM", 10),
    ("whole", "umount2", "EBUSY", 4),
    ("whole", "pwrite64", "ENOSPC", 194),
    ("branches", "mkdir", "ENOSPC", 74),
    ("branches", "rename", "EIO", 58),
    ("branches", "fdatasync", "EIO", 26),
    ("branches", "syncfs", "EIO", 6),
    ("branches", "fsmount", "ENOMEM", 30),
    ("branches", "umount2", "EBUSY", 12),
    ("stacks", "mkdir", "ENOSPC", 22),
    ("stacks", "rename", "EIO", 14),
    ("stacks", "fdatasync", "EIO", 8),
    ("stacks", "fsync", "EIO", 8),
    ("stacks", "syncfs", "EIO", 4),
    ("stacks", "fsmount", "ENOMEM", 14),
    ("stacks", "utimensat", "EIO", 26),
    ("stacks", "umount2", "EBUSY", 4),
    ("stacks", "pwrite64", "ENOSPC", 122),
]


@pytest.mark.tools("strace")
@pytest.mark.parametrize(
    ("life", "call", "error", "step"),
    FAILED if NIGHTLY else FAILED[::4],
)
def test_failed_system_call_is_an_error_and_leaves_no_trace(
    store: Store, data_root: Path, life: str, call: str, error: str, step: int
) -> None:
    step = -(-step // 20) if NIGHTLY else step
    store.close()
    worker.archives(data_root.parent)
    log = data_root.with_name("calls")
    count = 0
    for count in range(1, 400, step):
        inject = [
            "strace",
            "-f",
            "-o",
            str(log),
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:error={error}:when={count}",
        ]
        done = subprocess.run(
            [*inject, sys.executable, "-c", LIVES[life], data_root],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        if "INJECTED" not in log.read_text():
            break
        if done.returncode != 0:
            last = [line for line in done.stderr.splitlines() if line.startswith("layerstore.errors.")]
            assert last, done.stderr
        assert_in_order(data_root)
    assert count > 1
