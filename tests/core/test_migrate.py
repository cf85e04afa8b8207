"""A store becomes one of another driver: everything equal afterwards, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

import layerstore
from core import abundance
from core.abundance import settings
from core.plain import Plain
from core.test_power import Disk
from layerstore import parts, plugins
from layerstore.driver import Capabilities, Dialect
from layerstore.errors import (
    ConfigError,
    Damaged,
    DepthExceeded,
    DriverNotFound,
    DriverNotSupported,
    InUse,
    LayerstoreError,
    NotFound,
)
from layerstore.migration import Migration
from support import images as make

pytestmark = pytest.mark.root

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

REAL = sorted(plugins.names())
TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}

Facts = dict[str, Any]


class Third(Plain):
    """One more driver."""

    name: ClassVar[str] = "third"


class Shallow(Plain):
    """One that cannot stack three layers."""

    name: ClassVar[str] = "shallow"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.MERGED, max_depth=2)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers of these tests beside those that are installed."""
    more = {"third": f"{__name__}:Third", "shallow": f"{__name__}:Shallow"}
    monkeypatch.setattr(plugins, "_entries", lambda: {**abundance.entries(), **more})


@pytest.fixture
def filled(data_root: Path, tmp_path: Path) -> Path:
    """The data-root of a store of overlay2 that has one of everything."""
    fill(data_root, tmp_path)
    return data_root


def fill(data_root: Path, folder: Path, driver: str = "overlay2") -> None:
    with layerstore.open(config=settings(data_root, driver)) as opened:
        abundance.fill(opened, folder)


def look(data_root: Path, driver: str, *, trees: bool = True) -> Facts:
    """All that can be seen of a store, which has to be in order, and of this driver."""
    with layerstore.open(config=settings(data_root)) as opened:
        assert opened.driver_name == driver
        facts = abundance.seen(opened, trees=trees)
    assert facts["check"] == []
    return facts


def without_trees(facts: Facts) -> Facts:
    return {name: value for name, value in facts.items() if not name.startswith("tree of")}


def migrate(data_root: Path, to: str) -> layerstore.Migrated:
    return layerstore.migrate(to, config=settings(data_root))


def killed(data_root: Path, to: str, call: str, count: int) -> bool:
    """Let a process of its own do it, which is killed before it makes this system call so many times; was it?"""
    command = [
        "strace",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:signal=KILL:when={count}",
    ]
    command += [sys.executable, abundance.__file__, str(data_root), to]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    return done.returncode != 0


def assert_nothing_is_left(data_root: Path, driver: str) -> None:
    """Neither of another driver, nor of the migration."""
    database = {"layerstore.db", "layerstore.db-shm", "layerstore.db-wal"}
    assert set(os.listdir(data_root)) - {"reserve"} == {*database, "locks", driver, "records", "skeletons", "staging"}
    assert set(os.listdir(data_root / "staging")) <= {".spare"}
    with layerstore.open(config=settings(data_root)) as opened:
        info = opened.info()
    assert (info.migration, info.former) == (None, None)


# --- there and back


def test_there_and_back(filled: Path) -> None:
    before = look(filled, "overlay2")
    for origin, to in (("overlay2", "plain"), ("plain", "overlay2")):
        done = migrate(filled, to)
        assert (done.origin, done.driver, done.layers, done.containers) == (origin, to, 13, 7)
        assert done.notices == ()
        assert_nothing_is_left(filled, to)
        assert look(filled, to) == before


