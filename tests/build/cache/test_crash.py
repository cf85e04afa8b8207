"""Whoever does steps, shares folders or prunes dies at any point, or has any call refused: all of it, or nothing.

What was finished is known, what is known is there, and what is left goes with the next `prune`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import layerstore
from layerstore import LayerSource, Store
from layerstore.build.cache import OWNER, Cache, give, parse_spec, prune, records
from support import images as make

pytestmark = [pytest.mark.root, pytest.mark.tools("strace")]

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
KEYS = ("a" * 64, "b" * 64, "c" * 64)

LIFE = """
import io, sys, layerstore
from contextlib import nullcontext
from pathlib import Path
from layerstore import LayerSource
from layerstore.build.cache import Cache, prune
data_root, exec_root, tar, *keys = sys.argv[1:]
tar = Path(tar).read_bytes()
settings = layerstore.Config(data_root=data_root, exec_root=exec_root, storage_driver="overlay2")
with layerstore.open(config=settings) as store:
    with Cache(store) as cache:
        parent = None
        for key in keys:
            with cache.claim(key) as entry:
                if entry is None and key == keys[1]:
                    cache.record_nothing(key, parent=parent)
                elif entry is None:
                    layer = store.add_layer(
                        LayerSource(lambda: nullcontext(io.BytesIO(tar))),
                        parent,
                        record=lambda tx, layer, key=key: cache.record(tx, key, layer, description="RUN make"),
                    )
                    parent = layer.chain_id
                    print(key, flush=True)
        with cache.mounts.mount("npm", owner=(7, 8), mode=0o700) as folder:
            (folder / "left").write_text("x")
        print("mount", flush=True)
    print("pruned", flush=True)
    prune(Cache(store), keep=10240)
    prune(Cache(store))
"""


TAKING = """
import sys, layerstore
from layerstore.build.cache import Cache, parse_spec, prune
data_root, exec_root, place, *keys = sys.argv[1:]
settings = layerstore.Config(data_root=data_root, exec_root=exec_root, storage_driver="overlay2")
def warn(text):
    raise layerstore.LayerstoreError(text)
with layerstore.open(config=settings) as store:
    with Cache(store) as cache:
        cache.use(parse_spec(f"type=local,src={place}", to=False), warn=warn)
        for key in reversed(keys):
            assert cache.find(key)
            print(key, flush=True)
    print("pruned", flush=True)
    prune(Cache(store))
