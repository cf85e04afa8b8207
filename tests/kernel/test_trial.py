"""Folders for trials: gone when the trial is over, and after the death of who made one, but never before."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.kernel.mounts import mounts_below
from layerstore.kernel.mounts.trial import sweep, trial_folder
from layerstore.testing.filesystems import unmount

DIES = """
import os, sys
from pathlib import Path
from layerstore.kernel import btrfs
from layerstore.kernel.mounts.trial import trial_folder
with trial_folder(Path(sys.argv[1])) as place:
    (place / "deep" / "er").mkdir(parents=True)
    if sys.argv[2] == "btrfs":
        btrfs.create(place / "made")
        btrfs.snapshot(place / "made", place / "shot", read_only=True)
    print(place, flush=True)
    if sys.argv[2] != "waits":
        os._exit(9)
    sys.stdin.read()
"""


def dead_one(parent: Path, how: str = "") -> Path:
    done = subprocess.run([sys.executable, "-c", DIES, parent, how], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    return Path(done.stdout.strip())


def test_it_is_gone_at_the_end(tmp_path: Path) -> None:
    with trial_folder(tmp_path) as place:
        (place / "file").touch()
        assert place.parent == tmp_path
    with pytest.raises(RuntimeError), trial_folder(tmp_path):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_the_next_one_removes_what_the_dead_left(tmp_path: Path) -> None:
    assert dead_one(tmp_path).is_dir()
    with trial_folder(tmp_path) as place:
        assert os.listdir(tmp_path) == [place.name]
    dead_one(tmp_path)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []
    sweep(tmp_path / "missing")


def test_the_living_keep_theirs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DIES, tmp_path, "waits"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with trial_folder(tmp_path) as place:
            sweep(tmp_path)
            assert {theirs, place} <= set(tmp_path.iterdir())
            assert (theirs / "deep").is_dir()
        other.kill()
        other.wait()
        sweep(tmp_path)
        assert os.listdir(tmp_path) == []


def test_many_at_once(tmp_path: Path) -> None:
    """Each sweeps before it begins; what another has made a moment ago is not taken for one of the dead."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.map(_try_often, [tmp_path] * 3))
    assert os.listdir(tmp_path) == []


def _try_often(parent: Path) -> bool:
    for _ in range(100):
        with trial_folder(parent) as place:
            (place / "file").touch()
            if not (place / "file").exists():
                return False
    return True


def test_what_only_has_the_name_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "file").touch()
    for name, make in [
        ("link", lambda path: path.symlink_to(elsewhere)),
        ("file", lambda path: path.touch()),
        ("open", lambda path: path.mkdir(mode=0o755)),
    ]:
        make(tmp_path / f".layerstore-probe-{name}")
    before = sorted(tmp_path.rglob("*"))
    sweep(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.root
def test_subvolumes_and_mounts_go(backing: Callable[[str], Path]) -> None:
    folder = backing("btrfs")
    dead_one(folder, "btrfs")
    left = dead_one(folder)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", left / "deep"], check=True)
    try:
        sweep(folder)
        assert os.listdir(folder) == []
        assert mounts_below(folder) == []
    finally:
        for _, place in mounts_below(folder):
            unmount(place)
