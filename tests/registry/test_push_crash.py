"""A push and a copy are killed, or fail, at their system calls: the registry has no hole, and the next push goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import layerstore
from layerstore.store import Store
from support import images

from . import push_life as life
from .servers.quirks import Quirks

pytestmark = [pytest.mark.root, pytest.mark.tools("strace")]

TESTS = Path(__file__).parents[1]
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
REPOSITORY = "team/app"


class Lives:
    """Runs the life against a store and a registry, and looks afterwards whether both are in order."""

    def __init__(self, data_root: Path, server: Quirks) -> None:
        self.data_root, self.server = data_root, server
        self.name = f"{server.host}/{REPOSITORY}:1"
        self.log = data_root.with_name("calls")
        self.folder = data_root.with_name("layout")
        with layerstore.open(config=life.settings(data_root)) as store:
            archive = images.docker_archive(data_root.with_name("x.tar"), life.LAYERS)
            [image] = store.load(archive)
            image.tag(self.name)

    def run(self, call: str, fault: str) -> subprocess.CompletedProcess[str]:
        """With a fault at one call. The registry is empty before, and so is what the store knows of it."""
        for content in (self.server.blobs, self.server.manifests, self.server.tags, self.server.uploads):
            content.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        inject = ["strace", "-f", "-o", self.log, "-e", f"trace={call}", "-e", f"inject={call}:{fault}"]
        command = [*inject, sys.executable, "-m", life.__name__, self.data_root, self.name, self.folder]
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        done = subprocess.run(
            [str(word) for word in command], env=environment, capture_output=True, text=True, check=False
        )
        self.server.settle()
        return done

    def assert_in_order(self) -> None:
        """No manifest names what is not there, no target is half written, and the next push sends what is missing."""
        for _, data in self.server.manifests.values():
            manifest = json.loads(data)
            parts = {part["digest"] for part in (manifest["config"], *manifest["layers"])}
            assert parts <= {digest for _, digest in self.server.blobs}
        beside = [path.name for path in self.folder.parent.iterdir() if path.name.startswith(".layout.")]
        for name in beside:  # a killed copy leaves its draft, and nothing of the target's name
            shutil.rmtree(self.folder.with_name(name))
        assert not self.folder.exists() or (self.folder / "index.json").exists()
        there = len(self.server.blobs)
        self.server.requests.clear()
        with layerstore.open(config=life.settings(self.data_root)) as store:
            assert [str(problem) for problem in store.check()] == []
            pushed = store.push(self.name)
        assert self.server.tags == {(REPOSITORY, "1"): pushed.digest}
        bodies = [seen for seen in self.server.requests if seen.method == "PUT" and "/blobs/" in seen.path]
        assert len(bodies) == len(life.LAYERS) + 1 - there
        staging = self.data_root / "staging"
        assert [path.name for path in staging.iterdir() if not path.name.startswith(".")] == []


@pytest.fixture
def lives(store: Store, data_root: Path, quirks: Quirks) -> Lives:
    """The life, and an empty registry."""
    store.close()
    return Lives(data_root, quirks)


@pytest.mark.parametrize(("call", "step"), [("sendto", 30), ("fdatasync", 6), ("write", 160)])
def test_killed_before_a_system_call(lives: Lives, call: str, step: int) -> None:
    """The call is the last thing that the process does; `step` leaves some out, for time."""
    count = 0
    for count in range(1, 600, 1 if NIGHTLY else step):
        done = lives.run(call, f"signal=KILL:when={count}")
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        lives.assert_in_order()
    assert count > 1
    assert (lives.folder / "index.json").exists()


@pytest.mark.parametrize(
    ("call", "error", "step"),
    [("recvfrom", "ETIMEDOUT", 30), ("write", "ENOSPC", 120), ("rename", "EIO", 1)],
)
def test_a_failed_system_call_is_an_error_or_mended(lives: Lives, call: str, error: str, step: int) -> None:
    count = 0
    for count in range(1, 600, -(-step // 20) if NIGHTLY else step):
        done = lives.run(call, f"error={error}:when={count}")
        if "INJECTED" not in lives.log.read_text():
            break
        if done.returncode != 0:
            # Python may not be able to write the whole of it.
            assert "layerstore.errors." in done.stderr or "KernelError(" in done.stderr, done.stderr
            assert not lives.folder.exists()
        lives.assert_in_order()
    assert count > 1