@pytest.mark.tools("strace")
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_through_every_driver_that_works_there(kind: str, backing: Callable[[str], Path], tmp_path: Path) -> None:
    """One after the other, killed in the middle of each, and back to the first; the one of these tests is last."""
    data_root = backing(kind) / "store"
    working = []
    for name in ("overlay2", "btrfs", "aufs", "vfs"):
        if name in REAL:
            try:
                plugins.choose(settings(data_root, name), lambda driver: data_root / driver, None)
            except DriverNotSupported:
                continue
            working.append(name)
    first, *others = working
    fill(data_root, tmp_path, first)
    before = look(data_root, first)
    now = first
    for number, to in enumerate((*others, "plain", first)):
        assert killed(data_root, to, "fdatasync", 10 + 3 * number)
        assert look(data_root, now, trees=False) == without_trees(before)
        assert unfinished(data_root) == to
        migrate(data_root, to)
        assert_nothing_is_left(data_root, to)
        assert look(data_root, to) == before
        now = to


def test_containers_stay_what_they_were(filled: Path) -> None:
    def statuses() -> dict[str, str]:
        with layerstore.open(config=settings(filled)) as opened:
            return {box.name: box.status for box in opened.containers()}

    before = statuses()
    assert set(before.values()) == {"created", "unmounted"}
    migrate(filled, "plain")
    assert statuses() == before


def test_store_is_used_on_after_it(filled: Path) -> None:
    migrate(filled, "plain")
    with layerstore.open(config=settings(filled)) as opened:
        box = opened.container("edited")
        with box.mount() as root:
            (root / "after").write_text("x")
        assert "A /after" in map(str, box.changes())
        image = box.commit("after:1")
        box.remove()
        opened.create_container(image).remove()
        opened.prune(all_images=True, containers=True)
        assert len(opened.end_leases("build", opened.leases("build"))) == 5
        assert (opened.images(), opened.containers(), opened.check()) == ([], [], [])
    for folder in ("plain", "skeletons"):
        assert os.listdir(filled / folder) == []


def test_empty_store(data_root: Path) -> None:
    layerstore.open(config=settings(data_root, "overlay2")).close()
    assert migrate(data_root, "plain") == layerstore.Migrated("overlay2", "plain")
    assert look(data_root, "plain") == {"check": [], "leases": {}}
    assert_nothing_is_left(data_root, "plain")


def test_progress_counts_every_layer_and_container(filled: Path) -> None:
    told: dict[str, tuple[int, int | None]] = {}
    layerstore.migrate(
        "plain", config=settings(filled), progress=lambda label, done, total: told.update({label: (done, total)})
    )
    assert {"edited", "nothing"} <= told.keys()
    assert len(told) >= 6 + len(abundance.layers())
    assert all(done == total for done, total in told.values())


def test_socket_is_left_behind_and_told(data_root: Path) -> None:
    with (
        layerstore.open(config=settings(data_root, "overlay2")) as opened,
        opened.create_container(name="web").mount() as root,
        socket.socket(socket.AF_UNIX) as server,
    ):
        folder = os.open(root, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        (root / "file").touch()
    [notice] = migrate(data_root, "plain").notices
    assert notice.startswith("container web: ")
    assert notice.endswith("/socket")
    with layerstore.open(config=settings(data_root)) as opened, opened.container("web").mount() as root:
        assert os.listdir(root) == ["file"]


# --- what is refused, before anything is made


def assert_refused(data_root: Path, to: str, error: type[LayerstoreError], words: str) -> LayerstoreError:
    before = sorted(os.listdir(data_root))
    with pytest.raises(error, match=words) as caught:
        migrate(data_root, to)
    assert sorted(os.listdir(data_root)) == before
    with layerstore.open(config=settings(data_root)) as opened:
        assert opened.info().migration is None
    return caught.value


def test_what_cannot_be_is_refused(filled: Path) -> None:
    assert_refused(filled, "nonsense", DriverNotFound, "no storage driver 'nonsense' is installed")
    assert_refused(filled, "overlay2", LayerstoreError, "keeps its layers with overlay2 already")
    assert_refused(filled, "shallow", DepthExceeded, "a stack of 5 layers: shallow mounts at most 2")
    with pytest.raises(NotFound, match="there is no store"):
        migrate(filled / "elsewhere", "plain")
    with pytest.raises(ConfigError, match="plain has no option"):
        layerstore.migrate("plain", config=settings(filled), storage_opts=["plain.size=1"])
    with pytest.raises(ConfigError, match="is an option of btrfs"):
        layerstore.migrate("plain", config=settings(filled), storage_opts=["btrfs.size=1"])
    with closing(layerstore.open(config=settings(filled))) as opened, opened._parts.database.write() as tx:
        tx.execute("UPDATE containers SET size = 1 << 30 WHERE name = 'edited'")
    assert_refused(filled, "plain", DriverNotSupported, "cannot limit .* edited")


def test_home_of_another_program_is_refused(filled: Path) -> None:
    (filled / "plain" / "theirs").mkdir(parents=True)
    assert_refused(filled, "plain", ConfigError, "is not empty .it holds theirs.")
    assert os.listdir(filled / "plain") == ["theirs"]


def test_open_store_is_refused(filled: Path) -> None:
    opened = layerstore.open(config=settings(filled))
    assert_refused(filled, "plain", InUse, "this process itself")
    opened.close()
    program = "import sys, layerstore; s = layerstore.open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", program, filled], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    assert other.stdout is not None
    other.stdout.readline()
    error = assert_refused(filled, "plain", InUse, f"process {other.pid}")
    assert isinstance(error, InUse)
    assert error.holders == (f"process {other.pid}",)
    other.communicate()
    migrate(filled, "plain")


