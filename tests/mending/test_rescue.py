"""A database that is gone, damaged, empty, or another store's: it is said in words, and made anew."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import FrameType

import pytest
from attrs import evolve

import layerstore
from core.adding import Adder
from layerstore import Damaged, InUse, KernelError, LayerstoreError, NotFound, Store
from layerstore.records.rows import salvaged
from layerstore.testing.calls import run_watched
from mending.store import LONE, Everything
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

DRIVERS = ["overlay2", "btrfs", "erofs"] + (["vfs", "aufs"] if NIGHTLY else [])


def state(store: Store) -> dict[str, object]:
    """All that people see of a store."""
    return {
        "images": {(image.id, image.tags, image.layers, image.parent) for image in store.images()},
        "containers": {
            (one.id, one.name, one.image_id, one.image_name, str(list(one.changes()))) for one in store.containers()
        },
        "checkpoints": {(one.name, point.label) for one in store.containers() for point in one.checkpoints()},
        "volumes": {(one.name, str(one.labels)) for one in store.volumes.all()},
    }


def remove(root: Path) -> None:
    for name in ("layerstore.db", "layerstore.db-wal", "layerstore.db-shm"):
        (root / name).unlink(missing_ok=True)


def empty(root: Path) -> None:
    remove(root)
    (root / "layerstore.db").touch(mode=0o600)


def cut(root: Path) -> None:
    fold(root)
    os.truncate(root / "layerstore.db", 8192)


def write_over(root: Path) -> None:
    """Every other page, so that no table is whole."""
    fold(root)
    with (root / "layerstore.db").open("r+b") as file:
        for page in range(0, (root / "layerstore.db").stat().st_size // 4096, 2):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def fold(root: Path) -> None:
    with closing(sqlite3.connect(root / "layerstore.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def anothers(root: Path) -> None:
    config = layerstore.Config(data_root=root.parent / "another", exec_root=root.parent / "exec", storage_driver="vfs")
    layerstore.open(config=config).close()
    fold(root.parent / "another")
    remove(root)
    shutil.copyfile(root.parent / "another/layerstore.db", root / "layerstore.db")


def is_refused(config: layerstore.Config) -> bool:
    try:
        layerstore.open(config=config).close()
    except Damaged:
        return True
    return False


def earlier(root: Path) -> None:
    fold(root)
    shutil.copyfile(root / "layerstore.db", root.parent / "kept.db")
    with layerstore.open(config=layerstore.Config(data_root=root, exec_root=root.parent / "exec")) as store:
        store.tag(store.images()[0].id, "for-a-moment")
        store.remove_image("for-a-moment")
    remove(root)
    (root.parent / "kept.db").rename(root / "layerstore.db")


@pytest.mark.parametrize("damage", [remove, empty, cut, write_over, anothers, earlier])
@pytest.mark.parametrize("driver", DRIVERS)
def test_it_is_told_and_made_anew(
    everything: Callable[[str], Everything], driver: str, damage: Callable[[Path], None]
) -> None:
    if driver != "overlay2" and damage is not remove and not NIGHTLY:
        pytest.skip("by night")
    there = everything(driver)
    with layerstore.open(config=there.config) as store:
        before, own = state(store), store.id
    damage(there.root)
    files = sorted(path.name for path in (there.root / "skeletons").iterdir())
    with pytest.raises(LayerstoreError) as caught:
        layerstore.open(config=there.config)
    assert "layerstore" in str(caught.value)
    assert "rescue" in str(caught.value.remedy)
    assert sorted(path.name for path in (there.root / "skeletons").iterdir()) == files
    done = layerstore.rescue(config=there.config)
    assert list(done.lost) == []
    assert (done.images, done.containers, done.volumes) == (4, 2, 1)
    with layerstore.open(config=there.config) as store:
        assert state(store) == before
        assert store.id == own
        assert [str(problem) for problem in store.check(content=True)] == []
        with store.container("box").mount() as root:
            assert (root / "written").read_text() == "after"
            assert (root / "etc/passwd").read_text() == "changed"
        store.container("box").rollback("kept")
        with store.container("box").mount() as root:
            assert (root / "written").read_text() == "before"
        assert (store.data_root / "volumes/data/_data/file").read_text() == "in a volume"


def test_a_byte_of_the_log_takes_nothing_with_it(everything: Callable[[str], Everything], tmp_path: Path) -> None:
    there = everything("overlay2")
    kept = [there.root / f"layerstore.db{end}" for end in ("", "-wal")]
    with layerstore.open(config=there.config) as store:
        store.tag(store.images()[0].id, "later")
        with store.create_container("later", name="last") as box, box.mount() as root:
            (root / "written").write_text("last of all")
        box.commit("committed")
        before = state(store)
        for path in kept:
            shutil.copyfile(path, tmp_path / path.name)
    dice, told = random.Random(12), 0
    log = (tmp_path / "layerstore.db-wal").read_bytes()
    for place in dice.sample(range(len(log.rstrip(b"\0"))), 200 if NIGHTLY else 12):
        remove(there.root)
        for path in kept:
            shutil.copyfile(tmp_path / path.name, path)
        with kept[1].open("r+b") as file:
            file.seek(place)
            file.write(bytes([log[place] ^ 1 << dice.randrange(8)]))
        if is_refused(there.config):
            assert layerstore.rescue(config=there.config).lost == ()
            told += 1
        with layerstore.open(config=there.config) as store:
            assert state(store) == before
            assert [str(problem) for problem in store.check()] == []
    assert told > 0


def test_one_that_is_whole_is_left_alone(everything: Callable[[str], Everything]) -> None:
    there = everything("overlay2")
    with pytest.raises(LayerstoreError, match="is whole, and there is nothing to rescue"):
        layerstore.rescue(config=there.config)
    with layerstore.open(config=there.config) as store:
        remove(there.root)
        with pytest.raises(InUse):
            layerstore.rescue(config=there.config)
        assert store is not None
    with pytest.raises(NotFound):
        layerstore.rescue(there.root / "nowhere")


def test_without_records_layers_wait_for_their_image(everything: Callable[[str], Everything]) -> None:
    there = everything("overlay2")
    remove(there.root)
    shutil.rmtree(there.root / "records")
    for record in (there.root / "skeletons").glob("*.record"):
        record.unlink()
    done = layerstore.rescue(config=there.config)
    assert (done.images, done.containers, done.layers) == (0, 0, 5)
    assert any("has no record: it is kept" in line for line in done.lost)
    with layerstore.open(config=there.config) as store:
        assert [str(problem) for problem in store.check(content=True) if problem.kind != "unknown volume"] == []
        assert len(list((there.root / "lost").iterdir())) == 3  # two containers, and what the checkpoint has


@pytest.mark.parametrize("driver", ["overlay2", "btrfs"])
def test_what_people_wrote_is_put_aside_where_no_record_is_left(
    everything: Callable[[str], Everything], driver: str
) -> None:
    there = everything(driver)
    remove(there.root)
    for kind in ("containers", "segments"):
        shutil.rmtree(there.root / "records" / kind)
    layerstore.rescue(config=there.config)
    with layerstore.open(config=there.config) as store:
        assert store.check(content=True) == []
        store.wait()
    assert sorted(path.read_text() for path in (there.root / "lost").rglob("written")) in (
        ["after", "before"],
        ["after", "after", "before"],
    )


def test_nothing_is_switched_while_something_cannot_be_put_aside(everything: Callable[[str], Everything]) -> None:
    there = everything("overlay2")
    remove(there.root)
    shutil.rmtree(there.root / "records/containers")
    (there.root / "lost").write_text("in the way")
    with pytest.raises(KernelError):
        layerstore.rescue(config=there.config)
    assert not (there.root / "layerstore.db").exists()
    (there.root / "lost").unlink()
    layerstore.rescue(config=there.config)
    assert any(path.read_text() == "after" for path in (there.root / "lost").rglob("written"))


def test_layers_whose_image_did_not_come_back_wait_for_it(everything: Callable[[str], Everything]) -> None:
    there = everything("overlay2")
    remove(there.root)
    shutil.rmtree(there.root / "records/images")
    done = layerstore.rescue(config=there.config)
    assert (done.images, done.layers, done.containers) == (0, 5, 2)
    assert any(line.startswith("2 layers are of nothing that came back") for line in done.lost)
    with layerstore.open(config=there.config) as store:
        add = Adder(store)
        add(LONE, name="lone:1")
        assert add.read == []
        store.prune(all_images=True, containers=True)
        assert [str(problem) for problem in store.check(content=True)] == []
        assert store.info().layers == 0


@pytest.mark.parametrize("nth", range(40) if NIGHTLY else [2, 17])
def test_bytes_of_the_database_that_are_others(everything: Callable[[str], Everything], nth: int) -> None:
    """Whatever becomes of it: an error in words, or a store that can be used; and a rescue that is whole."""
    there = everything("overlay2")
    with layerstore.open(config=there.config) as store:
        before = state(store)
    fold(there.root)
    path = there.root / "layerstore.db"
    at = path.stat().st_size * nth // 40
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(byte ^ 0xFF for byte in file.read(64)))
    found = []
    try:
        with layerstore.open(config=there.config) as store:
            found = store.check()
            if not found:
                assert state(store) == before
                return
    except LayerstoreError:
        pass
    if salvaged(path).is_whole:  # SQLite finds nothing: then it is a row that is wrong, and its record says so
        assert found != []
        return
    layerstore.rescue(config=there.config)
    with layerstore.open(config=there.config) as store:
        assert state(store) == before


def test_a_table_that_cannot_be_looked_into_is_a_problem(everything: Callable[[str], Everything]) -> None:
    there = everything("overlay2")
    fold(there.root)
    path = there.root / "layerstore.db"
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'tags'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    with layerstore.open(config=there.config) as store:
        assert {problem.kind for problem in store.check()} == {"database"}


def test_the_log_with_other_bytes_loses_no_more_than_its_own_transactions(
    everything: Callable[[str], Everything],
) -> None:
    there = everything("overlay2")
    log = there.root / "layerstore.db-wal"
    with log.open("r+b") as file:
        file.seek(log.stat().st_size // 3)
        file.write(os.urandom(512))
    try:
        with layerstore.open(config=there.config) as store:
            store.check()
    except Damaged:
        layerstore.rescue(config=there.config)


@pytest.mark.parametrize("failure", [errno.EIO, None])
def test_records_of_layers_from_before_are_durable_before_they_have_names(
    everything: Callable[[str], Everything], failure: int | None
) -> None:
    there = everything("overlay2")
    records = list((there.root / "skeletons").glob("*.record"))
    for record in records:
        record.unlink()
    opened: list[Store] = []
    done = run_watched(
        lambda: opened[0]._parts.layers.complete_records(),
        lambda number, _: failure if number == 0 else None,
        names=["syncfs", "rename", "renameat", "renameat2"],
        before=lambda: opened.append(layerstore.open(config=there.config)),
    )
    assert done.calls[0].name == "syncfs"
    assert len(done.calls) == 1 + (0 if failure else len(records))
    assert [record.exists() for record in records] == [failure is None] * len(records)


def behind(root: Path) -> None:
    """Of what lies beside it, the database knows less than its log, which ends early."""
    earlier(root)
    with closing(sqlite3.connect(root / "layerstore.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("INSERT INTO meta VALUES ('of the log', 'alone')")
        connection.commit()
        for name in ("layerstore.db", "layerstore.db-wal"):  # before whoever closes it last makes one of both
            shutil.copyfile(root / name, root / f"{name}-kept")
    for name in ("layerstore.db", "layerstore.db-wal"):
        os.replace(root / f"{name}-kept", root / name)


@pytest.mark.parametrize("damage", [remove, cut, behind])
def test_a_rescue_may_be_killed_at_any_line_of_its_end(
    everything: Callable[[str], Everything], damage: Callable[[Path], None]
) -> None:
    whole = everything("overlay2")
    with layerstore.open(config=whole.config) as store:
        before, own = state(store), store.id
    damage(whole.root)
    lines = range(1, 100) if NIGHTLY else range(1, 100, 2 if damage is behind else 6)
    number = 0
    for number in lines:
        there = evolve(whole, config=evolve(whole.config, data_root=whole.root.with_name("copy")))
        subprocess.run(["cp", "-a", whole.root, there.root], check=True)
        died = killed_at_line(partial(layerstore.rescue, config=there.config), "_take_place", number)
        remedy = remedy_at_open(there.config)
        if remedy is not None:
            assert "rescue" in remedy
            layerstore.rescue(config=there.config)
        with layerstore.open(config=there.config) as store:
            assert (state(store), store.id) == (before, own), number
            assert store.check(content=True) == []
        if damage is behind:
            with closing(sqlite3.connect(there.root / "layerstore.db.damaged-1")) as connection:
                assert connection.execute("SELECT value FROM meta WHERE key = 'of the log'").fetchone() == ("alone",)
        shutil.rmtree(there.root)
        if not died:
            break
    assert number > 12


def remedy_at_open(config: layerstore.Config) -> str | None:
    """What is to be done about a store that is not opened; None: it is."""
    try:
        layerstore.open(config=config).close()
    except LayerstoreError as error:
        return str(error.remedy)
    return None


def killed_at_line(deed: Callable[[], object], function: str, number: int) -> bool:
    """Do it in a child, which is killed before that line of a function. False: the function has fewer."""
    process = os.fork()
    if process == 0:
        count = 0

        def called(frame: FrameType, event: str, _: object) -> object:
            return stepped if frame.f_code.co_name == function else None

        def stepped(frame: FrameType, event: str, _: object) -> object:
            nonlocal count
            count += event == "line"
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return stepped

        sys.settrace(called)  # type: ignore[arg-type]
        try:
            deed()
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)
