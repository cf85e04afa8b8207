"""A large blob comes by several connections, in order, each byte once, and goes on where an attempt has stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import layerstore
from layerstore import reference
from layerstore.blobs import partials
from layerstore.blobs.partials import Partials
from layerstore.digest import Digest
from layerstore.errors import Denied, LayerstoreError, Unreachable
from layerstore.registry.client import lanes
from layerstore.registry.client.lanes import WideReader, piece_name
from layerstore.registry.client.repository import Repository
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.settings import Settings
from layerstore.store import Store
from support import images
from support.properties import by_day

from .reading import all_of, noise
from .servers import memory
from .servers.listening import Answer, Seen
from .servers.quirks import Quirks, cut, reset, slow, status, whole

PIECE = 50_000
SIZE = 10 * PIECE + 123
DATA = noise(SIZE)
NAME = Digest(memory.digest(DATA))
BLOBS = "/blobs/sha256:"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 50 kB, and no connection that is fast enough alone."""
    monkeypatch.setattr(lanes, "PIECE", PIECE)
    monkeypatch.setattr(lanes, "LOOK", 0.0)
    monkeypatch.setattr(lanes, "FAST", 1 << 60)


@pytest.fixture
def there(quirks: Quirks, opened: Callable[..., Repository]) -> Repository:
    """A repository of `quirks` that has the blob."""
    quirks.put_blob("a/b", DATA)
    return opened(quirks)


@pytest.fixture
def spare(tmp_path: Path) -> lanes.Spare:
    """Files for pieces, as a store has them."""
    folder = Partials(tmp_path / "partial")
    return lambda start: folder.open(piece_name(NAME, start))


def left(tmp_path: Path) -> list[str]:
    """The files that are left."""
    return Partials(tmp_path / "partial").names()


def settled() -> None:
    """Wait until no connection reads ahead any more."""
    for thread in threading.enumerate():
        if thread.name == "layerstore-lane":
            thread.join(30)
            assert not thread.is_alive()


def is_far_enough(reader: WideReader) -> bool:
    """Is all there that is read ahead, and nothing more asked for?"""
    with reader._changed:
        is_full = len(reader._pieces) >= reader._lanes + lanes._AHEAD or not reader._lanes
        return is_full and not any(piece.is_busy for piece in reader._pieces)


def test_several_connections_read_a_slow_blob(
    quirks: Quirks, there: Repository, http: Http, settings: Settings, spare: lanes.Spare, tmp_path: Path
) -> None:
    quirks.spoil("GET", BLOBS, slow(100_000))
    began = time.monotonic()
    reader = there.blob(NAME, SIZE, spare=spare)
    assert isinstance(reader, WideReader)
    assert all_of(reader) == DATA
    assert time.monotonic() - began < 0.9 * SIZE / 100_000
    assert 1 < quirks.connections <= settings.downloads + 1  # the first is closed when the others have begun
    assert left(tmp_path) == []
    settled()
    assert http.lines._used == 0


def test_each_byte_is_asked_for_once(quirks: Quirks, there: Repository) -> None:
    assert all_of(there.blob(NAME, SIZE, start=777)) == DATA[777:]
    settled()
    first, *others = (seen.headers["Range"] for seen in quirks.asked("GET", BLOBS))
    assert first == f"bytes=777-{SIZE - 1}"
    asked = sorted(tuple(map(int, text.removeprefix("bytes=").split("-"))) for text in others)
    assert [end for _, end in asked[:-1]] == [start - 1 for start, _ in asked[1:]]
    assert asked[-1][1] == SIZE - 1
    assert asked[0][0] % PIECE == 0


def test_a_fast_connection_is_left_alone(quirks: Quirks, there: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "FAST", 1)
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert len(quirks.requests) == 1


