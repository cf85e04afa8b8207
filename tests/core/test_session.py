"""Sessions and locks: they end with their process, and nobody else's folder is touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from layerstore import session
from layerstore.errors import KernelError, StoreClosed
from layerstore.locks import Locks, of_container, of_diff
from layerstore.session import Session
from layerstore.testing.calls import Call, Failure, run_watched
from layerstore.testing.remains import descriptors

HOLD = (
    "import sys; from pathlib import Path; from layerstore.session import Session\n"
    "session = Session(Path(sys.argv[1])); (session.folder / 'made').touch()\n"
    "print(session.name, flush=True); sys.stdin.read()\n"
)


def test_folder_is_made_when_it_is_needed(tmp_path: Path) -> None:
    mine = Session(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert mine.folder.is_dir()
    assert mine.new_key().startswith(mine.name)
    assert len(mine.new_key()) == 32
    mine.close()
    assert [path.name for path in tmp_path.rglob("*")] == [".spare"]


def test_killed_process_is_dead_and_a_living_one_is_not(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    name = other.stdout.readline().decode().strip()
    mine = Session(tmp_path)
    assert mine.folder
    assert session.is_alive(tmp_path, name)
    with session.dead(tmp_path) as names:
        assert names == []
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert not session.is_alive(tmp_path, name)
    with session.dead(tmp_path) as names:
        assert names == [name]
        assert not session.is_alive(tmp_path, name)
        with session.dead(tmp_path) as again:
            assert again == []
        session.remove(tmp_path, names)
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    mine.close()


def test_unknown_session_is_dead(tmp_path: Path) -> None:
    assert not session.is_alive(tmp_path, "00000000")


def test_discarded_is_gone_after_close(tmp_path: Path) -> None:
    mine = Session(tmp_path)
    (mine.folder / "a" / "b").mkdir(parents=True)
    (mine.folder / "c").touch()
    mine.discard(mine.folder / "a")
    mine.close()
    mine.close()
    assert [path.name for path in tmp_path.rglob("*")] == [".spare"]
    with pytest.raises(StoreClosed):
        Session.new_key(mine)


def test_fork_leaves_the_session_to_the_parent(tmp_path: Path) -> None:
    mine = Session(tmp_path)
    name = mine.name
    closed, over = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        mine.close()
        os.write(closed[1], b"x")
        os.read(over[0], 1)
        os._exit(0 if mine.closed else 1)
    os.read(closed[0], 1)
    assert session.is_alive(tmp_path, name)
    mine.close()
    assert not session.is_alive(tmp_path, name), "though the child lives"
    os.write(over[1], b"x")
    for end in (*closed, *over):
        os.close(end)
    assert os.waitpid(child, 0)[1] == 0


def test_sessions_begin_beside_a_sweep(tmp_path: Path) -> None:
    """Whoever looks for the dead may lock a folder just made: then its maker takes another name."""
    over = threading.Event()

    def sweep() -> None:
        while not over.is_set():
            with session.dead(tmp_path) as names:
                session.remove(tmp_path, names)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    for _ in range(200):
        mine = Session(tmp_path)
        assert mine.folder.is_dir()
        assert session.is_alive(tmp_path, mine.name)
        mine.close()
    over.set()
    sweeper.join()


def test_lock_excludes_threads(tmp_path: Path) -> None:
    locks, inside, most = Locks(tmp_path / "locks"), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(30):
            with locks.one(7):
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_lock_is_tried_and_shared(tmp_path: Path) -> None:
    locks = Locks(tmp_path / "locks")
    with locks.one(1, shared=True), locks.one(1, shared=True), locks.at_once(1) as free:
        assert not free
    with locks.one(1), locks.at_once(2) as free:
        assert free
    with locks.at_once(1) as free:
        assert free


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from layerstore.locks import Locks\n"
        "with Locks(Path(sys.argv[1])).one(5):\n    print(flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "locks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    locks = Locks(tmp_path / "locks")
    with locks.at_once(5) as free:
        assert not free
    other.kill()
    other.communicate()
    with locks.at_once(5) as free:
        assert free


def test_many_locks_are_taken_in_one_order(tmp_path: Path) -> None:
    locks = Locks(tmp_path / "locks")
    names = ["sha256:" + letter * 64 for letter in "0123456789abcdef"]

    def work(order: list[str]) -> None:
        for _ in range(20):
            with locks.several(of_diff(name) for name in order):
                pass

    threads = [threading.Thread(target=work, args=(order,), daemon=True) for order in (names, names[::-1], names * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert of_container("f" * 64) < of_diff(names[0])


@pytest.mark.root
@pytest.mark.parametrize("call", ["openat", "newfstatat"])
def test_a_folder_that_cannot_be_had_is_an_error_in_words(tmp_path: Path, call: str) -> None:
    seen: list[Call] = []

    def answer(_: int, one: Call) -> int | None:
        if not one.path.startswith(str(tmp_path)):
            return None
        seen.append(one)
        return errno.EMFILE if len(seen) == 1 else None

    def then(failure: Failure | None) -> list[str]:
        assert failure is not None
        assert KernelError.__name__ in failure.kinds, failure.trace
        return [path for path in descriptors() if path.startswith(str(tmp_path))]

    run = run_watched(lambda: Session(tmp_path).begin(), answer, then, names=[call])
    assert run.result == []
