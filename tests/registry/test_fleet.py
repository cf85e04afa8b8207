"""Stores that share layers: a pull's way to them over peers that are alive, dead, slow, lying, or still receiving."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import bcrypt
import pytest

import layerstore
from core.adding import Adder
from layerstore import Store
from layerstore.digest import DiffID, Digest
from layerstore.faces.serve import Passwords
from layerstore.registry.remotes import health
from layerstore.registry.remotes import hunt as hunts
from layerstore.registry.remotes import peer as peers
from layerstore.registry.remotes.hunt import Wanted
from layerstore.registry.remotes.remote import Reading
from layerstore.registry.remotes.remotes import Remotes
from layerstore.registry.transport.http import Body
from layerstore.registry.transport.settings import Settings
from support import images as make

from .servers.listening import Answer
from .servers.peers import ServedStore, Spoil
from .servers.quirks import Quirks

pytestmark = pytest.mark.root

LAYER = make.layer(make.file("big", os.urandom(3 << 20)), make.file("small", "small"))
BLOB = gzip.compress(LAYER, 1, mtime=0)
WANTED = Wanted(Digest(make.digest(BLOB)), len(BLOB), DiffID(make.digest(LAYER)))


@pytest.fixture(autouse=True)
def _all_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.HEALTH, "_paused", {})
    monkeypatch.setattr(health.HEALTH, "_known", set())


@pytest.fixture
def stores(backing: Callable[[str], Path]) -> Iterator[Callable[[], Store]]:
    """`stores()`: one more empty store."""
    with ExitStack() as opened:
        folder = backing("ext4")
        numbers = count()

        def make_store() -> Store:
            place = folder / f"store{next(numbers)}"
            settings = layerstore.Config(data_root=place, exec_root=place / "exec", storage_driver="overlay2")
            return opened.enter_context(layerstore.open(config=settings))

        yield make_store


class Upstream:
    """The registry, which counts how often it is asked, and gives so many bytes a second."""

    def __init__(self, data: bytes = BLOB, rate: float = 0) -> None:
        self.data, self.rate = data, rate
        self.starts: list[int] = []

    def __call__(self, start: int) -> Reading:
        self.starts.append(start)
        return _Slowly(self.data[start:], self.rate, breaks=len(self.data) < len(BLOB))


class _Broken(Exception):
    pass


class _Slowly:
    def __init__(self, data: bytes, rate: float, *, breaks: bool) -> None:
        self._rest, self._rate, self._breaks = data, rate, breaks

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._rest and self._breaks:
            raise _Broken
        count = min(len(buffer), len(self._rest), 100_000)
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        if self._rate:
            time.sleep(count / self._rate)
        return count

    def close(self) -> None:
        pass


class Puller:
    """What a pull does of one layer: it reads it, and writes it along; what it wrote stays until its end."""

    def __init__(self, store: Store, *urls: str) -> None:
        self.store = store
        self.remotes = Remotes(urls, settings=Settings(pause=0.01), store_id=store.id)
        self.partial = store.blobs.partial(WANTED.digest)
        self.is_plain = False
        self.data = b""
        self.sources: list[str] = []

    def pull(self, upstream: Callable[[int], Reading], *, start: int = 0) -> bytes:
        with self.remotes.hunt([WANTED]) as hunt:
            self.is_plain = start == 0 and hunt.has_plain(WANTED)
            reading = hunt.plain(WANTED) if self.is_plain else hunt.chase(WANTED, upstream, start)
            assert reading is not None
            buffer = memoryview(bytearray(1 << 18))
            while taken := reading.readinto(buffer):
                self.data += buffer[:taken]
                if not self.is_plain and self.partial is not None:
                    self.partial.append(buffer[:taken])
            self.sources = getattr(reading, "sources", [])
            reading.close()
        return self.data

    def __enter__(self) -> Puller:
        return self

    def __exit__(self, *_: object) -> None:
        self.remotes.close()
        if self.partial is not None:
            self.partial.discard()


@pytest.fixture
def dead(closed_port: int) -> str:
    """Where nobody listens."""
    return f"http://127.0.0.1:{closed_port}"


def keep(store: Store, data: bytes = BLOB) -> None:
    store.blobs.put(io.BytesIO(data))


# --- one has it


def test_a_blob_that_a_peer_has_is_not_asked_of_the_registry(stores: Callable[[], Store]) -> None:
    mine, other, upstream = stores(), stores(), Upstream()
    keep(other)
    with ServedStore(other) as served, Puller(mine, served.url) as puller:
        assert puller.pull(upstream) == BLOB
        assert puller.sources == [served.url]
    assert upstream.starts == []


def test_a_layer_that_a_peer_has_only_unpacked_comes_plain(stores: Callable[[], Store]) -> None:
    mine, other, upstream = stores(), stores(), Upstream()
    Adder(other)(LAYER)
    with ServedStore(other) as served, Puller(mine, served.url) as puller:
        assert puller.pull(upstream) == LAYER
        assert puller.is_plain
    assert upstream.starts == []


def test_a_download_goes_on_from_a_peer_where_it_broke_off(stores: Callable[[], Store]) -> None:
    mine, other, upstream = stores(), stores(), Upstream()
    keep(other)
    with ServedStore(other) as served, Puller(mine, served.url) as puller:
        assert puller.pull(upstream, start=1_000_000) == BLOB[1_000_000:]
        assert served.given == len(BLOB) - 1_000_000
    assert upstream.starts == []


def test_a_bucket_has_it(stores: Callable[[], Store], tmp_path: Path) -> None:
    mine, upstream = stores(), Upstream()
    with Puller(mine, f"file://{tmp_path}/bucket") as puller:
        keeper = puller.remotes.keeper
        assert keeper is not None
        keeper.write(WANTED.digest, Body.of(BLOB))
        assert puller.pull(upstream) == BLOB
    assert upstream.starts == []


def test_a_store_that_wants_a_password_gets_it(
    stores: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = stores(), stores()
    keep(other)
    (tmp_path / "htpasswd").write_bytes(b"anna:" + bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)))
    with ServedStore(other, passwords=Passwords(tmp_path / "htpasswd")) as served, Puller(mine, served.url) as puller:
        upstream = Upstream()
        assert puller.pull(upstream) == BLOB
        assert upstream.starts == [0]
        auth = base64.b64encode(b"anna:open sesame").decode()
        host = served.url.removeprefix("http://")
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
        monkeypatch.setattr(health.HEALTH, "_paused", {})
        with Puller(stores(), served.url) as admitted:
            assert admitted.pull(upstream) == BLOB
            assert admitted.sources == [served.url]


# --- nobody has it, or not as it should be


def test_nobody_has_it(stores: Callable[[], Store], tmp_path: Path) -> None:
    mine, other, upstream = stores(), stores(), Upstream()
    with ServedStore(other) as served, Puller(mine, served.url, f"file://{tmp_path}/bucket") as puller:
        assert puller.pull(upstream) == BLOB
    assert upstream.starts == [0]


def test_a_dead_peer_costs_one_short_timeout_and_then_nothing(stores: Callable[[], Store]) -> None:
    mine = stores()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        silent.setblocking(False)
        asked = []
        for _ in range(3):
            with Puller(mine, url) as puller:
                assert puller.pull(Upstream()) == BLOB
            asked.append(taken(silent))
    assert asked == [1, 0, 0]


def taken(listening: socket.socket) -> int:
    """How many have connected since it was asked before."""
    found = 0
    with suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            found += 1
    return found


def test_where_nobody_listens_nothing_is_waited_for(
    stores: Callable[[], Store], dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((peers, "ASK"), (peers, "SILENCE"), (hunts, "SILENCE")):
        monkeypatch.setattr(module, name, 60.0)
    begin = time.monotonic()
    with Puller(stores(), dead) as puller:
        assert puller.pull(Upstream()) == BLOB
    assert time.monotonic() - begin < 20


def _cut() -> Callable[[bytes], Iterator[bytes]]:
    pieces = count()

    def alter(data: bytes) -> Iterator[bytes]:
        if next(pieces):
            raise ConnectionAbortedError
        yield data

    return alter


def _stalled() -> Callable[[bytes], Iterator[bytes]]:
    pieces = count()

    def alter(data: bytes) -> Iterator[bytes]:
        if next(pieces):
            time.sleep(1)
        yield data

    return alter


def _trickling() -> Callable[[bytes], Iterator[bytes]]:
    def alter(data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]
            time.sleep(0.05)

    return alter


@pytest.mark.parametrize("fault", [_cut, _stalled, _trickling])
def test_a_peer_that_breaks_off_or_is_slow_is_left_where_it_stopped(
    stores: Callable[[], Store], fault: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hunts, "SILENCE", 0.5)
    monkeypatch.setattr(peers, "SILENCE", 0.5)
    mine, other, upstream = stores(), stores(), Upstream()
    keep(other)
    with ServedStore(other, spoil=fault) as served, Puller(mine, served.url) as puller:
        assert puller.pull(upstream) == BLOB
        assert puller.sources in ([served.url], [])
    [start] = upstream.starts
    assert start < len(BLOB)


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b'{"id": 7}', b'{"id": "x", "there": {}}', b'{"a":' * 50_000, b"x" * (1 << 20)],
)
def test_what_answers_is_no_store(stores: Callable[[], Store], quirks: Quirks, answer: bytes) -> None:
    quirks.spoil("POST", "/has", lambda seen, given: Answer(body=answer))
    with Puller(stores(), quirks.url) as puller:
        upstream = Upstream()
        assert puller.pull(upstream) == BLOB
    assert upstream.starts == [0]
    assert [seen.path for seen in quirks.requests] == ["/v2/_layerstore/has"]


def test_what_a_peer_says_of_sizes_and_ranges_is_not_believed(stores: Callable[[], Store], quirks: Quirks) -> None:
    there = {WANTED.digest: -1, WANTED.diff_id: "many", make.digest(b"not asked"): 5}
    quirks.spoil("POST", "/has", lambda seen, given: Answer(body=json.dumps({"id": "f" * 32, "there": there}).encode()))
    quirks.spoil("POST", "/turn", lambda seen, given: Answer(body=b'{"from": "' + b"f" * 32 + b'"}'))
    quirks.spoil("GET", "/blobs/", lambda seen, given: Answer(206, {"Content-Range": "bytes 5-9/10"}, b"x" * 10))
    with Puller(stores(), quirks.url) as puller:
        assert puller.pull(Upstream()) == BLOB
        assert puller.sources == []


# --- while it is on its way


def test_a_blob_that_another_store_is_receiving_is_had_from_there(stores: Callable[[], Store]) -> None:
    first, second = stores(), stores()
    never, come, came = Upstream(), threading.Event(), []

    class Holding(_Slowly):
        """The last piece comes when the other store has something."""

        def readinto(self, buffer: memoryview, /) -> int:
            if len(self._rest) <= 100_000 and not come.is_set():
                come.set()
                deadline = time.monotonic() + 30
                while not two.data and time.monotonic() < deadline:
                    time.sleep(0.005)
                came.append(bool(two.data))
            return super().readinto(buffer)

    def slowly(start: int) -> Reading:
        assert start == 0
        return Holding(BLOB, 0, breaks=False)

    with ExitStack() as stack:
        urls = [stack.enter_context(ServedStore(store)).url for store in (first, second)]
        one, two = (stack.enter_context(Puller(store, *urls)) for store in (first, second))
        thread = threading.Thread(target=one.pull, args=(slowly,))
        thread.start()
        assert come.wait(20)
        assert two.pull(never) == BLOB
        thread.join()
        assert one.data == BLOB
        assert came == [True]
        assert two.sources == [urls[0]]
    assert never.starts == []


def test_who_fetches_dies_and_another_goes_on_where_it_was(stores: Callable[[], Store]) -> None:
    first, second = stores(), stores()
    broken, upstream = Upstream(BLOB[: len(BLOB) // 2]), Upstream()
    with ExitStack() as stack:
        urls = [stack.enter_context(ServedStore(store)).url for store in (first, second)]
        one, two = (stack.enter_context(Puller(store, *urls)) for store in (first, second))
        with pytest.raises(_Broken):
            one.pull(broken)
        threading.Timer(0.2, lambda: one.partial and one.partial.discard()).start()
        assert two.pull(upstream) == BLOB
    assert upstream.starts in ([0], [len(BLOB) // 2])


def test_eight_stores_have_a_layer_of_each_other_and_the_registry_gives_it_once(
    stores: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "ASK", 30.0)  # on a machine that has much to do, a second may pass
    all_of_them = [stores() for _ in range(8)]
    upstreams = [Upstream(rate=4 * len(BLOB)) for _ in all_of_them]
    with ExitStack() as stack:
        served = [stack.enter_context(ServedStore(store)) for store in all_of_them]
        urls = [one.url for one in served]
        pullers = [stack.enter_context(Puller(store, *urls)) for store in all_of_them]
        threads = [
            threading.Thread(target=puller.pull, args=(upstream,))
            for puller, upstream in zip(pullers, upstreams, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(puller.data == BLOB for puller in pullers)
    assert [start for upstream in upstreams for start in upstream.starts] == [0]
    assert sorted(one.given // len(BLOB) for one in served) == [0, 0, 0, 0, 1, 2, 2, 2]