def test_connections_that_others_need_are_not_taken(quirks: Quirks, there: Repository, http: Http) -> None:
    for _ in range(2):
        http.lines.take()
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert len(quirks.requests) == 1
    # Those that come while they are taken get them soon.
    for _ in range(2):
        http.lines.give_back()
    quirks.spoil("GET", BLOBS, slow(1_000_000))
    quirks.forget()
    reader = there.blob(NAME, SIZE)
    head = bytearray(PIECE + 1)
    at = 0
    while at < len(head):
        at += reader.readinto(memoryview(head)[at:])
    for _ in range(3):
        http.lines.take()
    rest = bytearray(4 * PIECE)
    at = 0
    while at < len(rest):
        at += reader.readinto(memoryview(rest)[at:])
    assert [thread.name for thread in threading.enumerate()].count("layerstore-lane") <= 1
    assert bytes(head) + bytes(rest) + all_of(reader) == DATA


def test_a_server_without_ranges_is_read_by_one_connection(quirks: Quirks, there: Repository, tmp_path: Path) -> None:
    quirks.spoil("GET", BLOBS, whole(DATA))
    assert all_of(there.blob(NAME, SIZE)) == DATA
    quirks.behave()
    quirks.ranges = False
    assert all_of(there.blob(NAME, SIZE, start=5)) == DATA[5:]
    quirks.ranges = True
    quirks.spoil("GET", BLOBS, whole(DATA), after=4)
    assert all_of(there.blob(NAME, SIZE)) == DATA
    settled()
    assert left(tmp_path) == []


@pytest.mark.parametrize("way", ["cut", "reset"])
def test_each_connection_goes_on_where_it_broke(quirks: Quirks, there: Repository, way: str) -> None:
    quirks.spoil("GET", BLOBS, cut(20_000, reset=way == "reset"), times=None if way == "cut" else 6)
    assert all_of(there.blob(NAME, SIZE)) == DATA
    if way == "cut":
        assert quirks.sent(BLOBS) <= SIZE + 20_000


def test_a_refusal_is_told_when_its_turn_comes(quirks: Quirks, there: Repository) -> None:
    def refuse(seen: Seen, answer: Answer) -> Answer:
        return status(403, "DENIED")(seen, answer) if f"={6 * PIECE}-" in (seen.headers["Range"] or "") else answer

    quirks.spoil("GET", BLOBS, refuse)
    reader = there.blob(NAME, SIZE)
    parts = bytearray()
    buffer = bytearray(10_000)
    while reader.at < 6 * PIECE:
        parts += buffer[: reader.readinto(buffer)]
    with pytest.raises(Denied), reader:
        reader.readinto(buffer)
    assert bytes(parts) == DATA[: 6 * PIECE]
    settled()


def test_what_was_read_ahead_is_there_for_the_next_attempt(
    quirks: Quirks, there: Repository, http: Http, spare: lanes.Spare, tmp_path: Path
) -> None:
    quirks.spoil("GET", BLOBS, slow(2_000_000))
    buffer = bytearray(4_000)
    with there.blob(NAME, SIZE, spare=spare) as reader:
        while reader.at < 2.5 * PIECE:
            reader.readinto(buffer)
        assert isinstance(reader, WideReader)
        while not is_far_enough(reader):  # else what is on its way comes twice
            time.sleep(0.01)
    settled()
    assert left(tmp_path)
    quirks.behave()
    # Whether or not there are idle connections.
    http.lines.take()
    http.lines.take()
    assert all_of(there.blob(NAME, SIZE, start=reader.at, spare=spare)) == DATA[reader.at :]
    settled()
    assert left(tmp_path) == []
    # But for the first connection, which came to where the others had begun, each byte came once.
    assert sum(seen.sent for seen in quirks.asked("GET", BLOBS) if seen.headers["Range"]) == SIZE - PIECE


def test_a_file_that_has_too_much_is_not_taken(there: Repository, spare: lanes.Spare) -> None:
    for start in (0, 2 * PIECE):
        store = spare(start)
        assert store is not None
        store.append(memoryview(noise(PIECE + 1, seed=3)))
        store.close()
    assert all_of(there.blob(NAME, SIZE, spare=spare)) == DATA


