"""A pull that breaks off, in whatever way, goes on from what has come."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from layerstore.errors import LayerstoreError
from layerstore.store import Store
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.power import Disk
from support import images as make

from .servers import quirks as spoil
from .servers.listening import Answer, Seen
from .servers.quirks import Quirks
from .servers.relay import Relay
from .servers.tokens import TokenService

pytestmark = pytest.mark.root

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
PULL = """
import sys, layerstore
data_root, name, driver = sys.argv[1:]
config = layerstore.Config(data_root=data_root, exec_root=data_root + ".exec", storage_driver=driver)
with layerstore.open(config=config) as store:
    store.pull(name)
"""
dice = random.Random(9)
BASE = make.layer(make.folder("etc"), make.file("etc/random", dice.randbytes(700_000)))
TOP = make.layer(*(make.file(f"random{number}", dice.randbytes(20_000)) for number in range(20)))
BLOB = gzip.compress(BASE, 1, mtime=0)
HEX = make.digest(BLOB)[7:]


@pytest.fixture
def partial(store: Store) -> Callable[[bytes], Path]:
    """`partial(data)`: what a pull of BASE has left."""

    def left(data: bytes) -> Path:
        found = store.blobs.partial(HEX)
        assert found is not None
        with found:
            found.append(data)
        return store.data_root / "partial" / HEX

    return left


def ranges(server: Quirks) -> list[str | None]:
    """What was asked for of the blob."""
    return [seen.headers["Range"] for seen in server.requests if seen.path.endswith(HEX)]


# --- what is there


def test_pull_goes_on_from_a_partial_file(
    store: Store, quirks: Quirks, repository: str, partial: Callable[[bytes], Path]
) -> None:
    quirks.put_image(repository, "latest", [BASE])
    left = partial(BLOB[:500_000])
    assert store.pull(f"{quirks.host}/{repository}").layers == (make.digest(BASE),)
    assert ranges(quirks) == [f"bytes=500000-{len(BLOB) - 1}"]
    assert not left.exists()


def test_blob_that_is_whole_already_is_not_asked_for(
    store: Store, quirks: Quirks, repository: str, partial: Callable[[bytes], Path]
) -> None:
    quirks.put_image(repository, "latest", [BASE])
    partial(BLOB)
    store.pull(f"{quirks.host}/{repository}")
    assert ranges(quirks) == []


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(BLOB[:300_000] + b"?" * 100_000, id="torn"),
        pytest.param(b"?" * len(BLOB), id="whole"),
        pytest.param(BLOB[:-3] + b"???", id="at-its-end"),
        pytest.param(BLOB + b"more", id="too-long"),
    ],
)
def test_wrong_bytes_in_a_partial_file_are_thrown_away_without_a_word(
    store: Store, quirks: Quirks, repository: str, partial: Callable[[bytes], Path], spoilt: bytes
) -> None:
    quirks.put_image(repository, "latest", [BASE, TOP])
    partial(spoilt)
    store.pull(f"{quirks.host}/{repository}")
    assert ranges(quirks)[-1] is None
    assert store.check(content=True) == []


def test_wrong_bytes_in_a_partial_file_and_from_the_registry(
    store: Store, quirks: Quirks, repository: str, partial: Callable[[bytes], Path]
) -> None:
    quirks.put_image(repository, "latest", [BASE])
    quirks.spoil("GET", HEX, spoil.flipped(1000))
    left = partial(b"?" * 1000)
    with pytest.raises(layerstore.DigestMismatch, match=HEX):
        store.pull(f"{quirks.host}/{repository}")
    assert len(ranges(quirks)) == 2
    assert not left.exists()


def test_server_without_ranges(store: Store, quirks: Quirks, repository: str, partial: Callable[[bytes], Path]) -> None:
    quirks.put_image(repository, "latest", [BASE])
    quirks.ranges = False
    partial(BLOB[:500_000])
    store.pull(f"{quirks.host}/{repository}")
    assert store.check(content=True) == []


def test_what_came_of_a_pull_that_failed_is_there_for_the_next(store: Store, quirks: Quirks, repository: str) -> None:
    quirks.put_image(repository, "latest", [BASE, TOP])
    quirks.spoil("GET", HEX, spoil.cut(400_000), times=1)
    quirks.spoil("GET", HEX, spoil.status(403, "DENIED"), after=1)
    with pytest.raises(LayerstoreError, match="DENIED"):
        store.pull(f"{quirks.host}/{repository}")
    assert store.images() == []
    quirks.behave()
    quirks.requests.clear()
    store.pull(f"{quirks.host}/{repository}")
    assert ranges(quirks) == [f"bytes=400000-{len(BLOB) - 1}"]


def test_tokens_that_end_in_the_middle_of_a_pull(
    store: Store, quirks: Quirks, tokens: TokenService, repository: str
) -> None:
    quirks.put_image(repository, "latest", [BASE])
    quirks.tokens = tokens

    def end(seen: Seen, answer: Answer) -> Answer:
        if answer.status == 401:
            return answer
        tokens.revoke()
        return evolve(answer, cut=150_000)

    quirks.spoil("GET", HEX, end, times=6)
    store.pull(f"{quirks.host}/{repository}")
    assert [seen.status for seen in quirks.requests if seen.path.endswith(HEX)].count(401) > 2
    assert sum(seen.sent for seen in quirks.requests if seen.path.endswith(HEX) and seen.status != 401) == len(BLOB)
    assert store.check(content=True) == []


# --- cuts at random


@pytest.fixture
def disk(filesystems: Filesystems) -> Iterator[Disk]:
    with Disk(filesystems, "ext4") as disk:
        yield disk


def sizes_of_partials(data_root: Path) -> dict[str, int]:
    folder = data_root / "partial"
    return {path.name: path.stat().st_size for path in folder.iterdir()} if folder.exists() else {}


def assert_it_goes_on(server: Quirks, left: tuple[int, dict[str, int]]) -> None:
    """What was first asked for of each blob, after what was left of it, begins where that ends."""
    first, sizes = left
    for name, size in sizes.items():
        asked = [seen.headers["Range"] for seen in server.requests[first:] if seen.path.endswith(name)]
        if asked and size:
            start = 0 if asked[0] is None else int(str(asked[0]).removeprefix("bytes=").partition("-")[0])
            assert size - 65536 <= start <= size  # zeros at its end are what a power cut may have left


@pytest.mark.parametrize(
    ("driver", "sizes", "kinds"),
    [
        ("overlay2", [1_300_000] * 6, ["connection", "process", "process"]),
        ("overlay2", [1_300_000] * 3, ["power"]),
        ("vfs", [3_000_000, 4_000_000], ["process"]),
    ],
    ids=["overlay2", "power", "vfs"],
)
def test_image_is_fetched_hardly_more_than_once_whatever_breaks(
    disk: Disk, quirks: Quirks, repository: str, driver: str, sizes: list[int], kinds: list[str]
) -> None:
    """Connections that break, processes that are killed, and the power that fails, at random points."""
    layers = [make.layer(make.file(f"file{n}", dice.randbytes(size))) for n, size in enumerate(sizes)]
    quirks.put_image(repository, "latest", layers)
    size = sum(len(blob) for blob in quirks.blobs.values())
    cuts = random.Random(time.time_ns())
    wanted = 20 if NIGHTLY else 2 * len(kinds)
    data_root = disk.mountpoint / "store"
    with Relay(quirks.host, rate=500_000 if NIGHTLY else 2_000_000) as relay:
        name = f"{relay.host}/{repository}"
        config = layerstore.Config(data_root=data_root, exec_root=disk.mountpoint / "store.exec", storage_driver=driver)
        layerstore.open(config=config).close()
        command = [sys.executable, "-c", PULL, str(data_root), name, driver]
        running = subprocess.Popen(command)
        done, left = 0, (0, dict[str, int]())
        while running.poll() is None:
            if relay.passed < size * (done + cuts.random()) / (wanted + 1) or done == wanted:
                time.sleep(0.005)
                continue
            kind = kinds[done % len(kinds)]
            done += 1
            if kind == "connection":
                relay.cut()
                continue
            if kind == "process":
                running.kill()
                running.wait()
            else:
                running.send_signal(signal.SIGSTOP)  # or it would go on while the disk is copied
                with disk.cut():
                    running.kill()
                    running.wait()
            assert_it_goes_on(quirks, left)
            left = len(quirks.requests), sizes_of_partials(data_root)
            running = subprocess.Popen(command)
        assert running.returncode == 0
        assert done == wanted
        fetched = relay.passed
    assert_it_goes_on(quirks, left)
    with layerstore.open(config=config) as store:
        assert [image.layers for image in store.images()] == [tuple(map(make.digest, layers))]
        assert store.check(content=True) == []
        assert list((data_root / "partial").iterdir()) == []
    # What is on its way is lost with its connection: what the sockets have, which is more where the machine is busy.
    assert fetched < size * 1.5
