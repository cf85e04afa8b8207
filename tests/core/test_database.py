"""Transactions: all or nothing, one writer at a time over all processes, errors in words."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from layerstore.database import Database, Tables
from layerstore.database.failures import LONGEST
from layerstore.database.read_only import copy_to
from layerstore.errors import Damaged, KernelError, LayerstoreError, StoreClosed
from layerstore.kernel.files.reserve import Reserve
from support.faults import descriptors


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
    monkeypatch.setattr("layerstore.database.database.PATIENCE", 0.05)
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


def locks_of(path: Path) -> list[list[str]]:
    """The locks that processes have on a file, as the kernel lists them: by its number, and by the mount's device."""
    fd = os.open(path, os.O_PATH)
    facts = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
    os.close(fd)
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    [device] = [mount[2] for mount in mounts if mount[0] == facts["mnt_id"].strip()]
    major, minor = map(int, device.split(":"))
    lines = [line.split()[1:] for line in Path("/proc/locks").read_text().splitlines()]
    return sorted(line for line in lines if line[-3] == f"{major:02x}:{minor:02x}:{path.stat().st_ino}")


def test_who_copies_a_database_that_is_open_here_drops_no_lock_of_it(database: Database, tmp_path: Path) -> None:
    put(database, "a")
    before = locks_of(tmp_path / "db")
    assert {kind for kind, *_ in before} == {"OFDLCK", "POSIX"}
    for number in range(3):
        copy_to(tmp_path / "db", tmp_path / f"copy{number}")
    assert locks_of(tmp_path / "db") == before
    with closing(Database(tmp_path / "copy0")) as copy:
        assert count(copy) == 1


def test_nothing_stays_open_of_a_database_that_was_copied(database: Database, tmp_path: Path) -> None:
    copy_to(tmp_path / "db", tmp_path / "while it is open")
    database.close()
    copy_to(tmp_path / "db", tmp_path / "when it is closed")
    assert [name for name in descriptors().values() if Path(name).is_relative_to(tmp_path)] == []


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


@pytest.mark.root
def test_transaction_that_finds_no_room_after_all_gives_up_the_reserve(own_filesystem: Callable[..., Path]) -> None:
    disk = own_filesystem("tmpfs", size=96 << 20)
    reserve = Reserve(disk / "reserve")
    reserve.make()
    database = Database(disk / "db", reserve=reserve)
    put(database, "a")  # which finds plenty, for a while
    with open(disk / "hog", "wb", buffering=0) as hog, suppress(OSError):
        while hog.write(bytes(1 << 20)):
            pass
    reserve._enough_until = float("inf")
    with pytest.raises(KernelError, match="has been given up: try again") as caught:
        put(database, "x" * (1 << 20))
    assert caught.value.errno == errno.ENOSPC
    assert not (disk / "reserve").exists()
    put(database, "x" * (1 << 20))
    assert count(database) == 3  # with the wish that the store is put in order, which stands in for what failed
    database.close()


# --- the files beside it


def beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_files_beside_it_outlive_the_last_process(database: Database) -> None:
    put(database, "a")
    database.close()
    assert beside(database.path) == ["db", "db-shm", "db-wal"]
    assert count(Database(database.path)) == 1


def test_one_that_closes_drops_no_lock_of_another_in_the_process(database: Database) -> None:
    put(database, "a")
    Database(database.path).close()
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM meta'); c.close()"
    subprocess.run([sys.executable, "-c", program, database.path], check=True)
    assert beside(database.path) == ["db", "db-shm", "db-wal"]


def test_log_has_room_in_it_and_stays_short(database: Database) -> None:
    log = database.path.with_name("db-wal")
    for number in range(500):
        put(database, f"{number}", durable=False)
    assert log.stat().st_size > 1 << 20
    for _ in range(30):
        database.close()
        assert log.stat().st_size == 384 << 10
        database = Database(database.path)
        before = log.stat().st_blocks
        for _ in range(20):
            put(database, f"{os.urandom(4).hex()}", durable=False)
        assert log.stat().st_blocks == before
    assert count(database) == 500 + 30 * 20
    assert database.problems() == []


# --- errors in words


def test_path_that_sqlite_cannot_name_is_told_with_both_lengths(tmp_path: Path) -> None:
    folder = tmp_path
    while len(os.fsencode(folder)) < 549:
        folder /= "x" * min(200, 549 - len(os.fsencode(folder)))
    folder.mkdir(parents=True)
    path = folder / "db"
    with pytest.raises(KernelError) as caught:
        Database(path)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert f"It has {len(os.fsencode(path))} bytes, and SQLite names at most {LONGEST}" in str(caught.value)


def test_longest_path_that_is_promised_works(tmp_path: Path) -> None:
    folder = tmp_path
    while (left := LONGEST - len("/db") - len(os.fsencode(folder))) > 0:
        folder /= "x" * min(200, left - 1)
    folder.mkdir(parents=True)
    assert len(os.fsencode(folder / "db")) == LONGEST
    assert count(Database(folder / "db")) == 0