def test_where_there_is_no_room_for_files_memory_serves(
    quirks: Quirks, there: Repository, spare: lanes.Spare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "MOST", 70_000)
    assert all_of(there.blob(NAME, SIZE, spare=spare)) == DATA
    settled()  # so that the next finds an idle connection

    def broken(start: int) -> Any:
        raise LayerstoreError("no folder")

    assert all_of(there.blob(NAME, SIZE, spare=broken)) == DATA
    settled()
    assert all_of(there.blob(NAME, SIZE, spare=lambda start: None)) == DATA
    settled()
    assert sum(seen.sent for seen in quirks.asked("GET", BLOBS) if seen.headers["Range"]) == 3 * (SIZE - PIECE)
    assert left(tmp_path) == []


def test_not_more_is_read_ahead_than_a_few_pieces(quirks: Quirks, there: Repository, settings: Settings) -> None:
    reader = there.blob(NAME, SIZE)
    reader.readinto(bytearray(1))
    reader.readinto(bytearray(1))

    def ahead() -> int:
        return len([seen for seen in quirks.asked("GET", BLOBS) if seen.headers["Range"]])

    while not ahead():
        time.sleep(0.01)
    time.sleep(0.2)
    assert ahead() <= settings.downloads
    assert all_of(reader) == DATA[2:]
    settled()


def test_a_reader_that_is_left_ends_its_connections(quirks: Quirks, there: Repository, http: Http) -> None:
    quirks.spoil("GET", BLOBS, slow(200_000))
    reader = there.blob(NAME, SIZE)
    for _ in range(3):
        reader.readinto(bytearray(1))
    reader.close()
    settled()
    assert http.lines._used == 0


@pytest.mark.root
def test_a_pull_that_is_killed_in_the_middle_fetches_little_twice(
    quirks: Quirks, store: Store, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = images.layer(images.file("big", DATA))
    quirks.put_image("a/b", "1", [tar], compress=False)
    quirks.spoil("GET", BLOBS, slow(2_000_000))
    pid = os.fork()
    if not pid:
        try:
            monkeypatch.setattr(WideReader, "readinto", _dies_after(4 * PIECE))
            with layerstore.open(config=store.config) as other:
                other.pull(f"{quirks.host}/a/b:1")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    quirks.behave()
    quirks.spoil("GET", BLOBS, slow(1_000_000))
    image = store.pull(f"{quirks.host}/a/b:1")
    with image.mount() as tree:
        assert (tree / "big").read_bytes() == DATA
    settled()
    assert Partials(data_root / "partial").names() == []
    # The first connection of each attempt was closed when it had come to where the others had begun.
    assert sum(seen.sent for seen in quirks.asked("GET", BLOBS)[1:]) < 1.5 * len(tar)
    assert sum(seen.sent for seen in quirks.asked("GET", BLOBS) if seen.headers["Range"]) < 1.2 * len(tar)


def _dies_after(count: int) -> Callable[..., int]:
    real = WideReader.readinto

    def readinto(self: WideReader, buffer: Any) -> int:
        if self.at >= count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, buffer)

    return readinto


@given(
    cuts=st.lists(st.integers(0, PIECE), max_size=30),
    stops=st.lists(st.integers(0, SIZE), max_size=4).map(sorted),
    silent=st.sets(st.integers(0, 20), max_size=3),
)
@by_day(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_breaks_the_bytes_are_right(
    cuts: list[int], stops: list[int], silent: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(attempts=100, pause=0.0001, read_timeout=20.0)
    folder = Partials(tmp_path_factory.mktemp("pieces"))
    with Quirks() as server, Http(settings) as http:
        server.put_blob("a/b", DATA)
        for number, at in enumerate(cuts):
            quirk = reset() if number in silent else cut(at)
            server.spoil("GET", BLOBS, quirk, after=number, times=1)
        there = Repository(http, settings, reference.parse(f"{server.host}/a/b"))
        found = bytearray()
        for stop in [*stops, SIZE + 1]:
            try:
                with there.blob(
                    NAME, SIZE, start=len(found), spare=lambda start: folder.open(piece_name(NAME, start))
                ) as reader:
                    buffer = bytearray(7_000)
                    while len(found) < stop and (count := reader.readinto(buffer)):
                        found += buffer[:count]
            except Unreachable:
                pass
            settled()  # who comes before they have let go of their files does without
        assert bytes(found) == DATA
        assert folder.names() == []
