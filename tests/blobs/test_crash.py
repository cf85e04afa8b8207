"""Processes die, calls fail and the power goes while blobs come and go: what is there is whole, and nothing is left."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import layerstore
from blobs import life
from blobs.conftest import read
from layerstore.digest import Digest
from layerstore.store import Store
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.power import CUTTABLE, Disk

pytestmark = pytest.mark.root

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS)}
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


def traced(data_root: Path, log: str, call: str, fault: str) -> subprocess.CompletedProcess[str]:
    inject = ["strace", "-f", "-o", log, "-e", f"trace={call}", "-e", f"inject={call}:{fault}"]
    command = [*inject, sys.executable, life.__file__, data_root]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def assert_in_order(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the store, as the next process would: what is there is whole, and goes without trace."""
    kept = data_root / "blobs" / "sha256"
    with layerstore.open(config=life.settings(data_root)) as store:
        assert [str(problem) for problem in store.check(content=True)] == []
        for path in kept.glob("*"):
            assert read(store.blobs, f"sha256:{path.name}") == path.read_bytes()
        now = time.time_ns()
        with monkeypatch.context() as later:
            later.setattr("time.time_ns", lambda: now + 2 * life.LATER)
            store.prune(all_images=True)
        assert store.check() == []
        assert store.blobs.remains().kept == store.blobs.remains().partial == 0
    for folder in (kept, data_root / "partial", data_root / "staging", data_root / "overlay2"):
        left = list(folder.iterdir()) if folder.exists() else []
        assert [path.name for path in left if not path.name.startswith(".")] == []


@pytest.mark.tools("strace")
@pytest.mark.parametrize(("call", "step"), [("rename", 16), ("fdatasync", 12), ("fsync", 18), ("unlink,unlinkat", 74)])
def test_killed_before_a_system_call(
    store: Store, data_root: Path, call: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is the last thing that the process does; `step` leaves some out, for time."""
    store.close()
    count = 0
    for count in range(1, 400, 1 if NIGHTLY else step):
        done = traced(data_root, "/dev/null", call, f"signal=KILL:when={count}")
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        assert_in_order(data_root, monkeypatch)
    assert count > 1


@pytest.mark.tools("strace")
@pytest.mark.parametrize(
    ("call", "error", "step"),
    [
        ("rename", "EIO", 18),
        ("fsync", "EIO", 16),
        ("fdatasync", "EIO", 10),
        ("pwrite64", "ENOSPC", 240),
        ("mkdir", "ENOSPC", 6),
        ("unlink,unlinkat", "EIO", 166),
    ],
)
def test_failed_system_call_is_an_error_and_leaves_no_trace(
    store: Store, data_root: Path, call: str, error: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    log = data_root.with_name("calls")
    count = 0
    for count in range(1, 600, -(-step // 20) if NIGHTLY else step):
        done = traced(data_root, str(log), call, f"error={error}:when={count}")
        if "INJECTED" not in log.read_text():
            break
        if done.returncode != 0:
            assert "layerstore.errors." in done.stderr, done.stderr
        assert_in_order(data_root, monkeypatch)
    assert count > 1


def test_killed_at_random(store: Store, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time do the same in one store, and both are killed."""
    store.close()
    dice = random.Random(time.time_ns())
    for _ in range(100 if NIGHTLY else 3):
        both = [
            subprocess.Popen([sys.executable, life.__file__, data_root], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        time.sleep(dice.uniform(0.1, 0.8))
        for process in both:
            process.kill()
            process.wait()
        assert_in_order(data_root, monkeypatch)


def test_many_keep_and_remove_the_same_blobs(store: Store, data_root: Path) -> None:
    """Whoever has just put one can read it, whatever others remove meanwhile; and at the end all is in order."""
    names = [f"{number}".encode() * 3000 for number in range(3)]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        try:
            with layerstore.open(config=store.config) as mine:
                for _ in range(40):
                    data = dice.choice(names)
                    digest, size = mine.blobs.put(io.BytesIO(data))
                    assert size == len(data)
                    try:
                        assert read(mine.blobs, digest) == data
                    except layerstore.NotFound:
                        pass  # deleted meanwhile
                    if dice.random() < 0.5:
                        mine.blobs.delete(Digest(digest))
                    if dice.random() < 0.2:
                        mine.prune()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.check(content=True) == []


@pytest.mark.parametrize("kind", CUTTABLE)
def test_what_was_put_survives_a_power_cut(filesystems: Filesystems, kind: str, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000)
    with Disk(filesystems, kind) as disk:
        config = layerstore.Config(
            data_root=disk.mountpoint / "store", exec_root=tmp_path / "exec", storage_driver="vfs"
        )
        store = layerstore.open(config=config)
        digest, _ = store.blobs.put(io.BytesIO(data))
        kept = store.blobs.put_manifest("application/json", b"{}")
        uploaded = store.blobs.partial(life.name_of(data[1:]))
        assert uploaded is not None
        with uploaded:
            uploaded.append(data[1:])
            store.blobs.put_partial(uploaded, life.name_of(data[1:]))
        partial = store.blobs.partial(life.PARTIAL)
        assert partial is not None
        with partial:
            partial.append(data)
        with disk.cut():
            store.close()
        with layerstore.open(config=config) as found:
            assert found.check(content=True) == []
            assert read(found.blobs, digest) == data
            assert read(found.blobs, life.name_of(data[1:])) == data[1:]
            assert found.blobs.manifest(kept.digest) == kept
            partial = found.blobs.partial(life.PARTIAL)
            assert partial is not None
            with partial:
                assert data.startswith(b"".join(bytes(piece) for piece in partial.pieces()))