@pytest.mark.root
def test_owner_is_named_only_to_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        if folder.stat().st_mode & 0o5 != 0o5:
            folder.chmod(folder.stat().st_mode | 0o5)
    Database(tmp_path / "db").close()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(4242)
        os.setuid(4242)
        try:
            Database(tmp_path / "db")
        except KernelError as error:
            fine = error.errno == errno.EACCES and "belongs to the user with the ID 0: run as that user" in str(error)
            os._exit(0 if fine else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_too_many_open_files_are_no_matter_of_rights(tmp_path: Path) -> None:
    Database(tmp_path / "db").close()
    program = (
        "import resource, os, sys; from pathlib import Path; from layerstore.database import Database\n"
        "from layerstore.errors import KernelError\n"
        "taken = []\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "try:\n"
        "    while True: taken.append(os.open('/', os.O_PATH))\n"
        "except OSError: pass\n"
        "for left in range(4):\n"
        "    for fd in taken[:left]: os.close(fd)\n"
        "    taken = taken[left:]\n"
        "    try:\n"
        "        Database(Path(sys.argv[1])).close()\n"
        "    except KernelError as error: print(error.errno, 'ulimit -n' in str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "db"], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) == {f"{errno.EMFILE} True"}


def test_folder_in_its_place_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with pytest.raises(KernelError) as caught:
        Database(tmp_path / "db")
    assert caught.value.errno == errno.EISDIR


@pytest.mark.root
def test_read_only_filesystem_is_called_that(own_filesystem: Callable[..., Path]) -> None:
    disk = own_filesystem("tmpfs", size=4 << 20)
    Database(disk / "db").close()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(KernelError) as caught, closing(Database(disk / "db")) as database:
        put(database, "a")
    assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SQLITE_IOERR_READ", errno.EIO),
        ("SQLITE_IOERR_FSYNC", errno.EIO),
        ("SQLITE_IOERR_SHORT_READ", errno.EIO),
        ("SQLITE_IOERR_NOMEM", errno.ENOMEM),
        ("SQLITE_IOERR_SHMMAP", errno.EIO),
        ("SQLITE_IOERR_CORRUPTFS", errno.EUCLEAN),
        ("SQLITE_READONLY_DBMOVED", errno.ENOENT),
        ("SQLITE_CANTOPEN_ISDIR", errno.EISDIR),
        ("SQLITE_FULL", errno.ENOSPC),
    ],
)
def test_each_code_has_its_own_number(database: Database, name: str, number: int) -> None:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name

    def fail() -> None:
        with database.read():
            raise error

    with pytest.raises(KernelError) as caught:
        fail()
    assert caught.value.errno == number
    assert name.removeprefix("SQLITE_") in caught.value.message


def test_unknown_code_is_told_as_it_is(database: Database) -> None:
    def fail() -> None:
        with database.read() as tx:
            tx.execute("SELECT * FROM nowhere")

    with pytest.raises(LayerstoreError, match=r"the database .* cannot be used: no such table: nowhere"):
        fail()


# --- tables of upper floors

CACHE = Tables("cache", ("CREATE TABLE cache_steps (name TEXT PRIMARY KEY, image TEXT REFERENCES images);",))


def test_upper_floor_has_tables_in_the_same_transactions(database: Database) -> None:
    database.provide(CACHE)
    database.provide(CACHE)

    def fail() -> None:
        with database.write() as tx:
            tx.execute("INSERT INTO cache_steps VALUES ('a', NULL)")
            tx.execute("INSERT INTO meta VALUES ('a', '')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as tx:
        assert tx.execute("SELECT count(*) FROM cache_steps").fetchone() == (0,)
    assert count(database) == 0
    with pytest.raises(sqlite3.IntegrityError), database.write() as tx:
        tx.execute("INSERT INTO cache_steps VALUES ('a', 'no such image')")


def test_upper_floor_goes_on_from_the_version_that_there_is(database: Database) -> None:
    database.provide(CACHE)
    with database.write() as tx:
        tx.execute("INSERT INTO cache_steps VALUES ('a', NULL)")
    later = Tables("cache", (*CACHE.steps, "ALTER TABLE cache_steps ADD COLUMN used INTEGER NOT NULL DEFAULT 7;"))
    Database(database.path).provide(later)
    with database.read() as tx:
        assert tx.execute("SELECT * FROM cache_steps").fetchall() == [("a", None, 7)]
    with pytest.raises(LayerstoreError, match=r"the tables of cache .* version 2, this layerstore knows 1"):
        Database(database.path).provide(CACHE)


def test_upper_floor_takes_no_name_but_its_own(database: Database) -> None:
    with pytest.raises(ValueError, match="must be called cache_"):
        database.provide(Tables("cache", ("CREATE TABLE cached (name TEXT);",)))
    with pytest.raises(ValueError, match="begin the name"):
        Tables("build cache", ())
    with database.read() as tx:
        assert tx.execute("SELECT count(*) FROM schemas").fetchone() == (0,)
    database.provide(CACHE)
