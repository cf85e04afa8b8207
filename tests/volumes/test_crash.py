"""Whoever makes, fills, gives or removes a volume dies at any point, or has any call refused: all of it, or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import layerstore
from layerstore import Image, Store

pytestmark = [pytest.mark.root, pytest.mark.tools("strace")]

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
TREE = {"deep", "deep/file", "seed"}

LIFE = """
import sys, layerstore
from layerstore import Attachment
data_root, exec_root = sys.argv[1:]
settings = layerstore.Config(data_root=data_root, exec_root=exec_root)
with layerstore.open(config=settings) as store:
    store.volumes.create("empty")
    with store.volumes.create("full").mountpoint.joinpath("mine").open("w") as file:
        file.write("1")
    box = store.create_container("data:1", name="box")
    store.volumes.attach(
        box,
        [
            Attachment("/srv/db", "empty"),
            Attachment("/full", "full"),
            Attachment("/var/db", "fresh"),
            Attachment("/srv/db/deep"),
        ],
    )
    box.remove(volumes=True)
    for name in ("empty", "full", "fresh"):
        store.volumes.remove(name)
"""


def tree_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_in_order(settings: layerstore.Config) -> None:
    """Open the store, as the next process would: each volume is whole or not there, and all go without trace."""
    with layerstore.open(config=settings) as store:
        assert [str(problem) for problem in store.check()] == []
        volumes = {volume.name: volume for volume in store.volumes.all()}
        uses = [use for box in store.containers() for use in store.volumes.of(box.id)]
        folder = settings.data_root / "volumes"
        assert sorted(volumes) == (sorted(os.listdir(folder)) if folder.exists() else [])
        assert all(os.listdir(folder / name) == ["_data"] for name in volumes)
        assert [use.target for use in uses] in ([], ["/full", "/srv/db", "/srv/db/deep", "/var/db"])
        if uses:
            assert tree_of(volumes["fresh"].mountpoint) == tree_of(volumes["empty"].mountpoint) == TREE
            assert os.listdir(uses[2].volume.mountpoint) == ["file"]
            assert volumes["empty"].mountpoint.stat().st_uid == 26
        elif "fresh" not in volumes and "full" in volumes and "empty" in volumes:
            assert tree_of(volumes["empty"].mountpoint) in (set(), TREE)
        store.prune(containers=True, images=False)
        store.volumes.prune(all=True)
        assert [store.containers(), store.volumes.all(), store.check()] == [[], [], []]
        store.wait()
    assert not folder.exists() or os.listdir(folder) == []
    assert [name for name in os.listdir(settings.data_root / "staging") if not name.startswith(".")] == []


def lived(settings: layerstore.Config, call: str, what: str, log: Path) -> subprocess.CompletedProcess[str]:
    """The life of some volumes, in which one call is the last, or is refused."""
    inject = ["strace", "-f", "-o", str(log), "-e", f"trace={call}", "-e", f"inject={call}:{what}"]
    return subprocess.run(
        [*inject, sys.executable, "-c", LIFE, settings.data_root, settings.exec_root],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("call", "step"),
    [("mkdir", 7), ("rename", 5), ("fsync", 9), ("fdatasync", 9), ("syncfs", 1), ("utimensat", 7), ("unlinkat", 9)],
)
def test_killed_before_a_system_call(
    store: Store, image: Image, settings: layerstore.Config, tmp_path: Path, call: str, step: int
) -> None:
    store.close()
    count = 0
    for count in range(1, 400, 1 if NIGHTLY else step):
        done = lived(settings, call, f"signal=KILL:when={count}", tmp_path / "calls")
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        assert_in_order(settings)
    assert count > 1


@pytest.mark.parametrize(
    ("call", "error", "step"),
    [
        ("mkdir", "ENOSPC", 11),
        ("rename", "EIO", 9),
        ("fsync", "EIO", 13),
        ("syncfs", "EIO", 1),
        ("copy_file_range", "EIO", 4),
        ("pwrite64", "ENOSPC", 97),
    ],
)
def test_a_call_that_is_refused_is_an_error_and_leaves_no_trace(
    store: Store, image: Image, settings: layerstore.Config, tmp_path: Path, call: str, error: str, step: int
) -> None:
    store.close()
    log = tmp_path / "calls"
    met = False
    for count in range(1, 400, 1 if NIGHTLY else step):
        done = lived(settings, call, f"error={error}:when={count}", log)
        if "INJECTED" not in log.read_text():
            break
        met = True
        if done.returncode != 0:
            assert any(line.startswith("layerstore.errors.") for line in done.stderr.splitlines()), done.stderr
        assert_in_order(settings)
    assert met
