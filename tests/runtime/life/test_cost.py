"""What a run asks for that goes with its end: counted, since time cannot be held to a number on a busy machine."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from layerstore import Database, Transaction
from layerstore.runtime import Runtime
from layerstore.runtime.streams import Streams
from runtime.life.conftest import Make

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]


def test_the_database_is_asked_once_for_each_thing(
    make: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.run(make("true", remove=True))  # which learns the filter
    turns: list[bool] = []
    read, write = Database.read, Database.write

    def count(*, durable: bool) -> None:
        # Of one that goes on for a moment the first process is written down beside it, which is no turn of the run's.
        if threading.current_thread() is threading.main_thread():
            turns.append(durable)

    def read_counted(database: Database) -> AbstractContextManager[Transaction]:
        count(durable=False)
        return read(database)

    def write_counted(database: Database, *, durable: bool = True) -> AbstractContextManager[Transaction]:
        count(durable=durable)
        return write(database, durable=durable)

    monkeypatch.setattr(Database, "read", read_counted)
    monkeypatch.setattr(Database, "write", write_counted)

    assert runtime.run(make("true", remove=True)) == 0

    assert turns.count(True) == 0  # what goes needs not last, nor its removal: it would be removed once more
    assert len(turns) <= 25


def test_nothing_is_synced_at_the_end_of_a_mount_that_goes(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    mounts = {}
    for goes in (True, False):
        place = tmp_path / f"{goes}"
        with place.open("w") as file:
            streams = Streams(stdin=None, stdout=file.fileno(), stderr=None)
            assert runtime.run(make("cat", "/proc/self/mounts", remove=goes), streams) == 0
        mounts[goes] = next(line for line in place.read_text().splitlines() if line.split()[1:3] == ["/", "overlay"])

    assert "volatile" in mounts[True]
    assert "volatile" not in mounts[False]