def test_mounted_container_is_refused(filled: Path) -> None:
    with layerstore.open(config=settings(filled)) as opened:
        for name in ("edited", "nothing"):
            opened.container(name).mount(persistent=True)
    error = assert_refused(filled, "plain", InUse, "container edited is mounted at")
    assert "layerstore umount edited nothing" in str(error)
    with layerstore.open(config=settings(filled)) as opened:
        for name in ("edited", "nothing"):
            opened.container(name).unmount()
    migrate(filled, "plain")


def test_container_that_runs_is_to_be_stopped(filled: Path, tmp_path: Path) -> None:
    place = tmp_path / "tree"
    place.mkdir()
    with layerstore.open(config=settings(filled)) as opened:
        opened.container("nothing").mount(persistent=True)
        process = opened.container("edited").launch(["sleep", "100"], root=place)
    try:
        error = assert_refused(filled, "plain", InUse, "container edited is running")
        assert str(error).endswith("\nFirst: layerstore stop edited; layerstore umount nothing")
    finally:
        process.kill()
        process.wait()
    with layerstore.open(config=settings(filled)) as opened:
        opened.container("nothing").unmount()
    migrate(filled, "plain")


def test_container_that_is_mounted_in_another_namespace_is_refused(filled: Path) -> None:
    program = (
        "import sys, layerstore\n"
        "with layerstore.open(sys.argv[1], config=layerstore.Config(exec_root=sys.argv[1] + '.exec')) as store:\n"
        "    store.container('edited').mount(persistent=True)\n"
        "print(flush=True); sys.stdin.read()\n"
    )
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", program, filled]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert other.stdout is not None
    other.stdout.readline()
    assert_refused(filled, "plain", InUse, "container edited is mounted .* in another mount namespace")
    other.communicate()
    migrate(filled, "plain")


