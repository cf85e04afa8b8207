"""Stores in network namespaces of their own: links that are slow, and that are cut in the middle of a pull.

A process that dies closes its connections; a machine or cable that does says nothing, and that is what is tried here.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import Store
from layerstore.registry.remotes import health, hunt, peer
from support import images as make

from .servers.quirks import Quirks

pytestmark = [pytest.mark.root, pytest.mark.tools("ip", "tc", "nsenter", "unshare")]

LAYERS = [make.layer(make.file(f"layer{number}", os.urandom(1 << 20))) for number in range(3)]
RATE = "40mbit"
_numbers = count(os.getpid() * 8)


class Elsewhere:
    """A store that is served in a network namespace of its own, over a link of `RATE`. It has the blobs of LAYERS."""

    def __init__(self, folder: Path) -> None:
        number = next(_numbers) % 16384
        self._link = f"ls{number}"
        net = f"198.18.{number >> 6}.{(number & 63) << 2}".rpartition(".")
        self._here, self._there = (f"{net[0]}.{int(net[2]) + host}" for host in (1, 2))
        settings = {"data-root": f"{folder}/store", "exec-root": f"{folder}/exec", "storage-driver": "overlay2"}
        folder.mkdir()
        (folder / "daemon.json").write_text(json.dumps(settings))
        with layerstore.open(config=folder / "daemon.json") as store:
            for tar in LAYERS:
                store.blobs.put(io.BytesIO(gzip.compress(tar, 1, mtime=0)))
        command = ["unshare", "--net", sys.executable, "-m", "layerstore.cli", "--config", f"{folder}/daemon.json"]
        self._process = subprocess.Popen(
            [*command, "serve", "--address", "0.0.0.0:5000", "--insecure-listen"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert "Listening" in self._process.stdout.readline()
        self._ip(f"link add {self._link} type veth peer name out netns {self._process.pid}")
        self._ip(f"addr add {self._here}/30 dev {self._link}")
        self._ip(f"link set {self._link} up")
        self._inside(f"ip addr add {self._there}/30 dev out")
        self._inside("ip link set out up")
        self._inside(f"tc qdisc add dev out root tbf rate {RATE} burst 64k latency 200ms")
        self.url = f"http://{self._there}:5000"

    def cut(self) -> None:
        """From now on nothing comes from there, and nobody is told."""
        self._inside("ip link set out down")

    def close(self) -> None:
        """The namespace goes with the process."""
        self._ip(f"link del {self._link}")
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ip(self, words: str) -> None:
        subprocess.run(["ip", *words.split()], check=True)

    def _inside(self, words: str) -> None:
        subprocess.run(["nsenter", "-t", str(self._process.pid), "-n", *words.split()], check=True)


@pytest.fixture
def elsewhere(backing: Callable[[str], Path]) -> Iterator[Callable[[], Elsewhere]]:
    """`elsewhere()`: one more."""
    with ExitStack() as running:

        def start() -> Elsewhere:
            one = Elsewhere(backing("ext4") / f"elsewhere{next(_numbers)}")
            running.callback(one.close)
            return one

        yield start


@pytest.fixture
def opened(backing: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    """`opened(url, url)`: an empty store with these remotes."""
    monkeypatch.setattr(health.HEALTH, "_paused", {})
    monkeypatch.setattr(health.HEALTH, "_known", set())
    monkeypatch.setattr(hunt, "SILENCE", 1.0)
    monkeypatch.setattr(peer, "SILENCE", 1.0)
    with ExitStack() as stack:

        def open_store(*remotes: str) -> Store:
            place = backing("ext4") / f"mine{next(_numbers)}"
            settings = layerstore.Config(
                data_root=place, exec_root=place / "exec", storage_driver="overlay2", remotes=remotes
            )
            return stack.enter_context(layerstore.open(config=settings))

        yield open_store


@pytest.fixture
def name(quirks: Quirks) -> str:
    quirks.put_image("team/app", "1", LAYERS)
    return f"{quirks.host}/team/app:1"


def asked(quirks: Quirks) -> int:
    """Bytes of layers that the registry gave."""
    return sum(seen.sent for seen in quirks.asked("GET", "/blobs/") if seen.sent > 10_000)


def cut_when_a_quarter_is_there(store: Store, one: Elsewhere) -> threading.Thread:
    def wait() -> None:
        whole = sum(len(gzip.compress(tar, 1, mtime=0)) for tar in LAYERS)
        while sum(path.stat().st_size for path in store.data_root.glob("partial/*")) < whole // 4:
            time.sleep(0.01)
        one.cut()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_cable_is_cut_and_the_other_store_goes_on(
    elsewhere: Callable[[], Elsewhere], opened: Callable[..., Store], quirks: Quirks, name: str
) -> None:
    stores = [elsewhere(), elsewhere()]
    mine = opened(*(one.url for one in stores))
    cut = cut_when_a_quarter_is_there(mine, stores[0])
    mine.pull(name)
    cut.join(60)
    assert mine.check(content=True) == []
    assert asked(quirks) < 2 << 20


def test_all_cables_are_cut_and_the_registry_goes_on(
    elsewhere: Callable[[], Elsewhere], opened: Callable[..., Store], quirks: Quirks, name: str
) -> None:
    one = elsewhere()
    mine = opened(one.url)
    cut_when_a_quarter_is_there(mine, one)
    begin = time.monotonic()
    mine.pull(name)
    assert time.monotonic() - begin < 15
    assert mine.check(content=True) == []
    assert 0 < asked(quirks) < 3 << 20


def test_a_machine_that_is_off_costs_a_second_once(
    elsewhere: Callable[[], Elsewhere], opened: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = elsewhere()
    one.cut()
    waited: list[float] = []
    request = peer.Peer._request

    def timed(remote: peer.Peer, *words: Any, **more: Any) -> Any:
        begin = time.monotonic()
        try:
            return request(remote, *words, **more)
        finally:
            waited.append(time.monotonic() - begin)

    monkeypatch.setattr(peer.Peer, "_request", timed)
    for _ in range(2):
        opened(one.url).pull(name)
    [took] = waited
    assert 0.9 < took < 30
