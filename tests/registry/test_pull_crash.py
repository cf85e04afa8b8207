"""Processes die, calls fail and the power goes while images are pulled: what is there is whole, the rest comes yet."""

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
from layerstore.store import Store
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.power import CUTTABLE, Disk
from support import images as make

from . import pulls
from .servers import quirks as spoil
from .servers.quirks import Quirks

pytestmark = pytest.mark.root

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
KEEPING = pytest.mark.parametrize("keep", [False, True] if NIGHTLY else [True])
"""Whether blobs are kept: the life with more in it."""

BASE = make.layer(make.folder("etc"), make.file("etc/hostname", "base\n"), make.file("zeros", bytes(100_000)))
TOPS = {"1": make.layer(make.file("etc/motd", random.Random(1).randbytes(300_000))), "2": make.layer(make.file("x"))}


@pytest.fixture
def name(quirks: Quirks, repository: str) -> str:
    """A repository with two images that share a layer."""
    for tag, top in TOPS.items():
        quirks.put_image(repository, tag, [BASE, top])
    return f"{quirks.host}/{repository}"


def command(data_root: Path, name: str, *, keep: bool) -> list[str]:
    return [sys.executable, "-m", "registry.pulls", str(data_root), name, "keep" if keep else ""]


def traced(data_root: Path, name: str, log: str, call: str, fault: str, *, keep: bool) -> tuple[int, str]:
    inject = ["strace", "-f", "-o", log, "-e", f"trace={call}", "-e", f"inject={call}:{fault}"]
    done = subprocess.run(
        [*inject, *command(data_root, name, keep=keep)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def assert_in_order(data_root: Path, name: str, monkeypatch: pytest.MonkeyPatch, *, keep: bool = False) -> None:
    """Open the store, as the next process would: what is there is whole, what is not comes, and all goes again."""
    with layerstore.open(config=pulls.settings(data_root, keep=keep)) as store:
        assert [str(problem) for problem in store.check(content=True)] == []
        for image in store.images():
            assert image.layers in [(make.digest(BASE), make.digest(top)) for top in TOPS.values()]
        image = store.pull(f"{name}:1")
        with image.mount() as root:
            assert (root / "etc/motd").stat().st_size == 300_000
        assert store.check(content=True) == []
        now = time.time_ns()
        with monkeypatch.context() as later:
            later.setattr("time.time_ns", lambda: now + 2 * 24 * 60 * 60 * 10**9)
            store.prune(all_images=True)
        assert store.check() == []
        assert store.images() == []
    for folder in ("blobs/sha256", "overlay2", "skeletons", "staging"):
        left = list((data_root / folder).iterdir()) if (data_root / folder).exists() else []
        assert [path.name for path in left if not path.name.startswith(".")] == []
    # Of what was not pulled again something may be left, for the next pull.
    blobs = {make.digest(top)[7:] for top in TOPS.values()}
    assert len(list((data_root / "partial").iterdir())) <= len(blobs)


@pytest.mark.tools("strace")
@KEEPING
@pytest.mark.parametrize(
    ("call", "step"),
    [("rename", 26), ("fsync", 46), ("pwrite64", 282), *([("fdatasync", 1), ("syncfs", 1)] if NIGHTLY else [])],
)
def test_killed_before_a_system_call(
    store: Store, data_root: Path, name: str, monkeypatch: pytest.MonkeyPatch, call: str, step: int, *, keep: bool
) -> None:
    """The call is the last thing that the process does; `step` leaves some out, for time."""
    store.close()
    count = 0
    for count in range(1, 600, 1 if NIGHTLY else step):
        code, told = traced(data_root, name, "/dev/null", call, f"signal=KILL:when={count}", keep=keep)
        if code == 0:
            break
        assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), told
        assert_in_order(data_root, name, monkeypatch, keep=keep)
    assert count > 1


@pytest.mark.tools("strace")
@KEEPING
@pytest.mark.parametrize(
    ("call", "error", "step"),
    [
        ("rename", "EIO", 34),
        ("pwrite64", "ENOSPC", 266),
        ("recvfrom", "ECONNRESET", 26),
        *([("fsync", "EIO", 1), ("syncfs", "EIO", 1), ("mkdir", "ENOSPC", 1)] if NIGHTLY else []),
    ],
)
def test_failed_system_call_is_an_error_and_leaves_no_trace(
    store: Store,
    data_root: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: str,
    step: int,
    *,
    keep: bool,
) -> None:
    store.close()
    log = data_root.with_name("calls")
    count = 0
    for count in range(1, 600, -(-step // 20) if NIGHTLY else step):
        code, told = traced(data_root, name, str(log), call, f"error={error}:when={count}", keep=keep)
        if "INJECTED" not in log.read_text():
            break
        if code != 0:
            assert "layerstore.errors." in told, told
        assert_in_order(data_root, name, monkeypatch, keep=keep)
    assert count > 1


@pytest.mark.parametrize("kind", CUTTABLE)
@KEEPING
def test_what_was_pulled_survives_a_power_cut(
    filesystems: Filesystems, kind: str, name: str, tmp_path: Path, *, keep: bool
) -> None:
    with Disk(filesystems, kind) as disk:
        config = layerstore.Config(
            data_root=disk.mountpoint / "store",
            exec_root=tmp_path / "exec",
            storage_driver="btrfs" if kind == "btrfs" else "overlay2",
            keep_blobs=keep,
        )
        store = layerstore.open(config=config)
        image = store.pull(f"{name}:1")
        with disk.cut():
            store.close()
        with layerstore.open(config=config) as found:
            assert found.check(content=True) == []
            assert found.image(f"{name}@{image.digest}") == image
            assert found.image(f"{name}:1").layers == (make.digest(BASE), make.digest(TOPS["1"]))
            assert len(found.blobs.manifests_of(image.id)) == 1
            for blob in (form for layer in image.layers for form in found.blobs.forms_of(layer)):
                made = bytearray()
                found.blobs.write(blob.digest, made.extend)
                assert make.digest(made) == blob.digest


def test_many_processes_pull_and_remove_the_same_and_are_killed(
    store: Store, data_root: Path, name: str, quirks: Quirks, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    quirks.spoil("GET", "/blobs/", spoil.slow(2_000_000))
    dice = random.Random(time.time_ns())
    for _ in range(60 if NIGHTLY else 2):
        running = [
            subprocess.Popen(command(data_root, name, keep=keep), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
            for keep in (False, True, False)
        ]
        time.sleep(dice.uniform(0.3, 1.2))
        for process in running:
            process.kill()
            process.wait()
        assert_in_order(data_root, name, monkeypatch)
