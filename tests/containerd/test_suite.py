"""containerd's own suite of tests for snapshotters, on each driver.

By night alone: Debian's Go packages of containerd (116 of them, 860 MB) take a minute to install, and the suite another
to build. `tools/prepare night` brings them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from containerd.client import Client
from layerstore import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="its packages take a minute"),
]

SOURCES = Path("/usr/share/gocode")
SUITE = Path(__file__).with_name("suite")
PASSED, SKIPPED = 20, 1
"""So many cases there are in containerd 1.6; `Rename` is skipped by containerd itself."""


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite, built with Debian's sources of containerd."""
    if shutil.which("go") is None or not (SOURCES / "src/github.com/containerd/containerd").is_dir():
        pytest.fail("Debian's Go packages of containerd are not installed: `tools/prepare night` does that")
    folder = tmp_path_factory.mktemp("suite")
    for source in SUITE.glob("*.go"):
        shutil.copy(source, folder)
    environment = {"GO111MODULE": "off", "GOPATH": str(SOURCES), "CGO_ENABLED": "0"}
    environment["GOCACHE"] = f"{folder}/cache"
    command = ["go", "test", "-c", "-o", folder / "suite.test", "."]
    subprocess.run(command, cwd=folder, env=os.environ | environment, check=True, timeout=900)
    return folder / "suite.test"


@pytest.mark.parametrize("driver", ["overlay2", "erofs", "btrfs", "vfs", "aufs"])
def test_all_pass(
    driver: str,
    program: Path,
    open_store: Callable[..., Store],
    serve: Callable[[Store], Client],
    socket: Path,
    tmp_path: Path,
) -> None:
    store = open_store(driver)
    serve(store)
    environment = os.environ | {"SNAPSHOTTER": str(socket), "TMPDIR": str(tmp_path)}
    command = [program, "-test.v", "-test.root", "-test.timeout", "10m"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=700)
    cases = re.findall(r"^ +--- (PASS|SKIP|FAIL): TestSnapshotter/", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert (cases.count("PASS"), cases.count("SKIP")) == (PASSED, SKIPPED)
    assert store.check() == []
    left = store.info()
    assert (left.containers, left.layers) == (0, 0), "each case removes what it has left"