def test_open_waits_a_moment_and_then_says_who_is_at_it(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    hand_over = Migration._hand_over

    def meanwhile(self: Migration, *more: Any) -> None:
        with pytest.raises(InUse) as caught:
            layerstore.open(config=settings(filled))
        asked.append(caught.value.message)
        hand_over(self, *more)

    monkeypatch.setattr(parts, "PATIENCE", 0.05)
    monkeypatch.setattr(Migration, "_hand_over", meanwhile)
    migrate(filled, "plain")
    assert asked == [f"the store in {filled} is being converted to plain by process {os.getpid()}"]
    layerstore.open(config=settings(filled)).close()


# --- what fails on the way


@pytest.fixture
def stopped(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`stopped("_switch")`: a migration to plain that is interrupted before this step."""

    def stop(step: str) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Migration, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                migrate(filled, "plain")

    return stop


def unfinished(data_root: Path) -> str | None:
    with layerstore.open(config=settings(data_root)) as opened:
        return opened.info().migration


def test_what_was_done_is_not_done_again(
    filled: Path, stopped: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(filled, "overlay2")
    stopped("_switch")
    assert look(filled, "overlay2") == before
    assert unfinished(filled) == "plain"
    there = set(os.listdir(filled / "plain"))
    migrate(filled, "plain")
    assert set(os.listdir(filled / "plain")) == there
    assert_nothing_is_left(filled, "plain")
    assert look(filled, "plain") == before


def test_store_may_change_between_two_tries(filled: Path, stopped: Callable[[str], None], tmp_path: Path) -> None:
    stopped("_switch")
    new = make.layer(make.file("new", "n"))
    archive = make.docker_archive(tmp_path / "new.tar", [abundance.layers()["base"], new], ["new:1"])
    with layerstore.open(config=settings(filled)) as opened:
        with opened.container("edited").mount() as root:
            (root / "etc/passwd").write_text("altered\nagain\n")
        opened.container("never-mounted").remove()
        opened.remove_image("two:1")
        opened.container("committed").commit("more:1")
        opened.container("nothing").rename("something")
        opened.load(archive)
        opened.create_container("new:1", name="late")
    before = look(filled, "overlay2")
    migrate(filled, "plain")
    assert_nothing_is_left(filled, "plain")
    assert look(filled, "plain") == before


@pytest.mark.parametrize("to", ["overlay2", "third"])
def test_unfinished_one_is_given_up(filled: Path, stopped: Callable[[str], None], to: str) -> None:
    before = look(filled, "overlay2")
    stopped("_hand_over")
    done = migrate(filled, to)
    assert done.given_up == ("plain" if to == "overlay2" else None)
    assert_nothing_is_left(filled, to)
    assert look(filled, to) == before


def test_what_was_lost_between_two_tries_is_made_again(filled: Path, stopped: Callable[[str], None]) -> None:
    before = look(filled, "overlay2")
    stopped("_hand_over")
    with layerstore.open(config=settings(filled)) as opened:
        image, box = opened.image("two:1"), opened.container("edited")
    database = sqlite3.connect(filled / "migration/layerstore.db")
    with closing(database):
        [layer] = database.execute("SELECT key FROM layers WHERE chain_id = ?", (image.chain_ids[0],)).fetchone()
        keys = dict(database.execute("SELECT name, key FROM containers").fetchall())
    shutil.rmtree(filled / "plain" / keys["nothing"])
    os.truncate(filled / "plain" / layer / "tree/etc/group", 0)
    os.truncate(filled / "plain" / keys[box.name] / "tree/large", 0)
    migrate(filled, "plain")
    assert look(filled, "plain") == before


def test_damaged_layer_stops_it(filled: Path, tmp_path: Path) -> None:
    with layerstore.open(config=settings(filled)) as opened:
        image = opened.image("two:1")
        key = opened._layers.stack(image.chain_ids[0]).layers[0].key
        (filled / "overlay2" / key / "diff/etc/group").write_text("x")
    with pytest.raises(Damaged, match="/etc/group") as caught:
        migrate(filled, "plain")
    assert "layerstore migrate overlay2` gives it up" in str(caught.value)
    with layerstore.open(config=settings(filled)) as opened:
        opened.load(tmp_path / "two.tar")
    before = look(filled, "overlay2")
    migrate(filled, "plain")
    assert look(filled, "plain") == before


def test_file_that_no_tar_can_hold_stops_it(filled: Path) -> None:
    with layerstore.open(config=settings(filled)) as opened, opened.container("untouched").mount() as root:
        (root / "usr/.wh.name").touch()
    with pytest.raises(LayerstoreError, match=r"container untouched: /usr/\.wh\.name"):
        migrate(filled, "plain")


def test_full_disk_stops_it(own_filesystem: Callable[..., Path], tmp_path: Path) -> None:
    disk = own_filesystem("ext4", size=64 << 20)
    data_root = disk / "store"
    fill(data_root, tmp_path)
    before = look(data_root, "overlay2")
    space = os.statvfs(disk)
    free = space.f_bavail * space.f_frsize
    with open(disk / "filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free - (5 << 20))
    with pytest.raises(LayerstoreError) as caught:
        migrate(data_root, "plain")
    assert "the same command goes on" in str(caught.value)
    (disk / "filler").unlink()
    assert look(data_root, "overlay2") == before
    migrate(data_root, "plain")
    assert_nothing_is_left(data_root, "plain")
    assert look(data_root, "plain") == before


def test_former_home_waits_for_its_driver(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is opened even if the driver that it had is not installed any more."""
    load = plugins.load

    def gone(entry: str) -> Any:
        if entry == "layerstore_overlay2:Overlay2" and (filled / "plain").exists():
            raise DriverNotFound("uninstalled")
        return load(entry)

    with monkeypatch.context() as patch:
        patch.setattr(Migration, "_require_free_home", lambda *_: patch.setattr(plugins, "load", gone))
        done = migrate(filled, "plain")
        assert done.notices == ("the home of overlay2 could not be removed yet: the next command tries again",)
        with layerstore.open(config=settings(filled)) as opened:
            assert (opened.info().former, opened.check()) == ("overlay2", [])
    layerstore.open(config=settings(filled)).close()
    assert_nothing_is_left(filled, "plain")


# --- the kill


@pytest.mark.tools("strace")
@pytest.mark.parametrize(
    ("call", "step"),
    [
        *[("rename", 90), ("fdatasync", 51), ("unlink", 21)],
        *([("mkdir", 64), ("fsync", 31), ("syncfs", 31), ("linkat", 29)] if NIGHTLY else []),
    ],
)
def test_killed_before_a_system_call(filled: Path, call: str, step: int) -> None:
    """To plain and back, each time killed a little later; `step` leaves some calls out, for time."""
    step = 1 if NIGHTLY else step
    before = look(filled, "overlay2")
    small = without_trees(before)
    names, kills = ("overlay2", "plain"), 0
    for count in range(1, 10_000, step):
        died = killed(filled, names[1], call, count)
        if died:
            kills += 1
            with layerstore.open(config=settings(filled)) as opened:
                is_old = opened.driver_name == names[0]
            assert look(filled, names[0] if is_old else names[1], trees=False) == small
            if is_old:
                migrate(filled, names[1])
        assert_nothing_is_left(filled, names[1])
        assert look(filled, names[1], trees=False) == small
        names = (names[1], names[0])
        if not died:
            break
    assert kills
    assert look(filled, names[0]) == before


# --- the power cut


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("last", ["_hand_over", "_switch", "the end"])
def test_power_is_cut(kind: str, last: str, own_filesystem: Callable[..., Path], tmp_path: Path) -> None:
    """After the last layer, before the switch, or as soon as the migration is said to be done."""
    disk = own_filesystem(kind)
    data_root = disk / "store"
    fill(data_root, tmp_path)
    before = look(data_root, "overlay2")
    program = (
        "import os, sys, layerstore\n"
        "from core import abundance\n"
        "from layerstore.migration import Migration\n"
        "abundance.plugins._entries = abundance.entries\n"
        "if hasattr(Migration, sys.argv[2]): setattr(Migration, sys.argv[2], lambda *_: os._exit(0))\n"
        "layerstore.migrate('plain', sys.argv[1])\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program, data_root, last], env=ENVIRONMENT, check=True)
    Disk(disk).cut()
    if last != "the end":
        assert look(data_root, "overlay2", trees=False) == without_trees(before)
        assert unfinished(data_root) == "plain"
        migrate(data_root, "plain")
    assert look(data_root, "plain") == before
    assert_nothing_is_left(data_root, "plain")
