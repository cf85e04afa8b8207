"""Whoever has to do with a lazy layer is killed before a system call: who pulls, the holder, the fetcher, the warden.

Each process of them is, at its own call of that number, so that some go one after the other.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from lazy.conftest import LARGE, NIGHTLY, Lazies, bytes_of, until
from lazy.gate import Gate
from registry.servers.quirks import Quirks

pytestmark = [pytest.mark.root, pytest.mark.skipif(not NIGHTLY, reason="by night"), pytest.mark.tools("strace")]

LIFE = """
import sys, layerstore
from layerstore.config import Config
root, exec_root, name = sys.argv[1:]
with layerstore.open(config=Config(data_root=root, exec_root=exec_root, storage_driver="erofs")) as store:
    image = store.pull(name, lazy=True)
    box = store.create_container(image, name="box")
    with box.mount() as tree:
        try:
            right = b"".join(b"%d %d\\n" % (3 * n, n * n % 997) for n in range(37500))[:300000]
            if (tree / "data/3").read_bytes() != right:
                sys.exit(77)
        except OSError:
            pass  # who was to answer is gone
"""
WRONG = 77


@pytest.mark.parametrize("call", ["rename", "pwrite64", "fdatasync", "sendmsg", "unlinkat", "mkdir"])
def test_killed_before_a_system_call(lazies: Lazies, pushed: str, quirks: Quirks, call: str) -> None:
    Gate(quirks).is_open = True
    words = [sys.executable, "-c", LIFE, str(lazies.root), str(lazies.exec_root), pushed]
    for count in (1, 2, 3, 5, 8, 13, 21, 34):
        trace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e"]
        inject = f"inject={call}:signal=KILL:when={count}"
        done = subprocess.run([*trace, inject, *words], stderr=subprocess.PIPE, timeout=300, check=False)
        assert done.returncode != WRONG
        with lazies.open() as store:
            for box in store.containers():
                box.remove(force=True)
            assert [str(problem) for problem in store.check()] == []
            image = store.pull(pushed, lazy=True)
            with image.mount() as tree:
                assert (tree / "data/4").read_bytes() == bytes_of(300_000, 4)
                assert (tree / "large").read_bytes() == LARGE
                assert (tree / "second").read_bytes() == bytes_of(2 << 20, 3)
            until(lambda store=store: not store.lacking())
            assert [str(problem) for problem in store.check(content=True)] == []
            image.remove(force=True)
            store.wait()
        until(lambda: not lazies.processes())