"""


@pytest.fixture
def elsewhere(store: Store, tar: Path, tmp_path: Path) -> Path:
    """A cache elsewhere, which has the steps."""
    folder, parent = tmp_path / "cache", None
    with Cache(store) as cache:
        for key in KEYS:
            if key == KEYS[1]:
                cache.record_nothing(key, parent=parent)
                continue
            parent = store.add_layer(
                LayerSource(lambda: tar.open("rb")),
                parent,
                record=lambda tx, layer, key=key: cache.record(tx, key, layer, description="RUN make"),
            ).chain_id
        give(cache, parse_spec(f"type=local,dest={folder}", to=True), parent, platform={}, warn=pytest.fail)
    prune(Cache(store))
    return folder


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """A layer of one file."""
    path = tmp_path / "tar"
    path.write_bytes(make.layer(make.file("file", "x")))
    return path


def assert_in_order(settings: layerstore.Config, said: str) -> None:
    """Open the store, as the next process would."""
    with layerstore.open(config=settings) as store:
        assert [str(problem) for problem in store.check()] == []
        cache = Cache(store)
        for record in records(cache):
            assert not record.in_use
            assert record.layer is None or store.layer(record.layer.chain_id) == record.layer
        if "pruned" not in said:
            assert all(cache.find(key) for key in KEYS if key in said)
            if "mount" in said:
                with cache.mounts.mount("npm", owner=(7, 8), mode=0o700) as folder:
                    assert (folder / "left").read_text() == "x"
        with cache.mounts.mount("npm", owner=(7, 8), mode=0o700) as folder:
            facts = folder.stat()
            assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (7, 8, 0o700)
        prune(cache)
        prune(cache)
        assert (records(cache), dict(store.leases(OWNER)), store.containers()) == ([], {}, [])
        store.prune(images=False)
        store.wait()
        assert [*store.disk_usage().layers, *store.check()] == []
    assert [name for name in os.listdir(settings.data_root / "staging") if not name.startswith(".")] == []


def lived(
    settings: layerstore.Config, tar: Path, call: str, what: str, log: Path, life: str = LIFE
) -> subprocess.CompletedProcess[str]:
    """The life of a cache, in which one call is the last, or is refused."""
    inject = ["strace", "-f", "-o", str(log), "-e", f"trace={call}", "-e", f"inject={call}:{what}"]
    return subprocess.run(
        [*inject, sys.executable, "-c", life, settings.data_root, settings.exec_root, tar, *KEYS],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("mkdir", 4),
        ("rename", 3),
        ("fsync", 4),
        ("fdatasync", 7),
        ("pwrite64", 41),
        ("unlinkat", 5),
        ("fcntl", 17),
        ("move_mount", 1),
        ("umount2", 1),
        ("chown", 1),
        ("chmod", 1),
    ],
)
def test_killed_before_a_system_call(
    store: Store, settings: layerstore.Config, tar: Path, tmp_path: Path, call: str, step: int
) -> None:
    store.close()
    count = 0
    for count in range(1, 600, 1 if NIGHTLY else step):
        done = lived(settings, tar, call, f"signal=KILL:when={count}", tmp_path / "calls")
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        assert_in_order(settings, done.stdout)
    assert count > 1


@pytest.mark.parametrize(
    ("call", "error", "step"),
    [
        ("mkdir", "ENOSPC", 5),
        ("rename", "EIO", 5),
        ("fsync", "EIO", 5),
        ("pwrite64", "ENOSPC", 61),
        ("move_mount", "ENOMEM", 1),
        ("chown", "EIO", 1),
    ],
)
def test_a_call_that_is_refused_is_an_error_and_leaves_no_trace(
    store: Store, settings: layerstore.Config, tar: Path, tmp_path: Path, call: str, error: str, step: int
) -> None:
    store.close()
    log = tmp_path / "calls"
    met = False
    for count in range(1, 600, 1 if NIGHTLY else step):
        done = lived(settings, tar, call, f"error={error}:when={count}", log)
        if "INJECTED" not in log.read_text():
            break
        met = True
        if done.returncode != 0:
            assert any(line.startswith("layerstore.errors.") for line in done.stderr.splitlines()), done.stderr
        assert_in_order(settings, done.stdout)
    assert met


@pytest.mark.parametrize(
    ("call", "what", "step"),
    [
        ("rename", "signal=KILL", 2),
        ("fsync", "signal=KILL", 3),
        ("pwrite64", "signal=KILL", 37),
        ("unlinkat", "signal=KILL", 5),
        ("mkdir", "error=ENOSPC", 3),
        ("fsync", "error=EIO", 3),
        ("openat2", "error=EIO", 2),
    ],
)
def test_taking_from_elsewhere_is_all_or_nothing_too(
    store: Store, settings: layerstore.Config, elsewhere: Path, tmp_path: Path, call: str, what: str, step: int
) -> None:
    store.close()
    log, met = tmp_path / "calls", False
    for count in range(1, 600, 1 if NIGHTLY else step):
        done = lived(settings, elsewhere, call, f"{what}:when={count}", log, TAKING)
        if done.returncode == 0 and "INJECTED" not in log.read_text():
            break
        met = True
        if what.startswith("error") and done.returncode != 0:
            assert any(line.startswith("layerstore.errors.") for line in done.stderr.splitlines()), done.stderr
        assert_in_order(settings, done.stdout)
    assert met
