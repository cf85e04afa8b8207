"""Transactions: all or nothing, one writer at a time over all processes, errors in words."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.database import Database
from layerstore.errors import Damaged, KernelError, LayerstoreError, StoreClosed


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "db")


def count(database: Database) -> int:
    with database.read() as tx:
        return int(tx.execute("SELECT count(*) FROM meta").fetchone()[0])


def put(database: Database, key: str, *, durable: bool = True) -> None:
    with database.write(durable=durable) as tx:
        tx.execute("INSERT INTO meta VALUES (?, '')", (key,))


def test_file_is_for_its_owner_alone(database: Database, tmp_path: Path) -> None:
    put(database, "a")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_failed_transaction_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as tx:
            tx.execute("INSERT INTO meta VALUES ('a', '')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert count(database) == 0


def test_broken_constraint_is_the_callers_business(database: Database) -> None:
    put(database, "a")
    with pytest.raises(sqlite3.IntegrityError):
        put(database, "a")
    put(database, "b")
    assert count(database) == 2


def test_reading_sees_one_state(database: Database, tmp_path: Path) -> None:
    other = Database(tmp_path / "db")
    with database.read() as tx:
        before = tx.execute("SELECT count(*) FROM meta").fetchone()
        put(other, "a")
        assert tx.execute("SELECT count(*) FROM meta").fetchone() == before
    assert count(database) == 1


def test_reading_inside_a_write_sees_the_write(database: Database) -> None:
    with database.write() as tx:
        tx.execute("INSERT INTO meta VALUES ('a', '')")
        assert count(database) == 1


def test_writers_of_many_threads_and_processes_all_get_their_turn(database: Database, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from layerstore.database import Database\n"
        "database = Database(Path(sys.argv[1]))\n"
        "for number in range(40):\n"
        "    with database.write(durable=number % 2 == 0) as tx:\n"
        "        tx.execute(\"INSERT INTO meta VALUES (?, '')\", (f'{sys.argv[2]}-{number}',))\n"
        "database.close()\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", program, tmp_path / "db", str(n)]) for n in range(4)]
    threads = [
        threading.Thread(target=lambda n=n: [put(database, f"t{n}-{number}", durable=False) for number in range(40)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait() for other in others] == [0] * 4
    assert count(database) == 8 * 40


def test_many_processes_may_make_it_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from layerstore.database import Database\n"
        "Database(Path(sys.argv[1])).close()\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", program, tmp_path / "db"]) for _ in range(6)]
    assert [other.wait() for other in others] == [0] * 6
    assert count(Database(tmp_path / "db")) == 0


def test_waiting_for_a_writer_ends_with_an_error(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerstore.database.PATIENCE", 0.05)
    other = Database(tmp_path / "db")
    with other.write(), pytest.raises(KernelError) as caught:
        put(database, "a")
    assert caught.value.errno == errno.EBUSY


def test_readers_are_not_kept_by_a_thread_that_waits_to_write(database: Database, tmp_path: Path) -> None:
    other = Database(tmp_path / "db")
    with other.write():
        waiting = threading.Thread(target=put, args=(database, "a"))
        waiting.start()
        assert count(database) == 0
    waiting.join()
    assert count(database) == 1


def test_child_of_a_fork_is_refused_and_the_parent_goes_on(database: Database) -> None:
    child = os.fork()
    if child == 0:
        try:
            count(database)
        except StoreClosed:
            database.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    put(database, "a")


def test_closed_database_is_refused(database: Database) -> None:
    database.close()
    database.close()
    with pytest.raises(StoreClosed):
        count(database)


def test_later_schema_is_refused(database: Database, tmp_path: Path) -> None:
    with database.write() as tx:
        tx.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(LayerstoreError, match="99"):
        Database(tmp_path / "db")


def test_file_that_is_no_database_is_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"not a database at all" * 500)
    with pytest.raises(Damaged, match="damaged"):
        Database(tmp_path / "db")


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="missing"):
        Database(tmp_path / "missing" / "db")


@pytest.mark.root
def test_full_disk_is_an_error_with_its_number(own_filesystem: Callable[..., Path]) -> None:
    disk = own_filesystem("tmpfs", size=1 << 20)
    database = Database(disk / "db")

    def fill() -> None:
        for number in range(100):
            put(database, f"{number}" + "x" * 30_000)

    with pytest.raises(KernelError) as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert count(database) > 0
    database.close()
