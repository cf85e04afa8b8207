"""System calls fail while something is pushed and deleted: it is said, and what is there is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import layerstore
from serve import life
from serve.client import digest

if TYPE_CHECKING:
    from layerstore import Store

pytestmark = [pytest.mark.root, pytest.mark.tools("strace")]

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


@pytest.mark.parametrize(
    ("call", "error", "step"),
    [("rename", "EIO", 22), ("fsync,fdatasync", "EIO", 50), ("pwrite64", "ENOSPC", 340), ("openat", "EMFILE", 1800)],
)
def test_a_failed_call_is_said_and_leaves_nothing_half_made(
    store: Store, data_root: Path, call: str, error: str, step: int
) -> None:
    store.close()
    subprocess.run([sys.executable, life.__file__, data_root], env=ENVIRONMENT, check=True)
    log = data_root.with_name("calls")
    begin = 200 if call == "openat" else 1  # before that, Python opens its modules
    for count in range(begin, begin + 2000, max(step // 20, 1) if NIGHTLY else step):
        inject = ["strace", "-f", "-o", log, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={count}"]
        command = [*inject, sys.executable, life.__file__, data_root]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if "INJECTED" not in log.read_text():
            return
        is_said = done.returncode in (0, 3) or "layerstore.errors." in done.stderr
        assert is_said or call == "openat", done.stderr  # Python's own files, too, of which it has errors of its own
        assert "defect" not in done.stderr
        assert_whole(data_root, f"{call} {count}")
    raise AssertionError("it makes more calls than was thought")


def assert_whole(data_root: Path, title: str) -> None:
    """What is there is there wholly, and goes without trace."""
    name = "docker.io/library/app"
    with layerstore.open(config=life.settings(data_root)) as store:
        assert [str(problem) for problem in store.check(content=True)] == [], title
        for ref in ("1", digest(life.DOCUMENT)):
            if (found := store.repositories.manifest(name, ref)) is not None:
                assert found.data == life.DOCUMENT, title
                for content in (life.CONFIG, *life.PACKED):
                    assert store.repositories.size_of_blob(name, digest(content)) == len(content), title
        store.repositories.delete_manifest(name, digest(life.DOCUMENT))
        store.repositories.delete_tag(name, "1")
        store.prune(all_images=True)
        assert store.images() == [], title
        assert store.check() == [], title
